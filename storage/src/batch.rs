//! What one transaction asks: conditions, then writes, all or nothing.
//!
//! Owns [`Batch`] and the check of its limits. It may not touch an engine.

use crate::engine::KeyRange;
use crate::{chunked, limits};
use std::fmt;

/// Conditions and writes that happen together or not at all.
///
/// Conditions are judged against the store as it is before the batch; then the writes happen in the
/// order they were added, so a later one wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    conditions: Vec<Condition>,
    writes: Vec<Write>,
}

/// What must hold for a batch to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The key that is looked at.
    pub key: Vec<u8>,
    /// What must be under it.
    pub expect: Expect,
}

/// What must be under a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// Any value.
    Exists,
    /// These bytes.
    Equals(Vec<u8>),
}

impl Expect {
    /// Whether `found` is what is expected.
    pub fn holds(&self, found: Option<&[u8]>) -> bool {
        match self {
            Expect::Absent => found.is_none(),
            Expect::Exists => found.is_some(),
            Expect::Equals(bytes) => found == Some(bytes),
        }
    }
}

impl fmt::Debug for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Absent => f.write_str("Absent"),
            Expect::Exists => f.write_str("Exists"),
            Expect::Equals(bytes) => write!(f, "Equals({} bytes)", bytes.len()),
        }
    }
}

/// One change of the store.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// Puts `value` under `key`, whatever was there.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The new value.
        value: Vec<u8>,
    },
    /// Removes `key`, if it is there.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Removes every key of a range.
    DeleteRange {
        /// The range.
        range: KeyRange,
    },
    /// Adds to the little-endian 64-bit number under `key`, wrapping around.
    ///
    /// As FoundationDB's `ADD`: a missing value counts as zero, a shorter one is extended with zeros
    /// at its end, a longer one is cut to 8 bytes.
    Add {
        /// The key.
        key: Vec<u8>,
        /// What is added.
        amount: u64,
    },
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Write::Put { key, value } => write!(f, "Put({}, {} bytes)", Quoted(key), value.len()),
            Write::Delete { key } => write!(f, "Delete({})", Quoted(key)),
            Write::DeleteRange { range } => write!(f, "DeleteRange({range:?})"),
            Write::Add { key, amount } => write!(f, "Add({}, {amount})", Quoted(key)),
        }
    }
}

impl Batch {
    /// A batch that asks nothing yet.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Happens only if nothing is under `key`.
    pub fn expect_absent(&mut self, key: impl Into<Vec<u8>>) -> &mut Batch {
        self.expect(key, Expect::Absent)
    }

    /// Happens only if something is under `key`.
    pub fn expect_exists(&mut self, key: impl Into<Vec<u8>>) -> &mut Batch {
        self.expect(key, Expect::Exists)
    }

    /// Happens only if `value` is under `key`.
    pub fn expect_equals(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Batch {
        self.expect(key, Expect::Equals(value.into()))
    }

    /// Happens only if what is under `key` is as expected.
    pub fn expect(&mut self, key: impl Into<Vec<u8>>, expect: Expect) -> &mut Batch {
        self.conditions.push(Condition { key: key.into(), expect });
        self
    }

    /// Puts `value` under `key`, whatever was there.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Batch {
        self.write(Write::Put { key: key.into(), value: value.into() })
    }

    /// Removes `key`, if it is there.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) -> &mut Batch {
        self.write(Write::Delete { key: key.into() })
    }

    /// Removes every key of `range`.
    pub fn delete_range(&mut self, range: KeyRange) -> &mut Batch {
        self.write(Write::DeleteRange { range })
    }

    /// Adds to the number under `key`, as [`Write::Add`] says.
    pub fn add(&mut self, key: impl Into<Vec<u8>>, amount: u64) -> &mut Batch {
        self.write(Write::Add { key: key.into(), amount })
    }

    /// Puts a value of any length under `key`, in [chunks](chunked); replaces the old one wholly.
    ///
    /// A key holds either a plain value or a chunked one: read it back with
    /// [`get_chunked`](crate::Snapshot::get_chunked), remove it with [`delete_chunked`](Self::delete_chunked).
    pub fn put_chunked(&mut self, key: &[u8], value: &[u8]) -> &mut Batch {
        self.delete_chunked(key);
        for (chunk_key, chunk) in chunked::split(key, value) {
            self.put(chunk_key, chunk);
        }
        self
    }

    /// Removes the chunked value under `key` wholly, if it is there.
    pub fn delete_chunked(&mut self, key: &[u8]) -> &mut Batch {
        self.delete_range(chunked::range_of(key))
    }

    fn write(&mut self, write: Write) -> &mut Batch {
        self.writes.push(write);
        self
    }

    /// Appends everything `other` asks.
    pub fn append(&mut self, other: Batch) -> &mut Batch {
        self.conditions.extend(other.conditions);
        self.writes.extend(other.writes);
        self
    }

    /// What must hold. *Order*: as added.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// What happens then. *Order*: as added.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Whether the batch asks nothing at all.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.writes.is_empty()
    }

    /// What the batch counts towards [`limits::BATCH_BYTES_MAX`]. *Units*: bytes.
    ///
    /// An upper bound of what FoundationDB counts: keys and values written, and both ends of the
    /// conflict range of each key read or written.
    pub fn weight_bytes(&self) -> usize {
        let read = |condition: &Condition| 2 * condition.key.len();
        let written = |write: &Write| match write {
            Write::Put { key, value } => 3 * key.len() + value.len(),
            Write::Delete { key } => 3 * key.len(),
            Write::DeleteRange { range } => 2 * (range.start.len() + range.end.len()),
            Write::Add { key, .. } => 3 * key.len() + size_of::<u64>(),
        };
        let operations = self.conditions.len() + self.writes.len();
        self.conditions.iter().map(read).sum::<usize>()
            + self.writes.iter().map(written).sum::<usize>()
            + operations * limits::OPERATION_OVERHEAD_BYTES
    }

    /// Whether an engine may take the batch.
    ///
    /// *Errors*: the first limit it breaks.
    pub fn check(&self) -> Result<(), LimitError> {
        for Condition { key, expect } in &self.conditions {
            check_key(key)?;
            if let Expect::Equals(value) = expect {
                check_value(key, value)?;
            }
        }
        for write in &self.writes {
            match write {
                Write::Put { key, value } => {
                    check_key(key)?;
                    check_value(key, value)?;
                }
                Write::Delete { key } | Write::Add { key, .. } => check_key(key)?,
                Write::DeleteRange { range } => range.check()?,
            }
        }
        let weight_bytes = self.weight_bytes();
        if weight_bytes > limits::BATCH_BYTES_MAX {
            return Err(LimitError::BatchTooHeavy { weight_bytes });
        }
        Ok(())
    }
}

