//! Which parts of the file are free.

use std::collections::BTreeMap;

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// The free parts of a file that grows where none fits. *Order*: by offset, and no two touch.
#[derive(Debug, Default)]
pub(crate) struct Space {
    free: BTreeMap<u64, u64>,
    end: u64,
}

impl Space {
    /// A file of which only these parts are in use, which do not overlap.
    pub(crate) fn around(mut used: Vec<Slot>) -> Space {
        used.sort_by_key(|slot| slot.offset);
        let mut space = Space::default();
        for slot in used {
            if slot.offset > space.end {
                space.free.insert(space.end, slot.offset - space.end);
            }
            space.end = slot.offset + slot.bytes;
        }
        space
    }

    /// The first free part that is large enough.
    pub(crate) fn take(&mut self, bytes: u64) -> Slot {
        let found = self.free.iter().find(|(_, free)| **free >= bytes).map(|(offset, free)| (*offset, *free));
        match found {
            Some((offset, free)) => {
                self.free.remove(&offset);
                if free > bytes {
                    self.free.insert(offset + bytes, free - bytes);
                }
                Slot { offset, bytes }
            }
            None => {
                // A free part at the end grows.
                let tail = self.free.last_key_value().map(|(offset, free)| (*offset, *free));
                let offset = match tail.filter(|(offset, free)| offset + free == self.end) {
                    Some((offset, _)) => {
                        self.free.remove(&offset);
                        offset
                    }
                    None => self.end,
                };
                self.end = offset + bytes;
                Slot { offset, bytes }
            }
        }
    }

    /// *Panics*: when it is free already.
    pub(crate) fn give(&mut self, slot: Slot) {
        let Slot { mut offset, mut bytes } = slot;
        let before = self.free.range(..offset).next_back().map(|(offset, bytes)| (*offset, *bytes));
        let after = self.free.range(offset..).next().map(|(offset, bytes)| (*offset, *bytes));
        assert!(before.is_none_or(|(start, length)| start + length <= offset), "{slot:?} is free already");
        assert!(after.is_none_or(|(start, _)| start >= offset + bytes), "{slot:?} is free already");
        if let Some((start, length)) = before.filter(|(start, length)| start + length == offset) {
            self.free.remove(&start);
            (offset, bytes) = (start, length + bytes);
        }
        if let Some((start, length)) = after.filter(|(start, _)| *start == offset + bytes) {
            self.free.remove(&start);
            bytes += length;
        }
        self.free.insert(offset, bytes);
    }

    /// Where the file may end, once its free tail is given up.
    pub(crate) fn trim(&mut self) -> u64 {
        if let Some((offset, bytes)) = self.free.last_key_value().map(|(offset, bytes)| (*offset, *bytes))
            && offset + bytes == self.end
        {
            self.free.remove(&offset);
            self.end = offset;
        }
        self.end
    }
}
