//! What became of a transaction whose commit failed: the errors that leave it open, and the marker that
//! decides it.
//!
//! Owns [`after`], [`Marker`] and [`fate`]. It may not touch a cluster.
//!
//! Each engine that is open has a *writer* and each writer one marker in the cluster. A transaction of a
//! writer puts a higher number into its marker, and conflicts with whatever else changes that marker. A
//! commit that fails without saying how it ended is decided so:
//!
//! 1. The writer reads its marker. The transaction's number: it is committed.
//! 2. A lower number: it is not committed, or not yet. The writer puts a number above it there. When that
//!    is committed, the transaction never will be, for what it conflicts with has changed.
//! 3. A higher number: step 2 was committed, though the writer was not told.
//!
//! The writer does nothing else until this is decided.

use std::fmt;

/// FoundationDB: the commit may or may not have happened.
pub(super) const COMMIT_UNKNOWN_RESULT: i32 = 1021;
/// FoundationDB: the client library changed its connection meanwhile; the same.
pub(super) const CLUSTER_VERSION_CHANGED: i32 = 1039;
/// FoundationDB: the timeout of the transaction has passed; a commit under way may still happen.
pub(super) const TRANSACTION_TIMED_OUT: i32 = 1031;
/// FoundationDB: the read version is older than the cluster keeps, 5 s.
pub(super) const TRANSACTION_TOO_OLD: i32 = 1007;
/// Ours: the client library itself does not answer. No code of FoundationDB is below zero.
pub(super) const NO_ANSWER: i32 = -1;

/// FoundationDB: errors of the program, found before anything is sent.
const PROGRAM_ERRORS: std::ops::Range<i32> = 2_000..3_000;

/// What follows a failed commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing happened: again, after the pause that FoundationDB asks for.
    Again,
    /// Nothing happened, nor would it the next time.
    GiveUp,
    /// It may have happened, or may yet: its marker decides; then again, if it has not.
    AskAndGoOn,
    /// The same, but if it has not, its time is over.
    AskAndGiveUp,
}

/// What follows a commit that failed with `code`; `surely_not` is what FoundationDB's own predicate
/// `RETRYABLE_NOT_COMMITTED` says of it.
pub(super) fn after(code: i32, surely_not: bool) -> After {
    match code {
        COMMIT_UNKNOWN_RESULT | CLUSTER_VERSION_CHANGED => After::AskAndGoOn,
        _ if surely_not => After::Again,
        _ if PROGRAM_ERRORS.contains(&code) => After::GiveUp,
        // A timeout, a cancellation, and whatever a later version says that this one does not know.
        _ => After::AskAndGiveUp,
    }
}

/// What a writer keeps in the cluster. *Shape*: number and version as big-endian 64-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// Of the writer's last transaction.
    pub(super) number: u64,
    /// The cluster's version that transaction read; a cluster counts about a million a second.
    pub(super) version: u64,
}

/// A marker this much older than the cluster's version belongs to a writer that is gone. *Source*: ours: ten
/// days; a writer that still lives finds its marker gone only if it was cut off for as long, and says so.
const ABANDONED_VERSIONS: u64 = 10 * 86_400 * 1_000_000;

impl Marker {
    pub(super) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..].copy_from_slice(&self.version.to_be_bytes());
        bytes
    }

    /// *Errors*: none: `None` for bytes that are no marker.
    pub(super) fn decode(bytes: &[u8]) -> Option<Marker> {
        let (number, rest) = bytes.split_first_chunk()?;
        let version = u64::from_be_bytes(rest.try_into().ok()?);
        Some(Marker { number: u64::from_be_bytes(*number), version })
    }

    /// Whether its writer has been gone for long at the cluster's version `now`.
    pub(super) fn is_abandoned(self, now: u64) -> bool {
        now.saturating_sub(self.version) > ABANDONED_VERSIONS
    }
}

/// What a marker says of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is durable.
    Committed,
    /// It did not happen and never will.
    Dead,
    /// It has not happened; a transaction under way may still.
    Open,
    /// The marker is gone, and with it the answer.
    Lost,
}

/// What `found` in a writer's marker says of that writer's transaction `number`.
pub(super) fn fate(found: Option<&[u8]>, number: u64) -> Fate {
    match found.and_then(Marker::decode) {
        None => Fate::Lost,
        Some(marker) if marker.number == number => Fate::Committed,
        Some(marker) if marker.number > number => Fate::Dead,
        Some(_) => Fate::Open,
    }
}

