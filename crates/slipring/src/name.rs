//! Names of channels, patterns of names, and the directory that holds the channels.

use std::path::PathBuf;

use crate::setup_error::{SetupError, path};

/// The longest part of a name, in bytes.
const MAX_PART: usize = 64;

/// A checked channel name: `topic` or `domain/topic`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    domain: Option<Box<str>>,
    topic: Box<str>,
}

impl Name {
    /// Checks a name against the rule, and returns [`BadName`](SetupError::BadName) if it breaks
    /// it.
    ///
    /// A name has one or two parts, separated by one `/`. Each part is 1 to 64 characters `A-Z a-z
    /// 0-9 . _ -`, and does not begin with a dot.
    ///
    /// ```
    /// use slipring::Name;
    /// assert!(Name::new("market/ticks").is_ok());
    /// for bad in ["", "..", "a/b/c", "a/", "nul\0", "ümlaut", &"x".repeat(65)] {
    ///     assert!(Name::new(bad).is_err());
    /// }
    /// ```
    pub fn new(name: &str) -> Result<Name, SetupError> {
        let checked = parts(name, b"._-").map_err(|why| SetupError::BadName {
            name: name.escape_debug().to_string().into(),
            why,
        });
        let (domain, topic) = checked?;
        Ok(Name {
            domain: domain.map(Box::from),
            topic: topic.into(),
        })
    }

    /// Returns the name of a topic in a domain, or without one; `None` if either breaks the rule.
    pub(crate) fn within(domain: Option<&str>, topic: &str) -> Option<Name> {
        let name = match domain {
            Some(domain) => Name::new(&format!("{domain}/{topic}")),
            None => Name::new(topic),
        };
        name.ok()
    }

    /// Returns the part before the `/`, if there is one.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// Returns the last part.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the name of the domain's directory. Its `@` distinguishes it from every channel's
    /// name.
    pub(crate) fn domain_dir(&self) -> Option<String> {
        self.domain.as_ref().map(|domain| format!("@{domain}"))
    }

    pub(crate) fn not_found(&self) -> SetupError {
        SetupError::NotFound {
            name: self.to_string().into(),
            dir: path(directory().0),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.domain {
            Some(domain) => write!(f, "{domain}/{}", self.topic),
            None => f.write_str(&self.topic),
        }
    }
}

/// Takes a name apart, or returns the rule that it breaks. Its characters are letters, digits, and those in `marks`.
fn parts<'t>(text: &'t str, marks: &[u8]) -> Result<(Option<&'t str>, &'t str), &'static str> {
    let mut parts = text.split('/');
    let (first, second, third) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    if third.is_some() {
        return Err("it has more than one `/`");
    }
    for part in [Some(first), second].into_iter().flatten() {
        if part.is_empty() {
            return Err("it is empty, or has an empty part");
        }
        if part.len() > MAX_PART {
            return Err("a part is longer than 64 bytes");
        }
        if part.starts_with('.') {
            return Err("a part begins with a dot");
        }
        if !part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte))
        {
            return Err("it has a character that is not allowed");
        }
    }
    Ok(match second {
        Some(topic) => (Some(first), topic),
        None => (None, first),
    })
}

/// A checked pattern of channel names: a name in which `*` stands for any characters of one part, also for none.
///
/// `cam/*` matches all channels of the domain `cam`, `*/imu` the channel `imu` of every domain, and `*` all channels without a
/// domain. A name is a pattern that matches itself.
///
/// ```
/// use slipring::{Name, Pattern};
/// let pattern = Pattern::new("cam*/front-*")?;
/// assert!(pattern.matches(&Name::new("cam2/front-left")?));
/// assert!(!pattern.matches(&Name::new("cam2/rear")?));
/// assert!(!Pattern::new("*")?.matches(&Name::new("cam2/rear")?));
/// for bad in ["", "a/*/c", "*/", ".*", "a?"] {
///     assert!(Pattern::new(bad).is_err());
/// }
/// # Ok::<(), slipring::SetupError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    domain: Option<Box<str>>,
    topic: Box<str>,
}

impl Pattern {
    /// Checks a pattern against the rule, and returns [`BadPattern`](SetupError::BadPattern) if it breaks it.
    ///
    /// The rule is that of [`Name::new`], with `*` as one more character.
    pub fn new(pattern: &str) -> Result<Pattern, SetupError> {
        let checked = parts(pattern, b"._-*").map_err(|why| SetupError::BadPattern {
            pattern: pattern.escape_debug().to_string().into(),
            why,
        });
        let (domain, topic) = checked?;
        Ok(Pattern {
            domain: domain.map(Box::from),
            topic: topic.into(),
        })
    }

    /// Returns `true` if the pattern stands for this name.
    pub fn matches(&self, name: &Name) -> bool {
        self.reaches(name.domain()) && part_matches(&self.topic, name.topic())
    }

    /// Returns `true` if names in this domain, or without one, may match.
    pub(crate) fn reaches(&self, domain: Option<&str>) -> bool {
        match (&self.domain, domain) {
            (Some(pattern), Some(domain)) => part_matches(pattern, domain),
            (None, None) => true,
            _ => false,
        }
    }

    /// Returns the only name that can match; `None` if there is a `*`.
    pub fn as_name(&self) -> Option<Name> {
        Name::new(&self.to_string()).ok()
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.domain {
            Some(domain) => write!(f, "{domain}/{}", self.topic),
            None => f.write_str(&self.topic),
        }
    }
}

/// Returns `true` if `pattern` stands for `text`. Both are of ASCII alone.
///
/// Each `*` first takes as little as it can. If the rest does not fit, only the last `*` has to take more: an earlier one
/// could give it nothing that it does not have.
fn part_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut next) = (0, 0);
    let mut star = None;
    while at < text.len() {
        match pattern.get(next) {
            Some(b'*') => {
                star = Some((next + 1, at));
                next += 1;
            }
            Some(byte) if *byte == text[at] => {
                at += 1;
                next += 1;
            }
            _ => match &mut star {
                Some((behind, taken)) => {
                    *taken += 1;
                    (at, next) = (*taken, *behind);
                }
                None => return false,
            },
        }
    }
    pattern[next..].iter().all(|byte| *byte == b'*')
}

/// Returns the directory for named channels, and `true` if it is the default one. The directory is
/// `$SLIPRING_DIR`, or by default `/dev/shm/slipring-UID`.
pub fn directory() -> (PathBuf, bool) {
    match std::env::var_os("SLIPRING_DIR") {
        Some(dir) if !dir.is_empty() => (dir.into(), false),
        _ => {
            let uid = rustix::process::geteuid().as_raw();
            (format!("/dev/shm/slipring-{uid}").into(), true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_take_any_characters() {
        for (pattern, text, fits) in [
            ("*", "a", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "banana", true),
            ("*an*a", "banana", true),
            ("b*n*n", "banana", false),
            ("a*b*c", "abbcbc", true),
            ("**", "x", true),
            ("ab", "abc", false),
            ("abc", "ab", false),
        ] {
            assert_eq!(part_matches(pattern, text), fits, "{pattern} {text}");
        }
        // This takes no time that grows with the number of stars.
        assert!(!part_matches(&"*a".repeat(32), &"a".repeat(31)));
    }
}
