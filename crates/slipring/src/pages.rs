//! The page sizes that a builder can ask for.

use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;
use rustix::mm::MapFlags;

/// The page size to ask for, for the data part of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HugePages {
    /// Ordinary pages. Large mappings still ask for *transparent* huge pages, as a hint.
    #[default]
    Off,
    /// Pages of 2 MiB, from the pool that the administrator reserved (`slipring hugepages`).
    TwoMiB,
    /// Pages of 1 GiB, likewise.
    OneGiB,
}

impl HugePages {
    /// Returns the bytes of a page; for `Off`, of the machine's ordinary page.
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

    pub(crate) fn pool(self) -> Option<PathBuf> {
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
