//! The work log on disk: a line for each shard that was computed, before the hub hears of it.
//!
//! Owns the file and only adds to it. A provider may move it away between two runs of the agent.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tessera_agent_core::Attempt;
use tessera_protocol::id::Digest;
use tessera_protocol::receipt::work_line;

/// The file, shared by the slots' threads: each line is one write to its end.
#[derive(Clone, Debug)]
pub(crate) struct WorkLog {
    file: Arc<File>,
    failed: Arc<AtomicBool>,
}

impl WorkLog {
    pub(crate) fn open(path: &Path) -> io::Result<WorkLog> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(WorkLog { file: Arc::new(file), failed: Arc::default() })
    }

    /// A shard was computed. Without its line it is paid all the same and cannot be proven: no reason to stop.
    pub(crate) fn computed(&self, attempt: &Attempt, digest: &Digest) {
        let written = (&*self.file).write_all(work_line(attempt.job, attempt.index, digest).as_bytes());
        if let Err(error) = written
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "the work log cannot be written: shards from here on cannot be proven");
        }
    }
}
