//! Child processes: how they are confined, watched and ended.
//!
//! A child has no network where the system allows, no environment of ours, nothing to read from, a working
//! directory that is thrown away, and limits. It is ended with all that it started when its shard is
//! cancelled, and when the agent dies.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::MediaError;
use crate::confine::{Confinement, Limits, Walls, confine};

/// How much of what a child says in its errors is kept. *Units*: bytes.
const SAID_BYTES_MAX: usize = 4 << 10;
/// The longest line that is read from a child. *Units*: bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// How often a shard is asked whether it is cancelled.
const WATCH: Duration = Duration::from_millis(50);
/// Lines that wait to be read; a child that is faster waits.
const LINES_MAX: usize = 1_024;

/// The mathematics library picks its functions by the processor; this keeps it to those that all have.
/// *Source*: the glibc manual, "Hardware capability tunables".
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F";

/// How a child ended that was not killed.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whether it says that it succeeded.
    pub(crate) success: bool,
    /// The end of its errors, without the addresses that differ from run to run.
    pub(crate) said: String,
}

/// A program to run in a directory.
pub(crate) struct Order<'a> {
    pub(crate) program: &'a Path,
    /// Where it runs and may write.
    pub(crate) folder: &'a Path,
    /// What it may read besides programs and libraries.
    pub(crate) reads: Option<&'a Path>,
    /// Where its programs and libraries are.
    pub(crate) libraries: &'a [PathBuf],
    pub(crate) confinement: Confinement,
    pub(crate) limits: Limits,
}

impl Order<'_> {
    /// Runs it to its end, telling `line` of each line that it writes.
    pub(crate) fn run<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        line: &mut dyn FnMut(&str),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Ended, MediaError> {
        let mut command = Command::new(self.program);
        command.args(arguments).current_dir(self.folder).env_clear().envs([
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
            ("GLIBC_TUNABLES", TUNABLES),
            ("SVT_LOG", "1"),
        ]);
        command.env("HOME", self.folder).env("TMPDIR", self.folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let walls = Walls { writes: self.folder, reads: self.reads, libraries: self.libraries };
        confine(&mut command, self.confinement, self.limits, &walls)?;
        let mut running = Running(command.spawn()?);
        let (out, errors) = (running.0.stdout.take(), running.0.stderr.take());
        let (lines, read) = sync_channel(LINES_MAX);
        let said = thread::spawn(move || errors.map(tail).unwrap_or_default());
        thread::spawn(move || out.map(|out| send_lines(out, &lines)));
        loop {
            match read.recv_timeout(WATCH) {
                Ok(text) => line(&text),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if cancelled() {
                return Err(MediaError::Cancelled);
            }
        }
        // Its output has ended; it may still be ending itself.
        let status = loop {
            if let Some(status) = running.0.try_wait()? {
                break status;
            }
            if cancelled() {
                return Err(MediaError::Cancelled);
            }
            thread::sleep(Duration::from_millis(2));
        };
        let said = plain(&said.join().unwrap_or_default());
        match status.signal() {
            Some(signal) => Err(MediaError::Killed { signal }),
            None => Ok(Ended { success: status.success(), said }),
        }
    }
}

/// A child that ends when this is dropped, with all of its process group.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Ok(group) = i32::try_from(self.0.id()) {
            // SAFETY: no memory is involved; the child has not been waited for, so that its id is its own.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let _ = self.0.wait();
    }
}

fn send_lines(out: impl Read, lines: &SyncSender<String>) {
    let mut out = BufReader::new(out);
    loop {
        let mut bytes = Vec::new();
        match out.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if lines.send(String::from_utf8_lossy(&bytes).trim_end().to_owned()).is_err() {
            return;
        }
    }
}

/// The last bytes of a stream.
fn tail(mut errors: impl Read) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), [0; 4_096]);
    while let Ok(length @ 1..) = errors.read(&mut piece) {
        kept.extend_from_slice(&piece[..length]);
        if kept.len() > 2 * SAID_BYTES_MAX {
            kept.drain(..kept.len() - SAID_BYTES_MAX);
        }
    }
    kept.drain(..kept.len().saturating_sub(SAID_BYTES_MAX));
    kept
}

