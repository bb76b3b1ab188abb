//! `slipring rm`: removes channels that nobody uses, including corrupt ones, and prints their
//! names. It leaves a channel that is in use as it is, and removes the others all the same.

use std::time::Duration;

use slipring::{Name, SetupError, inspect};

use crate::exit::{Failure, complain};
use crate::text;

/// Remove named channels that are not in use
///
/// Prints a line for each channel that it removed. Unread messages in them are lost. A channel
/// outlives its processes until it is removed: `slipring rm --unused --older-than 7d` removes those
/// that nobody came back to.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The channels, by name or by a quoted pattern such as 'cam/*': `*` stands for any characters
    /// and `?` for one, within one part of the name
    #[arg(value_name = "NAME", required_unless_present_any = ["domain", "unused", "older_than"])]
    names: Vec<String>,
    /// Remove all channels of this domain
    #[arg(long)]
    domain: Vec<String>,
    /// Leave channels in use without complaint; without names, remove all others
    #[arg(long)]
    unused: bool,
    /// Leave channels that were made, taken or waited on more recently: 90s, 30m, 12h, 7d; implies
    /// --unused
    #[arg(long, value_name = "AGE", value_parser = text::parse_age)]
    older_than: Option<Duration>,
}

impl Args {
    /// Returns `true` if `rm` passes over channels that it cannot remove now.
    fn choosy(&self) -> bool {
        self.unused || self.older_than.is_some()
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut worst = 0;
    let mut complain = |failure: &Failure| {
        complain(failure);
        worst = worst.max(failure.code());
    };
    for (name, exact) in chosen(args, &mut complain)? {
        match remove(&name, args) {
            Ok(true) => text::answer(format!("removed {name}"))?,
            Ok(false) => {}
            Err(SetupError::InUse { .. }) if args.choosy() => {}
            // Somebody else removed it first.
            Err(SetupError::NotFound { .. }) if !exact => {}
            Err(SetupError::NotFound { .. }) => complain(&nothing(&name)),
            Err(error) => complain(&error.into()),
        }
    }
    if worst == 0 {
        Ok(())
    } else {
        Err(Failure::Told(worst))
    }
}

/// Returns the channels that the arguments name, each once, and whether by their exact names.
fn chosen(
    args: &Args,
    complain: &mut impl FnMut(&Failure),
) -> Result<Vec<(String, bool)>, Failure> {
    let mut patterns = args.names.clone();
    for domain in &args.domain {
        // A domain has the form of a topic.
        if domain.contains('/') {
            let (name, why) = (domain.as_str().into(), "a domain has no `/`");
            return Err(SetupError::BadName { name, why }.into());
        }
        Name::new(domain)?;
        patterns.push(format!("{domain}/*"));
    }
    if patterns.is_empty() {
        patterns = vec!["*".into(), "*/*".into()];
    }
    let is_pattern = |name: &String| name.contains(['*', '?']);
    let there = if patterns.iter().any(is_pattern) {
        inspect::list()?
    } else {
        Vec::new()
    };
    let there = there.iter().map(Name::to_string).collect::<Vec<_>>();
    let mut chosen = Vec::<(String, bool)>::new();
    for pattern in patterns {
        let exact = !is_pattern(&pattern);
        let found = if exact {
            vec![pattern.clone()]
        } else {
            let found = there
                .iter()
                .filter(|name| matches(pattern.as_bytes(), name.as_bytes()));
            found.cloned().collect()
        };
        if found.is_empty() && !args.choosy() {
            let dir = slipring::directory().0;
            let below = format!("{pattern}/*");
            let advice = if names_domain(&below, &there) {
                format!("`*` does not stand for `/`: for the channels of domains use '{below}'")
            } else {
                "look at `slipring ls`".to_string()
            };
            complain(&Failure::Words(format!(
                "no channel matches `{pattern}` in {}; {advice}",
                dir.display()
            )));
        }
        for name in found {
            if !chosen.iter().any(|(other, _)| *other == name) {
                chosen.push((name, exact));
            }
        }
    }
    Ok(chosen)
}

/// Returns the failure to find a channel of this name.
fn nothing(name: &str) -> Failure {
    let there = inspect::list().unwrap_or_default();
    let there = there.iter().map(Name::to_string).collect::<Vec<_>>();
    let advice = if names_domain(&format!("{name}/*"), &there) {
        format!("for the channels of the domain `{name}` use `--domain {name}`")
    } else {
        "look at `slipring ls`".to_string()
    };
    Failure::Words(format!(
        "no channel `{name}` in {} (never made, or removed); {advice}",
        slipring::directory().0.display()
    ))
}

/// Returns `true` if this pattern of the channels in domains matches one.
fn names_domain(below: &str, there: &[String]) -> bool {
    there
        .iter()
        .any(|name| matches(below.as_bytes(), name.as_bytes()))
}

/// Removes a channel if it is old enough; returns `true` if it did.
fn remove(name: &str, args: &Args) -> Result<bool, SetupError> {
    if let Some(age) = args.older_than
        && inspect::stat(name)?.idle().is_none_or(|idle| idle < age)
    {
        return Ok(false);
    }
    inspect::remove(name).map(|()| true)
}

/// Returns `true` if a name matches this pattern: neither `*` nor `?` stands for a `/`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', pattern @ ..], _) => {
            let part = name.iter().take_while(|byte| **byte != b'/').count();
            (0..=part).any(|skip| matches(pattern, &name[skip..]))
        }
        ([b'?', pattern @ ..], [byte, name @ ..]) if *byte != b'/' => matches(pattern, name),
        ([a, pattern @ ..], [b, name @ ..]) if a == b && *a != b'?' => matches(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_part() {
        let matches = |pattern: &str, name: &str| matches(pattern.as_bytes(), name.as_bytes());
        for (pattern, name) in [
            ("*", "x"),
            ("cam/*", "cam/left"),
            ("c*m/l*t", "cam/left"),
            ("*/*", "cam/left"),
            ("cam/lef?", "cam/left"),
            ("cam-*-*", "cam-1-2-3"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*", "cam/left"),
            ("cam/*", "cam"),
            ("cam?left", "cam/left"),
            ("cam/?", "cam/left"),
            ("*x", "y"),
            ("cam/*/*", "cam/left"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
