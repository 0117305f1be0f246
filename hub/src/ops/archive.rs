//! The backup file: every entry of a store in blocks, each under its digest, and all of it under one.
//!
//! Owns the file's bytes. Integers are big-endian:
//!
//! | part | bytes |
//! |---|---|
//! | head | `tessera backup\n` and a zero byte (16), version of this page (4), format of the store (4), when it was made in Unix milliseconds (8), BLAKE3 of these (32) |
//! | block, any number | its length (4, never 0), BLAKE3 of number (8) and content (32), content: entries, each as length of key (4), length of value (4), key, value |
//! | end | zero (4), entries (8), BLAKE3 of all before (32) |
//!
//! Not compressed: the hub has no compressor, and what is large in a store is drawn at random or compressed video.
//! May not touch a store: it takes entries and gives them.

use std::fmt;
use std::io::{self, Read, Write};

use blake3::Hasher;
use tessera_storage::Entry;

const MAGIC: &[u8; 16] = b"tessera backup\n\0";
/// Version of the page above.
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 16 + 4 + 4 + 8;
const DIGEST_BYTES: usize = blake3::OUT_LEN;
/// A block is closed once it holds so much. *Units*: bytes.
const BLOCK_BYTES: usize = 1 << 20;
/// Longest block: an entry of the largest key and value may follow when it is almost full.
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES
    + 2 * size_of::<u32>()
    + tessera_storage::limits::KEY_BYTES_MAX
    + tessera_storage::limits::VALUE_BYTES_MAX;

/// What a backup says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The format of the store that it is of.
    pub format: u32,
    /// When it was made. *Units*: Unix milliseconds.
    pub made_ms: u64,
}

/// What was written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Entries.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// BLAKE3 of all but itself.
    pub digest: blake3::Hash,
}

/// Why a file is no backup that can be used.
#[derive(Debug)]
pub enum ArchiveError {
    /// It does not begin as one.
    NotABackup,
    /// A newer hub made it.
    Newer {
        /// The version of its layout.
        found: u32,
    },
    /// It begins as one, and its first bytes were changed.
    HeadAltered,
    /// It ends in the middle.
    Truncated {
        /// Blocks that are whole.
        blocks: u64,
    },
    /// The bytes of a block are not those of its digest.
    BlockAltered {
        /// Which, from zero.
        block: u64,
    },
    /// Blocks are missing, or the end was changed.
    EndAltered {
        /// Blocks there are.
        blocks: u64,
    },
    /// It cannot be read.
    Io(io::Error),
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArchiveError::NotABackup => f.write_str("it is no backup of a hub"),
            ArchiveError::Newer { found } => write!(
                f,
                "it has layout {found} and this build reads {VERSION}: use the build that made it, or a newer one"
            ),
            ArchiveError::HeadAltered => f.write_str("its head was altered; take another backup"),
            ArchiveError::Truncated { blocks } => {
                write!(f, "it was cut off behind block {blocks}; take another backup, or copy it again")
            }
            ArchiveError::BlockAltered { block } => {
                write!(f, "block {block} was altered; take another backup, or copy it again")
            }
            ArchiveError::EndAltered { blocks } => {
                write!(
                    f,
                    "it has {blocks} blocks and its end is of others; take another backup, or copy it again"
                )
            }
            ArchiveError::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ArchiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ArchiveError::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Writes a backup.
pub struct Writer<W> {
    to: W,
    all: Hasher,
    block: Vec<u8>,
    blocks: u64,
    entries: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    pub fn begin(to: W, head: Head) -> io::Result<Writer<W>> {
        let block = Vec::with_capacity(BLOCK_BYTES_MAX);
        let mut writer = Writer { to, all: Hasher::new(), block, blocks: 0, entries: 0, bytes: 0 };
        let bytes = head_bytes(head);
        writer.put(&bytes)?;
        writer.put(blake3::hash(&bytes).as_bytes())?;
        Ok(writer)
    }

