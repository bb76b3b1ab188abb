//! Names of channels, and the directory that holds the channels.

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
        let bad = |why| SetupError::BadName {
            name: name.escape_debug().to_string().into(),
            why,
        };
        let mut parts = name.split('/');
        let (first, second, third) = (parts.next().unwrap_or(""), parts.next(), parts.next());
        if third.is_some() {
            return Err(bad("it has more than one `/`"));
        }
        for part in [Some(first), second].into_iter().flatten() {
            if part.is_empty() {
                return Err(bad("it is empty, or has an empty part"));
            }
            if part.len() > MAX_PART {
                return Err(bad("a part is longer than 64 bytes"));
            }
            if part.starts_with('.') {
                return Err(bad("a part begins with a dot"));
            }
            if !part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            {
                return Err(bad("it has a character that is not allowed"));
            }
        }
        Ok(match second {
            Some(topic) => Name {
                domain: Some(first.into()),
                topic: topic.into(),
            },
            None => Name {
                domain: None,
                topic: first.into(),
            },
        })
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
