//! One child process: started so that it cannot outlive its parent, and stopped politely first.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How much of a log's end is read for a message. *Units*: bytes.
const LOG_TAIL_BYTES: u64 = 4 << 10;
/// How many lines of a log a message repeats.
const LOG_TAIL_LINES: usize = 10;
/// How long a child may take to stop when asked, before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Starts a child in a process group of its own, so that Ctrl-C reaches only its parent, which stops it.
///
/// The kernel kills it when the calling thread ends, even by `kill -9`.
pub(super) fn spawn(command: &mut Command, log: &Path, stdout: Stdio) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    let parent = std::process::id();
    command.stdin(Stdio::null()).stdout(stdout).stderr(log).process_group(0);
    // SAFETY: between fork and exec the closure only makes the async-signal-safe calls prctl and getppid,
    // and allocates nothing: `from_raw_os_error` and `last_os_error` hold a number.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // 1. The parent forks. 2. The parent dies. 3. The child asks for a signal at its parent's death,
            // which will not come any more: so it looks whether it still has the parent it had.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Asks every child to stop, waits a little, kills those that stay, and reaps them all.
pub(super) fn stop_all<'a>(children: impl Iterator<Item = &'a mut Child>) {
    let mut children: Vec<&mut Child> = children.collect();
    for child in &children {
        // SAFETY: a plain system call. The id is that of a child that has not been reaped, so it is still ours.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    }
    let since = Instant::now();
    while since.elapsed() < STOP_PATIENCE {
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        if children.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for child in children {
        // Either may fail only because the child is gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The last lines of a log; empty when it cannot be read.
pub(super) fn log_tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
