//! What this machine is, which core does what, and what a process has used of it. Linux only; what the system does not
//! tell is left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use tessera_protocol::id::Digest;

/// The machine that a report is of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Threads that wanted a core, on average of the last minute: before and after.
    pub(crate) load: [f64; 2],
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Machine {
    pub(crate) fn here() -> Machine {
        let cpu = text("/proc/cpuinfo");
        let processor = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let memory = field_kib(&text("/proc/meminfo"), "MemTotal:");
        Machine {
            processor: processor.unwrap_or_default().trim_start_matches(['\t', ' ', ':']).to_owned(),
            cores: cores().len(),
            memory_bytes: memory.unwrap_or_default(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: [load(), load()],
        }
    }

    /// The load once all is measured.
    pub(crate) fn afterwards(self) -> Machine {
        Machine { load: [self.load[0], load()], ..self }
    }
}

fn load() -> f64 {
    text("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

/// A line such as `VmRSS:  123 kB`. *Units*: bytes.
fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The kind of file system that a folder lies in, as `ext4`; nothing where the system does not tell.
pub(crate) fn file_system_of(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = text("/proc/self/mounts");
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    // The innermost, and of those the one that was mounted over the others.
    let within = mounts.filter(|(point, _)| folder.starts_with(point));
    within.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned()).unwrap_or_default()
}

/// The cores that this process might use when it was first asked, before it pinned anything. *Order*: ascending.
pub(crate) fn cores() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| {
        let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect()
    })
}

/// The cores that all threads of a process may use. *Order*: ascending.
pub(crate) fn cores_of(pid: u32) -> Vec<usize> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ids = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw);
    let sets: Vec<CpuSet> = ids.filter_map(|id| sched_getaffinity(Some(id)).ok()).collect();
    (0..CpuSet::MAX_CPU).filter(|&core| sets.iter().any(|set| set.is_set(core))).collect()
}

/// Keeps this thread, and what it starts from now on, on some cores. False where the system refuses: all goes on as it
/// was.
pub(crate) fn pin(cores: &[usize]) -> bool {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).is_ok()
}

/// What the source of this program was made from, and whether something else was in its tree.
pub(crate) fn commit() -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = Command::new("git")
        .arg("-C")
        .arg(here)
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output();
    let said = git.ok().filter(|git| git.status.success()).map(|git| git.stdout).unwrap_or_default();
    match String::from_utf8_lossy(&said).trim() {
        "" => "unknown".to_owned(),
        commit => commit.to_owned(),
    }
}

/// Names a program, so that two reports show whether they are of the same.
pub(crate) fn digest_of(program: &Path) -> String {
    std::fs::read(program).map(|bytes| Digest::of(&bytes).to_string()).unwrap_or_default()
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// *Units*: bytes.
    pub(crate) resident: u64,
    pub(crate) threads: usize,
    pub(crate) files: usize,
}

impl Held {
    pub(crate) fn of(pid: u32) -> Held {
        let entries =
            |name: &str| std::fs::read_dir(format!("/proc/{pid}/{name}")).map_or(0, Iterator::count);
        let resident = field_kib(&text(&format!("/proc/{pid}/status")), "VmRSS:").unwrap_or_default();
        Held { resident, threads: entries("task"), files: entries("fd") }
    }
}

/// What a process has used so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    /// Time on a core, by the names of its threads. *Units*: nanoseconds.
    threads: BTreeMap<String, u64>,
    /// *Units*: bytes.
    pub(crate) resident: u64,
    /// The most that it was. *Units*: bytes.
    pub(crate) resident_peak: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Usage {
        let status = text(&format!("/proc/{pid}/status"));
        let mut usage = Usage {
            resident: field_kib(&status, "VmRSS:").unwrap_or_default(),
            resident_peak: field_kib(&status, "VmHWM:").unwrap_or_default(),
            threads: BTreeMap::new(),
        };
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let ns = read("schedstat").split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
            *usage.threads.entry(read("comm").trim().to_owned()).or_default() += ns.unwrap_or_default();
        }
        usage
    }

    /// Time on a core since, by thread. Threads that ended in between are missing. *Units*: nanoseconds.
    pub(crate) fn ns_since(&self, earlier: &Usage) -> BTreeMap<String, u64> {
        let before = |name: &str| earlier.threads.get(name).copied().unwrap_or_default();
        let since = self.threads.iter().map(|(name, ns)| (name.clone(), ns.saturating_sub(before(name))));
        since.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_computes_shows_in_the_usage_of_its_process() {
        let before = Usage::of(std::process::id());
        assert!(before.resident > 0 && before.resident_peak >= before.resident);
        let mut sum = 0u64;
        let used = loop {
            (0..1_000_000u64).for_each(|n| sum = std::hint::black_box(sum ^ n));
            let used: u64 = Usage::of(std::process::id()).ns_since(&before).values().sum();
            if used > 0 {
                break used;
            }
        };
        assert!(used > 0);
    }

    #[test]
    fn a_folder_lies_in_the_innermost_file_system() {
        assert_eq!(file_system_of(Path::new("/proc/self")), "proc");
        assert!(!file_system_of(Path::new("/")).is_empty());
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.memory_bytes > 0, "{machine:?}");
    }
}
