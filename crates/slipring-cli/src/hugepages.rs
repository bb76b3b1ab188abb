//! `slipring hugepages`: shows the kernel's pools of huge pages, and does an administrator's work
//! on them. It reserves pages, and mounts the file system through which named channels get them.

use std::path::Path;

use rustix::mount::MountFlags;
use serde_json::json;
use slipring::HugePages;
use slipring::huge_pages::{self, PoolState};

use crate::exit::Failure;
use crate::{create, text};

/// Show, reserve and mount huge pages
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Set the number of pages in the pool (as root)
    #[arg(long, value_name = "N")]
    reserve: Option<u64>,
    /// Mount a hugetlbfs for named channels, at /dev/hugepages or /dev/hugepages1G (as root)
    #[arg(long)]
    mount: bool,
    /// The page size for --reserve and --mount, 2M or 1G
    #[arg(long, default_value = "2M", value_parser = create::huge)]
    size: HugePages,
    /// Print the pools as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut fewer = None;
    if let Some(asked) = args.reserve {
        let got = huge_pages::reserve(args.size, asked)?;
        if got < asked {
            fewer = Some(format!(
                "the kernel found {got} of {asked} pages; memory is too full or too fragmented"
            ));
        }
    }
    let known = |pool: &PoolState| pool.size == args.size && pool.mount.is_some();
    if args.mount && !huge_pages::pools().iter().any(known) {
        mount(args.size)?;
    }
    let pools = huge_pages::pools();
    if args.json {
        text::answer_json(&pools.iter().map(as_json).collect())?;
    } else if pools.is_empty() {
        text::answer("this kernel has no huge pages")?;
    } else {
        text::answer(as_text(&pools))?;
    }
    fewer.map_or(Ok(()), |words| Err(Failure::Words(words)))
}

/// Mounts a hugetlbfs in which every user may make files.
fn mount(size: HugePages) -> Result<(), Failure> {
    let (dir, options) = match size {
        HugePages::OneGiB => ("/dev/hugepages1G", c"pagesize=1G,mode=1777"),
        HugePages::TwoMiB | HugePages::Off => ("/dev/hugepages", c"pagesize=2M,mode=1777"),
    };
    if !Path::new(dir).is_dir() {
        std::fs::create_dir(dir)
            .map_err(|error| Failure::io(format!("make {dir} (that takes root)"), error))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("hugetlbfs", dir, "hugetlbfs", flags, options).map_err(|errno| {
        Failure::io(
            format!("mount a hugetlbfs at {dir} (that takes root)"),
            errno,
        )
    })
}

fn as_json(pool: &PoolState) -> serde_json::Value {
    json!({
        "page_size": pool.size.bytes(),
        "total": pool.total,
        "free": pool.free,
        "reserved": pool.reserved,
        "mount": pool.mount,
    })
}

fn as_text(pools: &[PoolState]) -> String {
    let head = ["PAGES", "TOTAL", "FREE", "RESERVED", "MOUNTED AT"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for pool in pools {
        let mount = pool.mount.as_ref().map(|mount| mount.display().to_string());
        rows.push(vec![
            text::bytes(pool.size.bytes() as u64),
            pool.total.to_string(),
            pool.free.to_string(),
            pool.reserved.to_string(),
            mount.unwrap_or_else(|| "- (see --mount)".to_string()),
        ]);
    }
    text::table(&rows, &[0, 1, 2, 3])
}
