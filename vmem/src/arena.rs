//! The arena: blocks of bytes by key, at most so many of them in memory, the least recently used in a file.
//!
//! Owns which block is where. Durable is what the last checkpoint saw and nothing else: a block that is written anew
//! goes to another part of the file until the next index names it, so that the last index stays true at every moment.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use crate::backing::Backing;
use crate::index::{self, Entry};
use crate::space::{Slot, Space};

/// Names a block; what it means is its owner's.
pub type Key = Vec<u8>;

/// Why a block could not be kept, changed or read. What the arena holds is as before.
#[derive(Debug)]
pub enum ArenaError {
    /// The disk is full.
    Full(io::Error),
    /// The file cannot be read or written.
    Io(io::Error),
    /// One block is larger than all that may be in memory.
    TooLarge {
        /// Its length.
        bytes: usize,
        /// What may be.
        max: usize,
    },
    /// No block has this key.
    Unknown,
    /// The file does not hold what was written there. The block is forgotten.
    Damaged,
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArenaError::Full(error) => {
                write!(f, "the disk is full: {error}; make room, and the hub goes on by itself")
            }
            ArenaError::Io(error) => write!(f, "the file of blocks cannot be used: {error}"),
            ArenaError::TooLarge { bytes, max } => {
                write!(f, "a block of {bytes} bytes is larger than the {max} that may be in memory")
            }
            ArenaError::Unknown => f.write_str("no block has this key"),
            ArenaError::Damaged => {
                f.write_str("a block is not what was written: look at the disk; it is computed again")
            }
        }
    }
}

impl std::error::Error for ArenaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ArenaError::Full(error) | ArenaError::Io(error) => Some(error),
            ArenaError::TooLarge { .. } | ArenaError::Unknown | ArenaError::Damaged => None,
        }
    }
}

impl From<io::Error> for ArenaError {
    fn from(error: io::Error) -> ArenaError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ArenaError::Full(error),
            _ => ArenaError::Io(error),
        }
    }
}

#[derive(Debug)]
struct Block {
    bytes: usize,
    note: Vec<u8>,
    /// Its bytes, where they are in memory.
    here: Option<Vec<u8>>,
    /// Where its bytes are in the file, and their digest; nothing where what is there is older.
    there: Option<(Slot, [u8; 32])>,
    /// When it was last used.
    used: u64,
}

/// A bug to plant, so that the tests are tested too.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A block is written over what the last index names.
    WriteInPlace,
    /// The index is replaced before the blocks are durable.
    PublishBeforeSync,
    /// A changed block that makes room is not written.
    DropWhatChanged,
    /// What is read back is believed.
    BelieveTheFile,
    /// The cap is looked at after a block came in.
    CapAfterwards,
}

/// Blocks of bytes under a cap.
#[derive(Debug)]
pub struct Arena<B> {
    backing: B,
    blocks: BTreeMap<Key, Block>,
    /// Blocks in memory by when they were last used.
    recent: BTreeMap<u64, Key>,
    space: Space,
    /// Parts of the file that an index may name which a crash would leave, by offset.
    pinned: BTreeMap<u64, Slot>,
    resident_bytes: usize,
    resident_bytes_max: usize,
    peak_bytes: usize,
    clock: u64,
    /// Whether the last index does not say what is here.
    changed: bool,
    discarded: usize,
    #[cfg(test)]
    pub(crate) planted: Option<Planted>,
}

impl<B: Backing> Arena<B> {
    /// Goes on from the last checkpoint. A block that is not whole is discarded, as is an index that cannot be read.
    pub fn open(mut backing: B, resident_bytes_max: usize) -> Result<Arena<B>, ArenaError> {
        let index = backing.index()?;
        let entries = index.as_deref().map_or(Some(Vec::new()), index::decode);
        let mut discarded = usize::from(entries.is_none());
        let (mut blocks, mut slots) = (BTreeMap::new(), Vec::new());
        for Entry { key, note, slot, digest } in entries.unwrap_or_default() {
            let bytes = slot.bytes as usize;
            if bytes > resident_bytes_max || !is_whole(&mut backing, slot, digest)? {
                discarded += 1;
                continue;
            }
            slots.push(slot);
            blocks.insert(key, Block { bytes, note, here: None, there: Some((slot, digest)), used: 0 });
        }
        Ok(Arena {
            backing,
            blocks,
            recent: BTreeMap::new(),
            pinned: slots.iter().map(|slot| (slot.offset, *slot)).collect(),
            space: Space::around(slots),
            resident_bytes: 0,
            resident_bytes_max,
            peak_bytes: 0,
            clock: 0,
            changed: discarded > 0,
            discarded,
            #[cfg(test)]
            planted: None,
        })
    }

