//! What the kernel keeps a child from: the network, the files of others, more than its share.
//!
//! All of it works without privileges, and where the system refuses some of it the rest still holds. FFmpeg
//! itself is told to open files only, whatever the system allows.

use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What one child may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// *Units*: seconds of processor time.
    pub cpu_s: u64,
    /// *Units*: bytes of address space.
    pub memory_bytes: u64,
    /// The longest file that it may write. *Units*: bytes.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { cpu_s: 4 * 3_600, memory_bytes: 16 << 30, file_bytes: 64 << 30 }
    }
}

/// What the system keeps a child from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// It has a network of its own in which there is nothing (namespaces).
    pub network: bool,
    /// It reads programs, libraries and its source, and writes in its scratch directory, nothing else
    /// (Landlock).
    pub files: bool,
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.network, self.files) {
            (true, true) => "without network and without the files of others",
            (true, false) => "without network; the system cannot keep it from files",
            (false, true) => "without the files of others; the system cannot keep it from the network",
            (false, false) => "the system can keep it neither from the network nor from files",
        })
    }
}

/// The files that a child may touch.
pub(crate) struct Walls<'a> {
    pub(crate) writes: &'a Path,
    pub(crate) reads: Option<&'a Path>,
    pub(crate) libraries: &'a [PathBuf],
}

impl Confinement {
    /// What this system can do, found by trying.
    pub fn of_this_system() -> Confinement {
        Confinement { network: can_unshare(), files: can_wall() }
    }
}

/// Sets what the kernel sees to, once the child runs and before its program does.
pub(crate) fn confine(
    command: &mut Command,
    confinement: Confinement,
    limits: Limits,
    walls: &Walls<'_>,
) -> io::Result<()> {
    let parent = std::process::id();
    #[cfg(target_os = "linux")]
    let mut rules = if confinement.files { Some(linux::rules(walls)?) } else { None };
    #[cfg(not(target_os = "linux"))]
    let _ = (confinement, parent, walls);
    let enter = move || {
        limit(libc::RLIMIT_CPU, limits.cpu_s)?;
        limit(libc::RLIMIT_AS, limits.memory_bytes)?;
        limit(libc::RLIMIT_FSIZE, limits.file_bytes)?;
        limit(libc::RLIMIT_CORE, 0)?;
        #[cfg(target_os = "linux")]
        linux::enter(confinement.network, parent, rules.take())?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls only, with what was made ready before the fork; it
    // takes no lock, and memory only to say why one of them failed.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
type Resource = libc::c_int;

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `now` is ours and as large as the call expects.
    if unsafe { libc::getrlimit(resource, &mut now) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // A limit can only be lowered.
    let most = most.min(now.rlim_max);
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: as above.
    match unsafe { libc::setrlimit(resource, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a child may have a network of its own.
fn can_unshare() -> bool {
    if !cfg!(target_os = "linux") {
        return false;
    }
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "exit 0"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let walls = Walls { writes: Path::new("/"), reads: None, libraries: &[] };
    let asked = Confinement { network: true, files: false };
    confine(&mut command, asked, Limits::default(), &walls).is_ok()
        && command.status().is_ok_and(|status| status.success())
}

#[cfg(not(target_os = "linux"))]
fn can_wall() -> bool {
    false
}

#[cfg(target_os = "linux")]
use linux::can_wall;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::path::Path;

    use landlock::{
        ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
        RulesetCreated, RulesetCreatedAttr, RulesetError, path_beneath_rules,
    };

    use super::Walls;

    /// What is asked of the system; an older one keeps a child from a little less. *Source*: Linux 6.2.
    const ASKED: ABI = ABI::V3;
    /// Where programs and libraries, and what tells them of the machine, are on most systems.
    const SYSTEM: [&str; 8] = [
        "/usr",
        "/lib",
        "/lib64",
        "/bin",
        "/etc/ld.so.cache",
        "/dev/urandom",
        "/proc/cpuinfo",
        "/sys/devices/system/cpu",
    ];

    pub(super) fn can_wall() -> bool {
        let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        strict.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
    }

    /// The rules of a child's files, made ready for it.
    pub(super) fn rules(walls: &Walls<'_>) -> io::Result<RulesetCreated> {
        made(walls).map_err(io::Error::other)
    }

    fn made(walls: &Walls<'_>) -> Result<RulesetCreated, RulesetError> {
        let read = AccessFs::from_read(ASKED);
        let libraries = walls.libraries.iter().map(|path| path.as_path());
        let others: Vec<&Path> = SYSTEM.iter().map(Path::new).chain(libraries).chain(walls.reads).collect();
        let rules = Ruleset::default()
            .handle_access(AccessFs::from_all(ASKED))?
            .create()?
            // What is not there is left out.
            .add_rules(path_beneath_rules(others, read))?
            .add_rules(path_beneath_rules(["/dev/null"], AccessFs::from_file(ASKED)))?;
        match PathFd::new(walls.writes) {
            Ok(folder) => rules.add_rule(PathBeneath::new(folder, AccessFs::from_all(ASKED))),
            // Then it cannot run there either.
            Err(_) => Ok(rules),
        }
    }

    pub(super) fn enter(network: bool, parent: u32, rules: Option<RulesetCreated>) -> io::Result<()> {
        // SAFETY: none of the calls touches memory of ours.
        unsafe {
            let spaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
            if network && libc::unshare(spaces) != 0 {
                return Err(io::Error::last_os_error());
            }
            let no_privileges = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let ends_with_us = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if no_privileges != 0 || ends_with_us != 0 {
                return Err(io::Error::last_os_error());
            }
            // The agent may have died before the child asked to be told.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                libc::_exit(1);
            }
        }
        match rules.map(RulesetCreated::restrict_self) {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(_)) => Err(io::Error::from_raw_os_error(libc::EPERM)),
        }
    }
}
