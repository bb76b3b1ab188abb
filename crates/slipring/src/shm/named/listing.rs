//! Lists the named channels.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::is_dir;
use crate::name::{Name, directory};
use crate::setup_error::SetupError;
use crate::shm::files::{base, entries, open_at};

/// Returns the names of all channels, sorted.
pub(crate) fn list() -> Result<Vec<Name>, SetupError> {
    let base = match base(false) {
        Err(SetupError::NoDirectory { .. }) if directory().1 => return Ok(Vec::new()),
        base => base?,
    };
    let mut names = topics(&base, None);
    for domain in domains(&base) {
        names.extend(in_domain(&base, &domain));
    }
    names.sort();
    Ok(names)
}

/// Returns the names of the channels in a directory: the base, or a domain's.
fn topics(dir: &OwnedFd, domain: Option<&str>) -> Vec<Name> {
    // A channel is a directory; other files are not ours.
    let entries = entries(dir).into_iter();
    let topics = entries.filter(|entry| !entry.starts_with('@') && is_dir(dir, entry));
    let named = topics.filter_map(|topic| Name::within(domain, &topic));
    named.collect()
}

fn domains(base: &OwnedFd) -> Vec<String> {
    let domain = |entry: &String| entry.strip_prefix('@').map(str::to_owned);
    entries(base).iter().filter_map(domain).collect()
}

/// Returns the names of the channels in a domain; none if it cannot be read.
fn in_domain(base: &OwnedFd, domain: &str) -> Vec<Name> {
    let dir = open_at(base, &format!("@{domain}"));
    dir.map_or_else(|_| Vec::new(), |dir| topics(&dir, Some(domain)))
}

/// Returns the device and the inode of the base directory; `None` if there is none.
pub(crate) fn base_file() -> Option<(u64, u64)> {
    let stat = rustix::fs::stat(directory().0).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// The base directory, as one sees it who follows what comes and goes there.
pub(crate) struct Base {
    dir: OwnedFd,
    /// The absolute path, by which the kernel watches it.
    pub(crate) path: PathBuf,
    /// `true` for the default directory, which must not be a link.
    pub(crate) default: bool,
}

impl Base {
    /// Opens the base directory. Makes the default one if it is missing: a channel may come later.
    pub(crate) fn open() -> Result<Base, SetupError> {
        let dir = base(true)?;
        let (path, default) = directory();
        Ok(Base {
            dir,
            path: std::path::absolute(&path).unwrap_or(path),
            default,
        })
    }

    /// Returns the device and the inode.
    pub(crate) fn file(&self) -> (u64, u64) {
        rustix::fs::fstat(&self.dir).map_or((0, 0), |stat| (stat.st_dev, stat.st_ino))
    }

    /// Returns the domains.
    pub(crate) fn domains(&self) -> Vec<String> {
        domains(&self.dir)
    }

    /// Returns the names of the channels in a domain, or without one.
    pub(crate) fn names(&self, domain: Option<&str>) -> Vec<Name> {
        match domain {
            Some(domain) => in_domain(&self.dir, domain),
            None => topics(&self.dir, None),
        }
    }
}
