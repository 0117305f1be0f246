//! What a reader of a table must know of the machine: its processor and how busy it was.
//!
//! Owns nothing that is measured. Where the system does not tell, nothing is said.

/// The processor's name, as the system calls it.
pub(crate) fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(name.trim_start_matches([' ', '\t', ':']).to_owned())
}

/// How many threads wanted a core, on average of the last minute.
pub(crate) fn load() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next().map(str::to_owned)
}
