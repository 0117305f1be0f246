//! A disk in memory that keeps only what was synced, and fails when it is told to.
//!
//! What a real one may do is kept for each sector: between two syncs it may hold any version of it
//! that was written since, or the one from before, whatever other sectors hold.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, StorageBackend};
use tessera_storage::embedded::store::{Medium, builder, initialise};

/// What a disk writes wholly or not at all. *Units*: bytes.
const SECTOR_BYTES: usize = 512;

type Sector = [u8; SECTOR_BYTES];

/// What goes wrong, once, at an operation chosen beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing is answered any more: the power is gone.
    Cut,
    /// The operation fails; a write is half done.
    Eio,
    /// This and some later writes find no room.
    Full,
    /// The next sync fails, and the system forgets that what it was about still is to be written.
    SyncFails,
    /// The next read ends before its buffer is full.
    ShortRead,
}

/// How many writes find no room before there is some again.
const FULL_FOR: u64 = 7;

/// What a disk does wrong all the time, which no store survives: the checker must see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Defect {
    #[default]
    None,
    /// Says that it has synced, and has not.
    SyncsNothing,
    /// Shows what a failed sync left in memory although it was told to forget it.
    ForgetsNothing,
}

/// Numbers from a seed, for the choices of a test.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A disk that several openings of a store share, as the files of a machine outlive its processes.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What survives a power cut for certain.
    durable: Vec<u8>,
    /// What whoever reads sees: durable and unsynced together.
    seen: Vec<u8>,
    /// Versions of each sector written since the last sync. *Order*: oldest first.
    unsynced: BTreeMap<usize, Vec<Sector>>,
    /// Lengths of the file set since the last sync. *Order*: oldest first.
    lengths: Vec<usize>,
    operations: u64,
    trouble: Option<(u64, Trouble)>,
    no_room_until: u64,
    off: bool,
    defect: Defect,
    dice: Option<Dice>,
}

impl Disk {
    /// A disk with an empty store on it, all synced.
    pub(crate) fn with_store() -> Disk {
        let disk = Disk(Arc::default());
        let database = builder().create_with_backend(disk.clone()).expect("an empty disk takes a store");
        initialise(&database).expect("an empty disk takes a store");
        drop(database);
        disk.lock().sync();
        disk
    }

    /// A disk of its own with the bytes of this one, that does `defect` and draws from `dice`.
    pub(crate) fn copy(&self, defect: Defect, dice: Dice) -> Disk {
        let durable = self.lock().durable.clone();
        let seen = durable.clone();
        let platter = Platter { durable, seen, defect, dice: Some(dice), ..Platter::default() };
        Disk(Arc::new(Mutex::new(platter)))
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the `after`-th operation from now meet `trouble`, or the next one that can.
    pub(crate) fn arm(&self, after: u64, trouble: Trouble) {
        let mut platter = self.lock();
        platter.trouble = Some((platter.operations + after, trouble));
    }

    /// Whether the trouble it was armed with has come.
    pub(crate) fn has_struck(&self) -> bool {
        self.lock().trouble.is_none()
    }

    /// Takes the power away, if it is still there, and gives it back: what was not synced is a choice of
    /// versions now.
    pub(crate) fn cut_power(&self) {
        let mut platter = self.lock();
        platter.settle();
        platter.seen = platter.durable.clone();
        platter.off = false;
        platter.trouble = None;
        platter.no_room_until = 0;
    }
}

impl Platter {
    fn draw(&mut self, bound: u64) -> u64 {
        self.dice.as_mut().map_or(0, |dice| dice.below(bound))
    }

    /// Counts an operation and says what goes wrong with it.
    fn operate(&mut self, meets: fn(Trouble) -> bool) -> io::Result<Option<Trouble>> {
        self.operations += 1;
        let due = self.trouble.filter(|(at, trouble)| self.operations >= *at && meets(*trouble));
        if let Some((_, trouble)) = due {
            self.trouble = None;
            match trouble {
                Trouble::Cut => self.off = true,
                Trouble::Full => self.no_room_until = self.operations + FULL_FOR,
                Trouble::Eio | Trouble::SyncFails | Trouble::ShortRead => return Ok(Some(trouble)),
            }
        }
        if self.off { Err(io::Error::other("the power is gone")) } else { Ok(None) }
    }

    fn find_room(&self) -> io::Result<()> {
        let full = self.operations < self.no_room_until;
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn put(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len();
        assert!(end <= self.seen.len(), "the store writes within the length it set");
        self.seen[offset..end].copy_from_slice(data);
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let version = sector_of(&self.seen, sector);
            self.unsynced.entry(sector).or_default().push(version);
        }
    }