    /// Keeps a block, in place of one of the same key.
    ///
    /// *Panics*: when it is empty.
    pub fn put(&mut self, key: Key, bytes: Vec<u8>, note: Vec<u8>) -> Result<(), ArenaError> {
        assert!(!bytes.is_empty(), "a block has bytes");
        let known = self.blocks.get(&key).and_then(|block| block.here.as_ref().map(Vec::len)).unwrap_or(0);
        // What it replaces goes, but not before there is room: an error leaves everything as it was.
        self.make_room(bytes.len(), known, Some(&key))?;
        self.forget(&key);
        self.clock += 1;
        self.count(bytes.len());
        self.recent.insert(self.clock, key.clone());
        let length = bytes.len();
        let block = Block { bytes: length, note, here: Some(bytes), there: None, used: self.clock };
        self.blocks.insert(key, block);
        self.changed = true;
        Ok(())
    }

    /// The bytes of a block.
    pub fn read(&mut self, key: &[u8]) -> Result<&[u8], ArenaError> {
        self.fetch(key)?;
        let bytes = self.blocks.get(key).and_then(|block| block.here.as_deref());
        Ok(bytes.expect("a block that was fetched is here"))
    }

    /// Changes a block in place and its note with it; where `change` fails, only its error comes of it, and the block
    /// may hold half of the change.
    pub fn update<E>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut [u8], &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Result<(), E>, ArenaError> {
        self.fetch(key)?;
        let block = self.blocks.get_mut(key).ok_or(ArenaError::Unknown)?;
        let old = block.there.take();
        self.changed = true;
        let bytes = block.here.as_deref_mut().expect("a block that was fetched is here");
        let changed = change(bytes, &mut block.note);
        if let Some((slot, _)) = old {
            self.release(slot);
        }
        Ok(changed)
    }

    /// Forgets a block. It is gone for good at the next checkpoint.
    pub fn forget(&mut self, key: &[u8]) {
        let Some(block) = self.blocks.remove(key) else { return };
        self.changed = true;
        if block.here.is_some() {
            self.recent.remove(&block.used);
            self.resident_bytes -= block.bytes;
        }
        if let Some((slot, _)) = block.there {
            self.release(slot);
        }
    }

    /// Makes what is here durable: blocks first, then the index that names them.
    pub fn checkpoint(&mut self) -> Result<(), ArenaError> {
        if !self.changed {
            return Ok(());
        }
        let dirty = self.blocks.iter().filter(|(_, block)| block.there.is_none());
        for key in dirty.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.write_out(&key)?;
        }
        if !self.is_planted_publish_first() {
            self.backing.sync()?;
        }
        let named = || {
            self.blocks.iter().filter_map(|(key, block)| {
                block.there.map(|(slot, digest)| (&key[..], &block.note[..], slot, digest))
            })
        };
        let index = index::encode(named());
        let new: BTreeMap<u64, Slot> = named().map(|(_, _, slot, _)| (slot.offset, slot)).collect();
        // When this fails either index may be what a crash leaves: both stay true.
        let before = self.pinned.clone();
        self.pinned.extend(&new);
        self.backing.publish(&index)?;
        for (offset, slot) in before {
            if !new.contains_key(&offset) {
                self.space.give(slot);
            }
        }
        (self.pinned, self.changed) = (new, false);
        let end = self.space.trim();
        self.backing.truncate(end)?;
        Ok(())
    }

    /// Every block with its note. *Order*: by key.
    pub fn notes(&self) -> impl Iterator<Item = (&Key, &[u8])> {
        self.blocks.iter().map(|(key, block)| (key, &block.note[..]))
    }

    /// The note of a block.
    pub fn note(&self, key: &[u8]) -> Option<&[u8]> {
        self.blocks.get(key).map(|block| &block.note[..])
    }

    /// The keys that begin so. *Order*: ascending.
    pub fn keys_under(&self, prefix: &[u8]) -> Vec<Key> {
        let from = self.blocks.range(prefix.to_vec()..).map(|(key, _)| key);
        from.take_while(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Of blocks in memory. *Units*: bytes.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// Most that ever was in memory. *Units*: bytes.
    pub fn peak_bytes(&self) -> usize {
        self.peak_bytes
    }

    /// Of all blocks. *Units*: bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks.values().map(|block| block.bytes as u64).sum()
    }

    /// Blocks that the index named at the start and that were not whole.
    pub fn discarded(&self) -> usize {
        self.discarded
    }

    /// Whether a crash would lose something.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Where its bytes lie.
    pub fn backing_mut(&mut self) -> &mut B {
        &mut self.backing
    }

    /// Ends it as a crash does.
    pub fn into_backing(self) -> B {
        self.backing
    }

    // --- between memory and file ----------------------------------------------------------------

    fn count(&mut self, bytes: usize) {
        self.resident_bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.resident_bytes);
    }

    /// Brings a block into memory and makes it the latest used.
    fn fetch(&mut self, key: &[u8]) -> Result<(), ArenaError> {
        let block = self.blocks.get(key).ok_or(ArenaError::Unknown)?;
        let (used, length) = (block.used, block.bytes);
        if block.here.is_some() {
            self.recent.remove(&used);
        } else {
            let (slot, digest) = block.there.ok_or(ArenaError::Unknown)?;
            self.make_room(length, 0, None)?;
            let mut bytes = vec![0; length];
            match self.backing.read(slot.offset, &mut bytes) {
                Ok(()) if self.is_right(&bytes, digest) => {}
                Ok(()) => {
                    self.forget(key);
                    return Err(ArenaError::Damaged);
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.forget(key);
                    return Err(ArenaError::Damaged);
                }
                Err(error) => return Err(error.into()),
            }
            self.count(length);
            if let Some(block) = self.blocks.get_mut(key) {
                block.here = Some(bytes);
            }
        }
        self.clock += 1;
        self.recent.insert(self.clock, key.to_vec());
        if let Some(block) = self.blocks.get_mut(key) {
            block.used = self.clock;
        }
        Ok(())
    }

    /// Moves blocks out until so much more fits, where `given` will go besides with the block that is replaced.
    fn make_room(&mut self, bytes: usize, given: usize, replaced: Option<&[u8]>) -> Result<(), ArenaError> {
        let max = self.resident_bytes_max;
        if bytes > max {
            return Err(ArenaError::TooLarge { bytes, max });
        }
        while self.resident_bytes - given + bytes > max + self.planted_slack() {
            let oldest = self.recent.iter().find(|(_, key)| replaced != Some(&key[..]));
            let (used, key) = oldest.map(|(used, key)| (*used, key.clone())).ok_or(ArenaError::Unknown)?;
            self.write_out(&key)?;
            self.recent.remove(&used);
            if let Some(block) = self.blocks.get_mut(&key) {
                block.here = None;
                self.resident_bytes -= block.bytes;
            }
        }
        Ok(())
    }

    /// Writes a block to the file where what lies there is older.
    fn write_out(&mut self, key: &[u8]) -> Result<(), ArenaError> {
        let Some(block) = self.blocks.get(key).filter(|block| block.there.is_none()) else { return Ok(()) };
        let Some(bytes) = &block.here else { return Ok(()) };
        let slot =
            self.planted_slot(bytes.len() as u64).unwrap_or_else(|| self.space.take(bytes.len() as u64));
        if !self.is_planted_drop()
            && let Err(error) = self.backing.write(slot.offset, bytes)
        {
            self.space.give(slot);
            return Err(error.into());
        }
        let digest = *blake3::hash(bytes).as_bytes();
        if let Some(block) = self.blocks.get_mut(key) {
            block.there = Some((slot, digest));
        }
        Ok(())
    }

    /// A part of the file is free unless an index names it that a crash may leave.
    fn release(&mut self, slot: Slot) {
        if !self.pinned.contains_key(&slot.offset) {
            self.space.give(slot);
        }
    }
}