/// Printable text without the addresses in `[h264 @ 0x55d9c429b40]`.
fn plain(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = match (line.find(" @ 0x"), line.find(']')) {
            (Some(at), Some(end)) if at < end => format!("{}{}", &line[..at], &line[end..]),
            _ => line.to_owned(),
        };
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        if !line.is_empty() && lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::time::Instant;

    fn shell_in(
        confinement: Confinement,
        limits: Limits,
        script: &str,
        cancelled: &dyn Fn() -> bool,
    ) -> (Result<Ended, MediaError>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let order = Order {
            program: Path::new("/bin/sh"),
            folder: folder.path(),
            reads: None,
            libraries: &[],
            confinement,
            limits,
        };
        let mut lines = Vec::new();
        let ended = order.run(&["-c", script], &mut |line| lines.push(line.to_owned()), cancelled);
        (ended, lines)
    }

    fn shell(
        limits: Limits,
        script: &str,
        cancelled: &dyn Fn() -> bool,
    ) -> (Result<Ended, MediaError>, Vec<String>) {
        shell_in(Confinement::of_this_system(), limits, script, cancelled)
    }

    #[test]
    fn a_child_sees_an_empty_environment_and_its_own_directory() {
        let (ended, lines) =
            shell(Limits::default(), "echo $PATH$USER; ls -A; pwd; cat; echo [x @ 0x12] bad >&2", &|| false);
        let ended = ended.unwrap();
        assert!(ended.success);
        assert_eq!(ended.said, "[x] bad");
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn a_cancelled_child_ends_at_once_with_what_it_started() {
        let began = Instant::now();
        let asked = Cell::new(0);
        let cancelled = || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        };
        let (ended, lines) = shell(Limits::default(), "sleep 60 & echo $!; wait", &cancelled);
        assert!(matches!(ended, Err(MediaError::Cancelled)));
        assert!(began.elapsed() < Duration::from_secs(10));
        let started: i32 = lines[0].parse().unwrap();
        // The killed one lingers until its new parent has waited for it.
        let gone = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(20));
            let state = std::fs::read_to_string(format!("/proc/{started}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        });
        assert!(gone);
    }

    #[test]
    fn a_child_reaches_no_network_and_no_files_of_others() {
        let system = Confinement::of_this_system();
        let secret = tempfile::NamedTempFile::new().unwrap();
        let script = format!("cat {}", secret.path().display());
        let (ended, _) = shell(Limits::default(), &script, &|| false);
        let ended = ended.unwrap();
        assert_eq!(system.files, !ended.success && ended.said.contains("Permission denied"), "{ended:?}");
        // Two lines of titles, then one for each interface: alone there is the loop to itself only.
        let asked = Confinement { files: false, ..system };
        let (_, lines) = shell_in(asked, Limits::default(), "cat /proc/net/dev", &|| false);
        assert!(!system.network || lines.len() == 3, "{lines:?}");
    }

    #[test]
    fn a_child_that_takes_more_than_its_limits_is_killed() {
        let limits = Limits { cpu_s: 1, ..Limits::default() };
        let (ended, _) = shell(limits, "while :; do :; done", &|| false);
        assert!(matches!(ended, Err(MediaError::Killed { .. })));
        let limits = Limits { file_bytes: 4_096, ..Limits::default() };
        let (ended, _) = shell(limits, "exec yes > file", &|| false);
        assert!(matches!(ended, Err(MediaError::Killed { signal }) if signal == libc::SIGXFSZ));
    }

    #[test]
    fn of_endless_errors_the_end_is_kept() {
        let (ended, _) =
            shell(Limits::default(), "yes | head -c 1000000 >&2; echo end >&2; exit 3", &|| false);
        let ended = ended.unwrap();
        assert!(!ended.success && ended.said.ends_with("end") && ended.said.len() <= SAID_BYTES_MAX);
    }
}
