//! What this machine is: its name, its processors, its memory.

use std::fs;
use std::num::NonZero;

use tessera_protocol::limits;

/// The name of this machine, cut to what the protocol allows; `agent` where none is found.
pub fn host_name() -> String {
    let from_kernel =
        fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
    let named = from_kernel
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok());
    let name = named.as_deref().map(str::trim).filter(|name| !name.is_empty()).unwrap_or("agent");
    let whole = |end: &usize| name.is_char_boundary(*end);
    let end = (0..=name.len().min(limits::NAME_BYTES_MAX)).rev().find(whole).unwrap_or(0);
    name[..end].to_owned()
}

/// How many shards this machine computes well at once: its logical processors.
pub fn slots_available() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    u16::try_from(processors).unwrap_or(u16::MAX).min(limits::SLOTS_MAX)
}

/// Where Linux says what a control group, as a container has one, may take of memory: version 2, then 1.
const GROUP_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Memory of this machine, or what its control group allows; 0 where the system does not tell. *Units*: bytes.
pub(crate) fn memory_bytes() -> u64 {
    let limit = |path: &&str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let of_group = GROUP_LIMITS.iter().filter_map(limit).min().unwrap_or(u64::MAX);
    of_machine().min(of_group)
}

fn of_machine() -> u64 {
    let table = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = table.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_says_of_its_machine_is_within_the_protocols_limits() {
        assert!((1..=limits::NAME_BYTES_MAX).contains(&host_name().len()));
        assert!((1..=limits::SLOTS_MAX).contains(&slots_available()));
        #[cfg(target_os = "linux")]
        assert!(memory_bytes() > 1 << 20);
    }
}
