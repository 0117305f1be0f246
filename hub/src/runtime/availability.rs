//! Whether this machine lets a lane run: io_uring and lockable memory. Found out before anything
//! starts, so that the answer says what to do.

use std::fmt;
use std::io;

/// Memory that glommio wants to be able to lock. *Source*: glommio 0.9, `sys/uring.rs`.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Entries of the ring that is opened as a test.
const PROBE_RING_ENTRIES: libc::c_long = 4;
/// Size of the kernel's `struct io_uring_params`. *Units*: 64-bit words.
const RING_PARAMS_WORDS: usize = 15;

/// Why lanes cannot run on this machine, and what to do about it.
#[derive(Debug)]
pub enum Unavailable {
    /// The limit on locked memory is too low and could not be raised.
    LockedMemory {
        /// What is allowed. *Units*: bytes.
        allowed_bytes: u64,
    },
    /// The kernel has no io_uring.
    NoIoUring,
    /// io_uring is there but this process may not use it.
    IoUringForbidden,
    /// The kernel would not make a ring for another reason.
    IoUring(io::Error),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::LockedMemory { allowed_bytes } => write!(
                f,
                "only {} KiB of memory may be locked and the hub needs {}: run `ulimit -l 8192` first, set LimitMEMLOCK=8M \
                 in the systemd unit, or pass --ulimit memlock=8388608 to the container",
                allowed_bytes >> 10,
                MEMLOCK_BYTES_MIN >> 10
            ),
            Unavailable::NoIoUring => f.write_str(
                "this kernel has no io_uring: the hub needs Linux 5.8 or later (gVisor and some \
                 container hosts do not provide it)",
            ),
            Unavailable::IoUringForbidden => f.write_str(
                "this process may not use io_uring: if `sysctl kernel.io_uring_disabled` is not 0, set it to 0; in a \
                 container, allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile \
                 (Docker: --security-opt seccomp=unconfined)",
            ),
            Unavailable::IoUring(_) => f.write_str("the kernel would not make an io_uring"),
        }
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Unavailable::IoUring(source) => Some(source),
            _ => None,
        }
    }
}

/// Finds out whether lanes can run here; raises this process's own soft limit on locked memory when
/// that is all that is missing.
pub fn check_availability() -> Result<(), Unavailable> {
    let allowed_bytes = raise_locked_memory();
    if allowed_bytes < MEMLOCK_BYTES_MIN {
        return Err(Unavailable::LockedMemory { allowed_bytes });
    }
    match probe_ring() {
        Ok(()) => Ok(()),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::ENOSYS) => Unavailable::NoIoUring,
            Some(libc::EPERM | libc::EACCES) => Unavailable::IoUringForbidden,
            Some(libc::ENOMEM) => Unavailable::LockedMemory { allowed_bytes },
            _ => Unavailable::IoUring(error),
        }),
    }
}

/// Answers how much memory may be locked, after raising the soft limit towards the hard one.
fn raise_locked_memory() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a structure of the type the call fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        return 0;
    }
    if limit.rlim_cur < MEMLOCK_BYTES_MIN && limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        // SAFETY: the pointer is to a structure of the type the call reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const raised) } == 0 {
            return raised.rlim_cur;
        }
    }
    limit.rlim_cur
}

/// Makes a ring and closes it again.
fn probe_ring() -> io::Result<()> {
    let mut params = [0u64; RING_PARAMS_WORDS];
    // SAFETY: the kernel reads and fills a structure of 120 bytes, which `params` is.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, PROBE_RING_ENTRIES, params.as_mut_ptr()) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made above and nothing else knows it.
    unsafe { libc::close(ring as libc::c_int) };
    Ok(())
}
