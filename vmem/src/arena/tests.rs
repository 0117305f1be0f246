//! The arena against a plain map, under a disk that fills up, tears and dies.

use std::collections::BTreeMap;
use std::io;

use super::*;

const CAP: usize = 100;
const SEEDS: u64 = 400;

/// A small generator: equal seeds give equal runs.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }
}

/// A disk that keeps what was synced, and of the rest what it likes.
#[derive(Debug, Default)]
struct Disk {
    synced: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    index: Option<Vec<u8>>,
    full: bool,
    /// The next index is not confirmed, and is there or is not.
    publish_fails: Option<bool>,
}

fn apply(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    image.resize(image.len().max(end), 0);
    image[offset as usize..end].copy_from_slice(bytes);
}

impl Disk {
    fn image(&self) -> Vec<u8> {
        let mut image = self.synced.clone();
        self.unsynced.iter().for_each(|(offset, bytes)| apply(&mut image, *offset, bytes));
        image
    }

    /// The power goes: each write that was not synced is there, torn or gone.
    fn crash(mut self, random: &mut Random) -> Disk {
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            let kept = [bytes.len(), bytes.len() / 2, 0][random.below(3) as usize];
            apply(&mut self.synced, offset, &bytes[..kept]);
        }
        Disk { full: false, publish_fails: None, ..self }
    }
}

impl Backing for Disk {
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let image = self.image();
        let bytes = image.get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.full {
            self.unsynced.push((offset, bytes[..bytes.len() / 2].to_vec()));
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.unsynced.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.synced = self.image();
        self.unsynced.clear();
        Ok(())
    }

    fn publish(&mut self, index: &[u8]) -> io::Result<()> {
        match self.publish_fails.take() {
            Some(applied) => {
                self.index = if applied { Some(index.to_vec()) } else { self.index.take() };
                Err(io::ErrorKind::Other.into())
            }
            None => {
                self.index = Some(index.to_vec());
                Ok(())
            }
        }
    }

    fn index(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.index.clone())
    }

    fn truncate(&mut self, end: u64) -> io::Result<()> {
        self.sync()?;
        self.synced.truncate(end as usize);
        Ok(())
    }
}

type Map = BTreeMap<Key, (Vec<u8>, Vec<u8>)>;

fn contents(arena: &mut Arena<Disk>) -> Result<Map, String> {
    let notes: Vec<(Key, Vec<u8>)> = arena.notes().map(|(key, note)| (key.clone(), note.to_vec())).collect();
    let read = |(key, note): (Key, Vec<u8>)| {
        let bytes = arena.read(&key).map_err(|error| format!("{key:?}: {error}"))?.to_vec();
        Ok((key, (bytes, note)))
    };
    notes.into_iter().map(read).collect()
}

/// One history: the arena, the map it must equal, and what a crash may leave of it.
struct History {
    random: Random,
    arena: Arena<Disk>,
    live: Map,
    durable: Vec<Map>,
    planted: Option<Planted>,
}

impl History {
    fn new(seed: u64, planted: Option<Planted>) -> History {
        let mut arena = Arena::open(Disk::default(), CAP).unwrap();
        arena.planted = planted;
        History { random: Random(seed), arena, live: Map::new(), durable: vec![Map::new()], planted }
    }

    fn step(&mut self) -> Result<(), String> {
        let key = vec![self.random.below(8) as u8];
        let byte = self.random.below(256) as u8;
        match self.random.below(12) {
            0..=2 => {
                let bytes = vec![byte; 1 + self.random.below(40) as usize];
                match self.arena.put(key.clone(), bytes.clone(), vec![byte]) {
                    Ok(()) => drop(self.live.insert(key, (bytes, vec![byte]))),
                    Err(error) => self.was_full(&error)?,
                }
            }
            3..=5 => {
                let add = |bytes: &mut [u8], note: &mut Vec<u8>| {
                    bytes.iter_mut().for_each(|at| *at = at.wrapping_add(byte));
                    note.push(byte);
                    Ok::<(), ()>(())
                };
                match (self.arena.update(&key, add), self.live.get_mut(&key)) {
                    (Ok(_), Some((bytes, note))) => add(bytes, note).unwrap(),
                    (Err(ArenaError::Unknown), None) => {}
                    (Err(error), _) => self.was_full(&error)?,
                    (Ok(_), None) => return Err("what is unknown was changed".into()),
                }
            }
            6 => {
                self.arena.forget(&key);
                self.live.remove(&key);
            }
            7 | 8 => self.arena.backing_mut().full = byte < 40,
            9 => self.crash()?,
            _ => self.checkpoint(byte)?,
        }
        self.check()
    }

    fn was_full(&mut self, error: &ArenaError) -> Result<(), String> {
        let full = self.arena.backing_mut().full;
        if matches!(error, ArenaError::Full(_)) && full { Ok(()) } else { Err(error.to_string()) }
    }

    fn checkpoint(&mut self, byte: u8) -> Result<(), String> {
        let fails = (byte < 40).then_some(byte < 20);
        self.arena.backing_mut().publish_fails = fails;
        match self.arena.checkpoint() {
            Ok(()) => self.durable = vec![self.live.clone()],
            Err(ArenaError::Full(_)) => {}
            Err(_) if fails.is_some() => self.durable.push(self.live.clone()),
            Err(error) => return Err(error.to_string()),
        }
        self.arena.backing_mut().publish_fails = None;
        Ok(())
    }

