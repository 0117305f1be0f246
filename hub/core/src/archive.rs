//! What a lane must write down about agents, until it is durable: evidence of disputes, and standings.

use alloc::collections::VecDeque;

use tessera_protocol::unit::Tick;

use crate::Record;
use crate::write::Write;

/// Records on their way to the store, one at a time and in order.
#[derive(Debug)]
pub(crate) struct Archive {
    records: VecDeque<Record>,
    write: Write,
}

impl Archive {
    pub(crate) fn new() -> Archive {
        Archive { records: VecDeque::new(), write: Write::Idle }
    }

    pub(crate) fn push(&mut self, record: Record) {
        self.records.push_back(record);
    }

    /// Whether something is not durable.
    pub(crate) fn is_unwritten(&self) -> bool {
        !self.records.is_empty()
    }

    /// The record that is to be written now.
    pub(crate) fn next(&mut self, now: Tick) -> Option<Record> {
        let record = self.records.front().filter(|_| self.write.may_start(now))?.clone();
        self.write = Write::Under;
        Some(record)
    }

    /// A write succeeded or failed.
    pub(crate) fn written(&mut self, succeeded: bool, now: Tick) {
        self.write = Write::ended(succeeded, now);
        if succeeded {
            self.records.pop_front();
        }
    }
}
