//! Describes the machine and the versions with which the figures were measured.

use crate::peers::ALL;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::read_to_string;

/// The machine, and the versions of the contenders.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// The number of cores that this process may use.
    pub cores: usize,
    /// Level 1 data, level 2 and level 3 cache of the first core.
    pub caches: String,
    /// `true` if the machine runs under a hypervisor.
    pub virtual_machine: bool,
    /// The kernel.
    pub kernel: String,
    /// The setting of transparent huge pages: for all memory, for memory that asks, or for none.
    pub huge_pages: String,
    /// The running and waiting processes when the run began: averages of 1, 5 and 15 minutes.
    pub load_before: String,
    /// Each contender's version.
    pub versions: BTreeMap<&'static str, String>,
    /// The start of the run, in seconds since 1970.
    pub started: u64,
}

/// Inspects the machine. Facts that cannot be read are reported as unknown, not guessed.
pub fn look() -> Machine {
    let cpuinfo = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = cpuinfo
            .lines()
            .find(|l| l.split(':').next().is_some_and(|k| k.trim() == name));
        line.and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim().to_owned())
    };
    let caches: Vec<_> = (0..4)
        .map(|i| format!("/sys/devices/system/cpu/cpu0/cache/index{i}/"))
        .filter(|dir| read(&format!("{dir}type")) != "Instruction")
        .map(|dir| {
            format!(
                "L{} {}",
                read(&format!("{dir}level")),
                read(&format!("{dir}size"))
            )
        })
        .collect();
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    Machine {
        cpu: match (field("model name"), field("cpu family"), field("model")) {
            (Some(name), Some(family), Some(model)) => {
                format!("{name}, family {family}, model {model}")
            }
            _ => "unknown".to_owned(),
        },
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        caches: caches.join(", "),
        virtual_machine: field("flags").is_some_and(|f| f.split(' ').any(|w| w == "hypervisor")),
        kernel: read("/proc/sys/kernel/osrelease"),
        huge_pages: huge
            .split(['[', ']'])
            .nth(1)
            .unwrap_or("unknown")
            .to_owned(),
        load_before: read("/proc/loadavg")
            .split(' ')
            .take(3)
            .collect::<Vec<_>>()
            .join(" "),
        versions: versions(),
        started: std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_secs()),
    }
}

fn read(path: &str) -> String {
    read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Returns the versions of all contenders.
fn versions() -> BTreeMap<&'static str, String> {
    ALL.iter()
        .filter_map(|about| Some((about.name, version_of(about.package?)?)))
        .collect()
}

/// Returns a package's version in the lock file that this program was built with.
pub fn version_of(package: &str) -> Option<String> {
    let lock = include_str!("../Cargo.lock");
    let (_, after) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    after.split('"').next().map(str::to_owned)
}