    fn crash(&mut self) -> Result<(), String> {
        let empty = Arena::open(Disk::default(), CAP).map_err(|error| error.to_string())?;
        let disk = std::mem::replace(&mut self.arena, empty).into_backing().crash(&mut self.random);
        self.arena = Arena::open(disk, CAP).map_err(|error| error.to_string())?;
        self.arena.planted = self.planted;
        if self.arena.discarded() > 0 {
            return Err("a block of the last index is not whole".into());
        }
        let found = contents(&mut self.arena)?;
        if !self.durable.contains(&found) {
            return Err("a crash left what no checkpoint saw".into());
        }
        (self.live, self.durable) = (found.clone(), vec![found]);
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        if self.arena.peak_bytes() > CAP || self.arena.resident_bytes() > CAP {
            return Err(format!("{} bytes were in memory", self.arena.peak_bytes()));
        }
        // Reading moves blocks, for which a full disk has no room.
        if !self.arena.backing_mut().full && contents(&mut self.arena)? != self.live {
            return Err("the arena is not the map".into());
        }
        Ok(())
    }
}

fn run(seed: u64, planted: Option<Planted>) -> Result<(), String> {
    let mut history = History::new(seed, planted);
    (0..120).try_for_each(|_| history.step())
}

#[test]
fn the_arena_is_a_map_under_a_cap_and_a_crash_leaves_what_a_checkpoint_saw() {
    for seed in 0..SEEDS {
        run(seed, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in
        [Planted::WriteInPlace, Planted::PublishBeforeSync, Planted::DropWhatChanged, Planted::CapAfterwards]
    {
        // What the arena itself asserts is found too.
        let fails = |seed| !matches!(std::panic::catch_unwind(|| run(seed, Some(bug))), Ok(Ok(())));
        assert!((0..SEEDS).any(fails), "{bug:?} is not found");
    }
}

fn spilled() -> Arena<Disk> {
    let mut arena = Arena::open(Disk::default(), CAP).unwrap();
    arena.put(vec![1], vec![1; 60], Vec::new()).unwrap();
    arena.put(vec![2], vec![2; 60], Vec::new()).unwrap();
    assert_eq!(arena.resident_bytes(), 60, "the first one went to the file");
    arena
}

#[test]
fn a_block_that_the_disk_changed_is_an_error_and_not_numbers() {
    let damage = |arena: &mut Arena<Disk>| arena.backing_mut().write(7, &[9]).unwrap();
    let mut arena = spilled();
    damage(&mut arena);
    assert!(matches!(arena.read(&[1]), Err(ArenaError::Damaged)));
    assert!(matches!(arena.read(&[1]), Err(ArenaError::Unknown)), "it is computed again");
    let mut believing = spilled();
    believing.planted = Some(Planted::BelieveTheFile);
    damage(&mut believing);
    assert!(believing.read(&[1]).is_ok_and(|bytes| bytes[7] == 9), "the planted bug gives wrong numbers");
}

#[test]
fn a_full_disk_loses_nothing_and_is_told_until_there_is_room() {
    let mut arena = spilled();
    arena.backing_mut().full = true;
    let error = arena.put(vec![3], vec![3; 60], Vec::new()).unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert_eq!(arena.read(&[2]).unwrap(), [2; 60]);
    arena.backing_mut().full = false;
    arena.put(vec![3], vec![3; 60], Vec::new()).unwrap();
    for key in 1..=3 {
        assert_eq!(arena.read(&[key]).unwrap(), [key; 60]);
    }
}

#[test]
fn a_block_larger_than_the_cap_is_refused() {
    let mut arena = Arena::open(Disk::default(), CAP).unwrap();
    let error = arena.put(vec![1], vec![0; CAP + 1], Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "a block of 101 bytes is larger than the 100 that may be in memory");
}

#[test]
fn room_in_the_file_is_used_again_and_given_up_at_its_end() {
    let mut arena = spilled();
    for round in 0..50 {
        arena.put(vec![3], vec![round; 60], Vec::new()).unwrap();
        arena.checkpoint().unwrap();
    }
    assert!(arena.backing_mut().synced.len() <= 5 * 60, "{}", arena.backing_mut().synced.len());
    (1..=3).for_each(|key| arena.forget(&[key]));
    arena.checkpoint().unwrap();
    assert!(arena.backing_mut().synced.is_empty());
}

#[test]
fn a_directory_of_files_keeps_a_checkpoint_and_belongs_to_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let open = || crate::Files::open(directory.path());
    let mut arena = Arena::open(open().unwrap(), CAP).unwrap();
    arena.put(vec![1], vec![7; 60], b"note".to_vec()).unwrap();
    arena.checkpoint().unwrap();
    arena.put(vec![2], vec![8; 60], Vec::new()).unwrap();
    assert!(open().unwrap_err().to_string().contains("is in use"));
    drop(arena);
    let mut arena = Arena::open(open().unwrap(), CAP).unwrap();
    assert_eq!(arena.notes().collect::<Vec<_>>(), [(&vec![1], &b"note"[..])]);
    assert_eq!(arena.read(&[1]).unwrap(), [7; 60]);
    drop(arena);
    std::fs::write(directory.path().join("index"), b"TSVM\x02 of a newer hub").unwrap();
    let arena = Arena::open(open().unwrap(), CAP).unwrap();
    assert_eq!((arena.notes().count(), arena.discarded()), (0, 1), "what cannot be read is computed again");
}
