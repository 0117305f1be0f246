//! A job as tests of its accounts need one.

use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::spec::{Priority, VerifyClass};
use tessera_protocol::unit::{ComputeUnits, UnixMillis};

/// It began at `number` and is done.
pub(crate) fn view(number: u64) -> JobView {
    JobView {
        id: JobId::new(number, [0; 10]),
        name: "n".into(),
        project: "quant".into(),
        state: JobState::Done,
        manifest_digest: Digest::of(b"manifest"),
        verify: VerifyClass::Strict,
        priority: Priority::Batch,
        created_ms: UnixMillis(number),
        ended_ms: Some(UnixMillis(number + 5)),
        paths: 10_000,
        extends: None,
        cost: ComputeUnits(0),
        shards: 100,
        shards_done: 100,
        attempts: 0,
        checks: 1,
        mismatches: 0,
        recalled: 0,
        tainted: 0,
        provisional: 0,
        checks_skipped: 0,
        lanes: vec![100],
        digest: Some(Digest::of(b"result")),
        failure: None,
        waiting: None,
    }
}