    /// Adds an entry. *Order*: that of the store.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        for part in [&entry.key, &entry.value] {
            self.block.extend((part.len() as u32).to_be_bytes());
        }
        self.block.extend(&entry.key);
        self.block.extend(&entry.value);
        self.entries += 1;
        if self.block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    /// Ends it, and gives back what it was written to.
    pub fn end(mut self) -> io::Result<(W, Summary)> {
        self.end_block()?;
        self.put(&0_u32.to_be_bytes())?;
        self.put(&self.entries.to_be_bytes())?;
        let digest = self.all.finalize();
        self.put(digest.as_bytes())?;
        self.to.flush()?;
        Ok((self.to, Summary { entries: self.entries, bytes: self.bytes, digest }))
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.put(&(block.len() as u32).to_be_bytes())?;
        self.put(block_digest(self.blocks, &block).as_bytes())?;
        self.put(&block)?;
        self.blocks += 1;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.all.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

fn head_bytes(head: Head) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend(head.format.to_be_bytes());
    bytes.extend(head.made_ms.to_be_bytes());
    bytes
}

/// With the block's number, so that blocks cannot change places.
fn block_digest(number: u64, block: &[u8]) -> blake3::Hash {
    let mut hasher = Hasher::new();
    hasher.update(&number.to_be_bytes()).update(block);
    hasher.finalize()
}

/// Reads a backup, a block at a time, and shows nothing of a block that was altered.
pub struct Reader<R> {
    from: R,
    all: Hasher,
    block: Vec<u8>,
    /// Where the next entry begins in the block.
    at: usize,
    blocks: u64,
    entries: u64,
    bytes: u64,
    head: Head,
    summary: Option<Summary>,
}

impl<R: Read> Reader<R> {
    /// Reads the head.
    pub fn begin(from: R) -> Result<Reader<R>, ArchiveError> {
        let (all, head) = (Hasher::new(), Head { format: 0, made_ms: 0 });
        let mut reader = Reader {
            from,
            all,
            block: Vec::new(),
            at: 0,
            blocks: 0,
            entries: 0,
            bytes: 0,
            head,
            summary: None,
        };
        let mut bytes = [0; HEAD_BYTES];
        let short = |error: ArchiveError| match error {
            ArchiveError::Truncated { .. } => ArchiveError::NotABackup,
            error => error,
        };
        reader.take(&mut bytes).map_err(short)?;
        let [magic @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = &bytes;
        if magic != MAGIC {
            return Err(ArchiveError::NotABackup);
        }
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        // First, since a newer layout may have another head.
        if number(16) > VERSION {
            return Err(ArchiveError::Newer { found: number(16) });
        }
        let mut digest = [0; DIGEST_BYTES];
        reader.take(&mut digest)?;
        let made_ms = u64::from(number(24)) << 32 | u64::from(number(28));
        if *blake3::hash(&bytes).as_bytes() != digest || number(16) != VERSION {
            return Err(ArchiveError::HeadAltered);
        }
        reader.head = Head { format: number(20), made_ms };
        Ok(reader)
    }

    /// What it says of itself.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The next entry; nothing at the end, which was then found right.
    pub fn entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        while self.at == self.block.len() {
            if self.summary.is_some() || !self.next_block()? {
                return Ok(None);
            }
        }
        let altered = ArchiveError::BlockAltered { block: self.blocks - 1 };
        let mut rest = &self.block[self.at..];
        let lengths = |rest: &mut &[u8]| {
            let (length, behind) = rest.split_first_chunk()?;
            *rest = behind;
            Some(u32::from_be_bytes(*length) as usize)
        };
        let (Some(key), Some(value)) = (lengths(&mut rest), lengths(&mut rest)) else { return Err(altered) };
        let parts = rest.split_at_checked(key).and_then(|(key, rest)| Some((key, rest.get(..value)?)));
        let Some((key, value)) = parts else { return Err(altered) };
        self.at += 2 * size_of::<u32>() + key.len() + value.len();
        self.entries += 1;
        Ok(Some(Entry { key: key.to_vec(), value: value.to_vec() }))
    }

    /// What was read, once the end is.
    pub fn summary(&self) -> Option<Summary> {
        self.summary
    }

    /// Reads the rest, and says what the whole is.
    pub fn verify(mut self) -> Result<Summary, ArchiveError> {
        while self.entry()?.is_some() {}
        self.summary.ok_or(ArchiveError::Truncated { blocks: self.blocks })
    }

    fn next_block(&mut self) -> Result<bool, ArchiveError> {
        let mut length = [0; 4];
        self.take(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 {
            self.end()?;
            return Ok(false);
        }
        let altered = ArchiveError::BlockAltered { block: self.blocks };
        if length > BLOCK_BYTES_MAX {
            return Err(altered);
        }
        let mut digest = [0; DIGEST_BYTES];
        self.take(&mut digest)?;
        let mut block = std::mem::take(&mut self.block);
        block.resize(length, 0);
        self.take(&mut block)?;
        if *block_digest(self.blocks, &block).as_bytes() != digest {
            return Err(altered);
        }
        (self.block, self.at) = (block, 0);
        self.blocks += 1;
        Ok(true)
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        let (mut entries, mut digest) = ([0; 8], [0; DIGEST_BYTES]);
        self.take(&mut entries)?;
        let expected = self.all.finalize();
        self.take(&mut digest)?;
        let mut more = [0; 1];
        let behind = self.from.read(&mut more).map_err(ArchiveError::Io)?;
        if *expected.as_bytes() != digest || u64::from_be_bytes(entries) != self.entries || behind != 0 {
            return Err(ArchiveError::EndAltered { blocks: self.blocks });
        }
        self.summary = Some(Summary { entries: self.entries, bytes: self.bytes, digest: expected });
        Ok(())
    }

    fn take(&mut self, out: &mut [u8]) -> Result<(), ArchiveError> {
        let short = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Truncated { blocks: self.blocks },
            _ => ArchiveError::Io(error),
        };
        self.from.read_exact(out).map_err(short)?;
        self.all.update(out);
        self.bytes += out.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
#[path = "archive/tests.rs"]
mod tests;