/// What a cluster or its client library said, and of which cluster.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// The cluster's file, as it was given.
    pub(super) cluster_file: String,
    /// FoundationDB's number.
    pub(super) code: i32,
    /// FoundationDB's words.
    pub(super) said: &'static str,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trouble { cluster_file, code, said } = self;
        match *code {
            TRANSACTION_TIMED_OUT | NO_ANSWER => write!(
                f,
                "the FoundationDB cluster of {cluster_file} does not answer; see whether `fdbcli -C \
                 {cluster_file} --exec status` reaches it and finds room and its version of the client library"
            ),
            _ => write!(
                f,
                "the FoundationDB cluster of {cluster_file} refuses: {said} (error {code}); see \
                 `fdbcli -C {cluster_file} --exec status`"
            ),
        }
    }
}

impl std::error::Error for Trouble {}

/// The marker of a writer is gone, which only an operator or ten days of silence remove.
#[derive(Clone, Debug)]
pub(super) struct MarkerLost {
    /// The cluster's file, as it was given.
    pub(super) cluster_file: String,
}

impl fmt::Display for MarkerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "what was written to the FoundationDB cluster of {} shortly before this hub lost it is not known: \
             somebody has removed the hub's marker since; read back before writing it again",
            self.cluster_file
        )
    }
}

impl std::error::Error for MarkerLost {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_did_not_happen_is_done_again_without_asking() {
        // not_committed, transaction_too_old, database_locked, process_behind
        for code in [1020, TRANSACTION_TOO_OLD, 1038, 1037] {
            assert_eq!(after(code, true), After::Again, "{code}");
        }
        assert_eq!(after(COMMIT_UNKNOWN_RESULT, false), After::AskAndGoOn);
        assert_eq!(after(CLUSTER_VERSION_CHANGED, false), After::AskAndGoOn);
        // timed_out, cancelled, operation_cancelled, one of a later version, and no answer at all
        for code in [TRANSACTION_TIMED_OUT, 1025, 1101, 1999, NO_ANSWER] {
            assert_eq!(after(code, false), After::AskAndGiveUp, "{code}");
        }
        // transaction_too_large, key_outside_legal_range
        for code in [2101, 2004] {
            assert_eq!(after(code, false), After::GiveUp, "{code}");
        }
        assert_eq!(after(COMMIT_UNKNOWN_RESULT, true), After::AskAndGoOn, "whatever a predicate says");
    }

    #[test]
    fn a_marker_lies_as_it_always_has_and_reads_back() {
        let marker = Marker { number: 0x0102, version: 3 };
        assert_eq!(marker.encode(), [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(Marker::decode(&marker.encode()), Some(marker));
        for bytes in [&[][..], &[1; 15], &[1; 17]] {
            assert_eq!(Marker::decode(bytes), None);
        }
    }

    #[test]
    fn a_marker_decides_what_became_of_a_transaction() {
        let found = |number| Some(Marker { number, version: 9 }.encode());
        let fate = |found: Option<[u8; 16]>| fate(found.as_ref().map(|bytes| &bytes[..]), 5);
        assert_eq!(fate(found(5)), Fate::Committed);
        assert_eq!(fate(found(4)), Fate::Open);
        assert_eq!(fate(found(6)), Fate::Dead);
        assert_eq!(fate(None), Fate::Lost);
    }

    #[test]
    fn a_marker_is_abandoned_after_ten_days_of_the_clusters_versions() {
        let marker = Marker { number: 1, version: 1_000 };
        assert!(!marker.is_abandoned(1_000 + ABANDONED_VERSIONS));
        assert!(marker.is_abandoned(1_001 + ABANDONED_VERSIONS));
        assert!(!marker.is_abandoned(0), "a cluster whose versions went back abandons nobody");
    }

    #[test]
    fn trouble_names_the_cluster_file_and_what_to_try() {
        let trouble = |code, said| Trouble { cluster_file: "/f".to_owned(), code, said }.to_string();
        let silent = trouble(TRANSACTION_TIMED_OUT, "Operation aborted");
        assert!(silent.contains("cluster of /f does not answer; see whether `fdbcli -C /f"), "{silent}");
        let lost = MarkerLost { cluster_file: "/f".to_owned() }.to_string();
        assert!(lost.contains("cluster of /f") && lost.contains("read back"), "{lost}");
        let refused = trouble(1038, "Database is locked");
        assert!(refused.contains("/f refuses: Database is locked (error 1038)"), "{refused}");
    }
}
