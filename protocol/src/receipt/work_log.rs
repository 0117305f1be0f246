//! The work log: what an agent computed, so that its provider can prove later what the hub accepted of it.
//!
//! Owns its lines. An agent only adds to it; nothing in it is signed, and a hub never sees it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::fmt;

use crate::id::{Digest, JobId};
use crate::unit::ShardIndex;

/// The line of a shard that an agent computed.
pub fn work_line(job: JobId, index: ShardIndex, digest: &Digest) -> String {
    format!("{job} {} {digest}\n", index.0)
}

/// What agents computed for one job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkLog {
    digests: BTreeMap<u64, Digest>,
}

/// A line that no agent wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkLogError {
    /// Which, from one.
    pub line: u64,
}

impl fmt::Display for WorkLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} is no line of a work log: expected a job, a shard and a digest", self.line)
    }
}

impl core::error::Error for WorkLogError {}

impl WorkLog {
    /// Takes in what a log says of a job. Of a shard that was computed twice, the last counts. A last line without its
    /// end was being written when the agent died, and says nothing.
    pub fn read(&mut self, text: &str, job: JobId) -> Result<(), WorkLogError> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (line, number) in whole.lines().zip(1..) {
            let mut words = line.split(' ');
            let mut word = || words.next().ok_or(WorkLogError { line: number });
            let (of, index, digest) = (word()?, word()?, word()?);
            let wrong = WorkLogError { line: number };
            let of: JobId = of.parse().map_err(|_| wrong)?;
            let index = index.parse().map_err(|_| wrong)?;
            let digest = digest.parse().map_err(|_| wrong)?;
            if of == job {
                self.digests.insert(index, digest);
            }
        }
        Ok(())
    }

    /// The digest of a shard.
    pub fn digest(&self, index: u64) -> Option<Digest> {
        self.digests.get(&index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_says_what_was_computed_for_a_job_and_a_torn_line_says_nothing() {
        let (job, other) = (JobId::new(1, [1; 10]), JobId::new(2, [1; 10]));
        let line = |job, index, byte| work_line(job, ShardIndex(index), &Digest([byte; 32]));
        let text = [line(job, 3, 1), line(other, 3, 2), line(job, 4, 3), line(job, 3, 4)].concat();
        let mut log = WorkLog::default();
        log.read(&text, job).unwrap();
        assert_eq!(
            [3, 4, 5].map(|index| log.digest(index)),
            [Some(Digest([4; 32])), Some(Digest([3; 32])), None]
        );
        let torn = [&text[..], &line(job, 5, 5)[..60]].concat();
        log.read(&torn, job).unwrap();
        assert_eq!(log.digest(5), None);
        assert_eq!(log.read("job 5\n", job), Err(WorkLogError { line: 1 }));
        assert_eq!(log.read(&text.replacen(' ', "  ", 1), job), Err(WorkLogError { line: 1 }));
    }
}