/// Whether a store may hold `key`.
///
/// *Errors*: the limit it breaks.
pub fn check_key(key: &[u8]) -> Result<(), LimitError> {
    if key.len() > limits::KEY_BYTES_MAX {
        return Err(LimitError::key_too_long(key));
    }
    if key.first() == Some(&limits::RESERVED_FIRST_BYTE) {
        return Err(LimitError::ReservedKey { key: key.to_vec() });
    }
    Ok(())
}

fn check_value(key: &[u8], value: &[u8]) -> Result<(), LimitError> {
    if value.len() > limits::VALUE_BYTES_MAX {
        return Err(LimitError::ValueTooLong { key: key.to_vec(), value_bytes: value.len() });
    }
    Ok(())
}

/// Which limit a caller broke.
#[derive(Clone, PartialEq, Eq)]
pub enum LimitError {
    /// A key longer than [`limits::KEY_BYTES_MAX`].
    KeyTooLong {
        /// How the key starts.
        key_start: Vec<u8>,
        /// How long it is.
        key_bytes: usize,
    },
    /// A key that starts with [`limits::RESERVED_FIRST_BYTE`].
    ReservedKey {
        /// The key.
        key: Vec<u8>,
    },
    /// A value longer than [`limits::VALUE_BYTES_MAX`].
    ValueTooLong {
        /// Its key.
        key: Vec<u8>,
        /// How long the value is.
        value_bytes: usize,
    },
    /// A batch heavier than [`limits::BATCH_BYTES_MAX`].
    BatchTooHeavy {
        /// What it weighs.
        weight_bytes: usize,
    },
    /// A range that ends before it starts.
    InvertedRange {
        /// Its start.
        start: Vec<u8>,
        /// Its end.
        end: Vec<u8>,
    },
}

/// How much of a key that is too long is kept for the message. *Units*: bytes.
const KEY_START_BYTES: usize = 32;

impl LimitError {
    pub(crate) fn key_too_long(key: &[u8]) -> LimitError {
        LimitError::KeyTooLong {
            key_start: key[..KEY_START_BYTES.min(key.len())].to_vec(),
            key_bytes: key.len(),
        }
    }
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitError::KeyTooLong { key_start, key_bytes } => write!(
                f,
                "the key starting {} has {key_bytes} bytes, at most {} are allowed",
                Quoted(key_start),
                limits::KEY_BYTES_MAX
            ),
            LimitError::ReservedKey { key } => {
                write!(f, "the key {} lies in the reserved space from \\xff", Quoted(key))
            }
            LimitError::ValueTooLong { key, value_bytes } => write!(
                f,
                "the value under {} has {value_bytes} bytes, at most {} are allowed; chunk it",
                Quoted(key),
                limits::VALUE_BYTES_MAX
            ),
            LimitError::BatchTooHeavy { weight_bytes } => write!(
                f,
                "the batch weighs {weight_bytes} bytes, at most {} are allowed; split it or use a blob",
                limits::BATCH_BYTES_MAX
            ),
            LimitError::InvertedRange { start, end } => {
                write!(f, "the range {}..{} ends before it starts", Quoted(start), Quoted(end))
            }
        }
    }
}

impl fmt::Debug for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for LimitError {}

/// A key as a person can read it: printable ASCII as it is, the rest as `\xnn`.
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0.escape_ascii())
    }
}
