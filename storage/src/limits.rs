//! What a key, a value and a batch may weigh, in every engine.
//!
//! Owns the numbers. They are FoundationDB's, so that a hub which outgrows one machine can move
//! without meeting a new limit: <https://apple.github.io/foundationdb/known-limitations.html>.

/// Longest key. *Units*: bytes. *Source*: FoundationDB's 10,000 less what its engine puts before each
/// key. It advises less than 32.
pub const KEY_BYTES_MAX: usize = 9_900;

/// Longest value under one key; larger ones are [chunked](crate::chunked). *Units*: bytes.
/// *Source*: FoundationDB, value size.
pub const VALUE_BYTES_MAX: usize = 100_000;

/// Heaviest batch, as [`Batch::weight_bytes`](crate::Batch::weight_bytes) weighs it. *Units*: bytes.
/// *Source*: FoundationDB, transaction size.
pub const BATCH_BYTES_MAX: usize = 10_000_000;

/// First byte that no key may start with. *Source*: FoundationDB keeps keys from `\xff` for itself.
pub const RESERVED_FIRST_BYTE: u8 = 0xff;

/// Payload of one chunk of a larger value. *Units*: bytes. *Source*: ours: chunk, key and the
/// engine's page header together stay below 64 KiB, as `redb` gives a large value a power of two of
/// 4 KiB pages and the next one is 128 KiB.
pub const CHUNK_BYTES: usize = 65_000;

/// What an operation weighs besides its keys and its value. *Units*: bytes. *Source*: ours, above
/// what FoundationDB's wire format adds to a mutation and its conflict range.
pub const OPERATION_OVERHEAD_BYTES: usize = 64;

/// Memory the embedded engine may spend on pages it has read or is to write. *Units*: bytes. *Source*: ours: light
/// state of a hub with a million open shards is far smaller. It is always used up: pages that a commit has replaced
/// stay until others need their room, and every enrolment leaves 22 KB of them.
pub const EMBEDDED_CACHE_BYTES: usize = 32 << 20;

/// Entries fetched at a time when a whole range is walked. *Source*: ours: at most 6.4 MB in flight.
pub const WALK_PAGE_ENTRIES: usize = 64;

const _: () = assert!(CHUNK_BYTES + 8 <= VALUE_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX + 3 * KEY_BYTES_MAX + OPERATION_OVERHEAD_BYTES <= BATCH_BYTES_MAX);

/// Longest key a FoundationDB cluster takes. *Units*: bytes. *Source*: FoundationDB, key size.
pub const CLUSTER_KEY_BYTES_MAX: usize = 10_000;

/// Longest name under which a store lies in a FoundationDB cluster. *Units*: bytes. *Source*: ours.
pub const PREFIX_BYTES_MAX: usize = 64;

/// What batches that share one FoundationDB transaction weigh together. *Units*: bytes. *Source*:
/// FoundationDB, which advises to stay below 1 MB; a heavier batch has a transaction of its own.
pub const SHARED_TRANSACTION_BYTES_MAX: usize = 1_000_000;

const _: () = assert!(PREFIX_BYTES_MAX + 2 + KEY_BYTES_MAX <= CLUSTER_KEY_BYTES_MAX);
const _: () = assert!(SHARED_TRANSACTION_BYTES_MAX <= BATCH_BYTES_MAX);
