//! Huge pages: asking for them, reporting the result, and the kernel's pools of them.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use crate::pages::HugePages;
use crate::setup_error::SetupError;

/// The pages that the builder asked for, and those that the data part got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    /// The page size that the builder asked for.
    pub asked: HugePages,
    /// The page size that the data part has.
    pub got: HugePages,
    /// The reason why they differ.
    pub reason: Option<String>,
}

impl Pages {
    /// Returns the pages of an existing data file.
    pub(crate) fn of(data: BorrowedFd<'_>) -> Pages {
        let block = rustix::fs::fstatfs(data).map_or(0, |stat| {
            if stat.f_type as u64 == HUGETLBFS_MAGIC {
                stat.f_bsize as u64
            } else {
                0
            }
        });
        let got = match block {
            0x20_0000 => HugePages::TwoMiB,
            0x4000_0000 => HugePages::OneGiB,
            _ => HugePages::Off,
        };
        Pages {
            asked: got,
            got,
            reason: None,
        }
    }

    /// Returns a report that `asked` was not available, and why.
    pub(crate) fn fell_back(asked: HugePages, reason: String) -> Pages {
        Pages {
            asked,
            got: HugePages::Off,
            reason: Some(reason),
        }
    }
}

pub(crate) const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Tries `make` with the requested size, then with ordinary pages, and reports which one succeeded.
pub(crate) fn with_fallback<R>(
    asked: HugePages,
    mut make: impl FnMut(HugePages) -> Result<R, SetupError>,
) -> Result<(R, Pages), SetupError> {
    if asked == HugePages::Off {
        return Ok((make(asked)?, Pages::base()));
    }
    match make(asked) {
        Ok(made) => Ok((
            made,
            Pages {
                asked,
                got: asked,
                reason: None,
            },
        )),
        Err(error) => Ok((
            make(HugePages::Off)?,
            Pages::fell_back(asked, error.to_string()),
        )),
    }
}

/// The state of the kernel's pool of one page size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// The page size.
    pub size: HugePages,
    /// The pages in the pool.
    pub total: u64,
    /// The unused pages.
    pub free: u64,
    /// The pages promised to a mapping that has not touched them yet.
    pub reserved: u64,
    /// The mount point of a hugetlbfs of this page size: named channels need one.
    pub mount: Option<PathBuf>,
}

/// Returns the kernel's pools of huge pages. Leaves out a size that this machine does not have.
///
/// ```
/// for pool in slipring::huge_pages::pools() {
///     println!("{}: {} of {} pages free", pool.size, pool.free, pool.total);
/// }
/// ```
pub fn pools() -> Vec<PoolState> {
    let figure = |pool: &Path, name: &str| -> Option<u64> {
        fs::read_to_string(pool.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let state = |size: HugePages| {
        let pool = size.pool()?;
        Some(PoolState {
            size,
            total: figure(&pool, "nr_hugepages")?,
            free: figure(&pool, "free_hugepages")?,
            reserved: figure(&pool, "resv_hugepages")?,
            mount: mount(size),
        })
    };
    [HugePages::TwoMiB, HugePages::OneGiB]
        .into_iter()
        .filter_map(state)
        .collect()
}

/// Sets the number of pages in a pool (as root), and returns how many the kernel could find.
///
/// The kernel does not take away pages in use. It finds fewer than requested if memory is too
/// fragmented. Returns [`NoPool`](SetupError::NoPool) for ordinary pages, and
/// [`Os`](SetupError::Os) without the necessary permission.
pub fn reserve(size: HugePages, pages: u64) -> Result<u64, SetupError> {
    let Some(pool) = size.pool() else {
        return Err(SetupError::NoPool);
    };
    let file = pool.join("nr_hugepages");
    let fail = |error: io::Error| {
        // Not `Permission`: its advice is about the files of channels.
        SetupError::Os {
            what: format!("set {} (that takes root)", file.display()).into(),
            source: error,
        }
    };
    fs::write(&file, pages.to_string()).map_err(fail)?;
    let found = fs::read_to_string(&file).map_err(fail)?;
    Ok(found.trim().parse().unwrap_or(0))
}

/// Returns the mount point of a hugetlbfs of this page size, from /proc/self/mounts.
pub(crate) fn mount(size: HugePages) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (dir, kind) = (fields.next()?, fields.next()?);
        if kind != "hugetlbfs" {
            return None;
        }
        let stat = rustix::fs::statfs(dir).ok()?;
        (stat.f_bsize as usize == size.bytes()).then(|| PathBuf::from(dir))
    })
}