fn is_whole(backing: &mut impl Backing, slot: Slot, digest: [u8; 32]) -> Result<bool, ArenaError> {
    let mut bytes = vec![0; slot.bytes as usize];
    match backing.read(slot.offset, &mut bytes) {
        Ok(()) => Ok(*blake3::hash(&bytes).as_bytes() == digest),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
impl<B> Arena<B> {
    fn is_planted_publish_first(&self) -> bool {
        self.planted == Some(Planted::PublishBeforeSync)
    }

    fn is_planted_drop(&self) -> bool {
        self.planted == Some(Planted::DropWhatChanged)
    }

    fn is_right(&self, bytes: &[u8], digest: [u8; 32]) -> bool {
        self.planted == Some(Planted::BelieveTheFile) || *blake3::hash(bytes).as_bytes() == digest
    }

    fn planted_slack(&self) -> usize {
        if self.planted == Some(Planted::CapAfterwards) { 64 } else { 0 }
    }

    /// A part that the last index names, as if it were free.
    fn planted_slot(&self, bytes: u64) -> Option<Slot> {
        let is_planted = self.planted == Some(Planted::WriteInPlace);
        let in_use = |slot: &Slot| {
            self.blocks
                .values()
                .any(|block| block.there.is_some_and(|(there, _)| there.offset == slot.offset))
        };
        let same = |slot: &&Slot| slot.bytes == bytes && !in_use(slot);
        self.pinned.values().find(same).filter(|_| is_planted).copied()
    }
}

#[cfg(not(test))]
impl<B> Arena<B> {
    fn is_planted_publish_first(&self) -> bool {
        false
    }

    fn is_planted_drop(&self) -> bool {
        false
    }

    fn is_right(&self, bytes: &[u8], digest: [u8; 32]) -> bool {
        *blake3::hash(bytes).as_bytes() == digest
    }

    fn planted_slack(&self) -> usize {
        0
    }

    fn planted_slot(&self, _: u64) -> Option<Slot> {
        None
    }
}

#[cfg(test)]
#[path = "arena/tests.rs"]
mod tests;
