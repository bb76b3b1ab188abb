//! Huge pages: asking for them, saying what came of it, and the pools that they come from.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;
use rustix::mm::MapFlags;

use crate::error::Error;

/// The page size to ask for, for the data part of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HugePages {
    /// Ordinary pages. Large mappings still ask for *transparent* huge pages, as a wish.
    #[default]
    Off,
    /// Pages of 2 MiB, from the pool that the administrator reserved (`slipring hugepages`).
    TwoMiB,
    /// Pages of 1 GiB, likewise.
    OneGiB,
}

impl HugePages {
    /// The bytes of a page; for `Off` the machine's.
    pub fn bytes(self) -> usize {
        match self {
            HugePages::Off => rustix::param::page_size(),
            HugePages::TwoMiB => 2 << 20,
            HugePages::OneGiB => 1 << 30,
        }
    }

    pub(crate) fn round(self, len: usize) -> usize {
        len.max(1).next_multiple_of(self.bytes())
    }

    pub(crate) fn map_flags(self) -> MapFlags {
        match self {
            HugePages::Off => MapFlags::empty(),
            HugePages::TwoMiB => MapFlags::HUGETLB | MapFlags::HUGE_2MB,
            HugePages::OneGiB => MapFlags::HUGETLB | MapFlags::HUGE_1GB,
        }
    }

    pub(crate) fn memfd_flags(self) -> MemfdFlags {
        match self {
            HugePages::Off => MemfdFlags::empty(),
            HugePages::TwoMiB => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
            HugePages::OneGiB => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
        }
    }

    fn pool(self) -> Option<PathBuf> {
        let kib = match self {
            HugePages::Off => return None,
            size => size.bytes() / 1024,
        };
        Some(Path::new("/sys/kernel/mm/hugepages").join(format!("hugepages-{kib}kB")))
    }
}

impl std::fmt::Display for HugePages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            HugePages::Off => "ordinary pages",
            HugePages::TwoMiB => "2 MiB pages",
            HugePages::OneGiB => "1 GiB pages",
        })
    }
}

/// Which pages the data part was asked to have, and which it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    /// What the builder asked for.
    pub asked: HugePages,
    /// What the data part has.
    pub got: HugePages,
    /// Why these differ.
    pub reason: Option<String>,
}

impl Pages {
    /// The pages of an existing data file.
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

    /// Says that `asked` could not be had, and why.
    pub(crate) fn fell_back(asked: HugePages, reason: String) -> Pages {
        Pages {
            asked,
            got: HugePages::Off,
            reason: Some(reason),
        }
    }
}

pub(crate) const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Tries `make` with the size asked for, then with ordinary pages, and reports which it was.
pub(crate) fn with_fallback<R>(
    asked: HugePages,
    mut make: impl FnMut(HugePages) -> Result<R, Error>,
) -> Result<(R, Pages), Error> {
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
    /// Pages in the pool.
    pub total: u64,
    /// Pages that nobody uses.
    pub free: u64,
    /// Pages promised to a mapping that has not touched them yet.
    pub reserved: u64,
    /// Where a hugetlbfs of this page size is mounted: named channels need one.
    pub mount: Option<PathBuf>,
}

/// The kernel's pools of huge pages; a size that this machine does not have is left out.
///
/// ```
/// for pool in slipring::pools() {
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

/// Sets the number of pages in a pool (as root), and says how many the kernel could find.
///
/// Pages in use are not taken away. Fewer than asked for means that memory is too fragmented. `NoPool` for
/// pages of the usual size, `Os` without the right to do so.
pub fn reserve(size: HugePages, pages: u64) -> Result<u64, Error> {
    let Some(pool) = size.pool() else {
        return Err(Error::NoPool);
    };
    let file = pool.join("nr_hugepages");
    let fail = |error: io::Error| {
        let errno = rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
        Error::os(
            format_args!("set {} (that takes root)", file.display()),
            errno,
        )
    };
    fs::write(&file, pages.to_string()).map_err(fail)?;
    let found = fs::read_to_string(&file).map_err(fail)?;
    Ok(found.trim().parse().unwrap_or(0))
}

/// Where a hugetlbfs of this page size is mounted, by /proc/self/mounts.
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