    fn resize(&mut self, length: usize) {
        let before = self.seen.len();
        self.seen.resize(length, 0);
        self.lengths.push(length);
        for sector in length.div_ceil(SECTOR_BYTES)..before.div_ceil(SECTOR_BYTES) {
            // Should the file grow again, nothing is there.
            self.unsynced.entry(sector).or_default().push([0; SECTOR_BYTES]);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.seen.len(), 0);
        for (sector, _) in std::mem::take(&mut self.unsynced) {
            set_sector(&mut self.durable, sector, &sector_of(&self.seen, sector));
        }
        self.lengths.clear();
    }

    /// Chooses for each sector which of its versions the disk has.
    fn settle(&mut self) {
        // How much of it: nothing, little, half, nearly all or all.
        let kept_of_8 = [0, 1, 4, 7, 8][self.draw(5) as usize];
        let lengths = std::mem::take(&mut self.lengths);
        let chosen = self.draw(lengths.len() as u64 + 1) as usize;
        let length = chosen.checked_sub(1).map_or(self.durable.len(), |index| lengths[index]);
        let longest = lengths.into_iter().fold(self.durable.len(), usize::max);
        self.durable.resize(longest, 0);
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            if self.draw(8) < kept_of_8 {
                let version = versions[self.draw(versions.len() as u64) as usize];
                set_sector(&mut self.durable, sector, &version);
            }
        }
        self.durable.truncate(length);
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> Sector {
    let mut version = [0; SECTOR_BYTES];
    let rest = bytes.get(sector * SECTOR_BYTES..).unwrap_or_default();
    let there = rest.len().min(SECTOR_BYTES);
    version[..there].copy_from_slice(&rest[..there]);
    version
}

fn set_sector(bytes: &mut [u8], sector: usize, version: &Sector) {
    if let Some(rest) = bytes.get_mut(sector * SECTOR_BYTES..) {
        let there = rest.len().min(SECTOR_BYTES);
        rest[..there].copy_from_slice(&version[..there]);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let platter = self.lock();
        if platter.off { Err(io::Error::other("the power is gone")) } else { Ok(platter.seen.len() as u64) }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = self.lock();
        let trouble = platter.operate(|trouble| !matches!(trouble, Trouble::Full | Trouble::SyncFails))?;
        let from = platter.seen.get(offset as usize..).unwrap_or_default();
        let there = match trouble {
            Some(Trouble::ShortRead) => from.len().min(out.len() / 2),
            Some(_) => return Err(io::Error::other("a bad sector")),
            None => from.len().min(out.len()),
        };
        out[..there].copy_from_slice(&from[..there]);
        if there == out.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut platter = self.lock();
        let trouble =
            platter.operate(|trouble| !matches!(trouble, Trouble::ShortRead | Trouble::SyncFails))?;
        if trouble.is_some() {
            return Err(io::Error::other("the file's length cannot be changed"));
        }
        if length as usize > platter.seen.len() {
            platter.find_room()?;
        }
        platter.resize(length as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.lock();
        let trouble = platter.operate(|trouble| !matches!(trouble, Trouble::ShortRead | Trouble::Full))?;
        if trouble.is_some() {
            // As Linux does it: what could not be written stays to be seen and counts as written.
            platter.settle();
            return Err(io::Error::other("the sync failed"));
        }
        if platter.defect != Defect::SyncsNothing {
            platter.sync();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.lock();
        let trouble =
            platter.operate(|trouble| !matches!(trouble, Trouble::ShortRead | Trouble::SyncFails))?;
        platter.find_room()?;
        if trouble.is_some() {
            platter.put(offset as usize, &data[..data.len() / 2]);
            return Err(io::Error::other("a bad sector"));
        }
        platter.put(offset as usize, data);
        Ok(())
    }
}

impl Medium for Disk {
    fn open(&self, builder: &redb::Builder) -> Result<Database, redb::Error> {
        Ok(builder.create_with_backend(self.clone())?)
    }

    fn forget(&self) -> Result<(), redb::Error> {
        let mut platter = self.lock();
        if platter.defect == Defect::ForgetsNothing {
            return Ok(());
        }
        // What still is to be written stays; what only seems to be written goes.
        let mut seen = platter.durable.clone();
        seen.resize(platter.seen.len(), 0);
        for sector in platter.unsynced.keys() {
            set_sector(&mut seen, *sector, &sector_of(&platter.seen, *sector));
        }
        platter.seen = seen;
        Ok(())
    }
}
