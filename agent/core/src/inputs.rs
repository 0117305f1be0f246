//! Files that are here and on the way, and memory for what kernels make of them.
//!
//! Owns which job has room for its operands, which files are kept, and the one fetch that is under way.
//! Never holds a byte of them: the shell does. Room is given to whole jobs, in the order in which their
//! shards came, so that no two jobs hold half of it each and wait for the other half. When there is none,
//! files that no job needs go first, then the operands of jobs without shards in flight; a job that still
//! finds none waits. Files lie on the disk, what is read of them in memory: each has a limit of its own.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use tessera_protocol::id::JobId;
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::unit::Tick;
use tessera_protocol::wire::AgentWork;

use crate::effect::{Effect, FetchSerial};
use crate::task::{InputFile, Operands, Unusable, UnusableJob};
use crate::violation::Violation;

/// How long a piece may take: 70 kB/s. *Units*: milliseconds.
pub(crate) const PIECE_MS_MAX: u64 = 60_000;
/// Most pieces remembered that were asked for and are not wanted any more.
const STRAYS_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Wanted,
    Fetching,
    Kept,
}

#[derive(Clone, Copy, Debug)]
struct File {
    state: State,
    /// Jobs with room that read it.
    readers: usize,
    /// When it was last let go; the lowest goes first.
    let_go: u64,
}

/// What the fetch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Piece {
        until: Tick,
    },
    /// The shell looks at the piece.
    Store,
    /// Nothing: the hub cannot send it to the job in whose name it was asked for.
    Refused,
}

#[derive(Debug)]
struct Fetch {
    serial: FetchSerial,
    file: InputFile,
    /// The job in whose name it is asked for, and the file's position in its task.
    job: JobId,
    input: u32,
    offset: u64,
    awaits: Awaits,
}

impl Fetch {
    fn piece_bytes(&self) -> u64 {
        INPUT_PIECE_BYTES.min(self.file.bytes - self.offset)
    }

    fn ask(&mut self, now: Tick) -> Effect {
        self.awaits = Awaits::Piece { until: now.after_ms(PIECE_MS_MAX) };
        let (job, input, offset) = (self.job.0, self.input, self.offset);
        Effect::SendWork(AgentWork::Fetch { job, input, offset })
    }
}

/// How a job stands that wants its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// All are here or can be made.
    Ready,
    /// They are on the way.
    Gathering,
    /// Other jobs hold the room.
    NoRoom,
}

fn file_bytes<'a>(inputs: impl IntoIterator<Item = &'a InputFile>) -> u64 {
    inputs.into_iter().map(|input| input.bytes).sum()
}

/// Files, room and the fetch.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// What kernels may take of memory for operands.
    bytes_max: u64,
    /// What files may take of the disk.
    cache_bytes_max: u64,
    files: BTreeMap<InputFile, File>,
    /// What each job with room holds.
    rooms: BTreeMap<JobId, Operands>,
    fetch: Option<Fetch>,
    /// Of the last fetch.
    serial: FetchSerial,
    /// Counts lettings go.
    let_go: u64,
    /// Pieces that may still come although nobody wants them.
    strays: VecDeque<(JobId, u32, u64)>,
}

impl Inputs {
    /// With so many bytes of memory and so many on disk, and files that are there already, the
    /// one that was used longest ago first. *Panics*: if those need more.
    pub(crate) fn new(bytes_max: u64, cache_bytes_max: u64, kept: Vec<InputFile>) -> Inputs {
        assert!(file_bytes(&kept) <= cache_bytes_max, "more is kept than there is room for");
        let let_go = kept.len() as u64;
        let file = |let_go| File { state: State::Kept, readers: 0, let_go };
        Inputs {
            bytes_max,
            cache_bytes_max,
            files: kept.into_iter().zip(1..).map(|(input, let_go)| (input, file(let_go))).collect(),
            rooms: BTreeMap::new(),
            fetch: None,
            serial: FetchSerial(0),
            let_go,
            strays: VecDeque::new(),
        }
    }

    /// Whether there could ever be room.
    pub(crate) fn check(&self, operands: &Operands) -> Result<(), Unusable> {
        let (bytes, bytes_max) = (operands.least_bytes, self.bytes_max);
        if bytes > bytes_max {
            return Err(Unusable::TooLarge { bytes, bytes_max });
        }
        let (bytes, bytes_max) = (operands.file_bytes(), self.cache_bytes_max);
        if bytes > bytes_max { Err(Unusable::CacheTooSmall { bytes, bytes_max }) } else { Ok(()) }
    }

    /// Gives a job room for its operands where there is, and says whether they are all there. Room of
    /// `idle` jobs is taken where it must be: they are added to `evicted`.
    pub(crate) fn claim(
        &mut self,
        now: Tick,
        job: JobId,
        operands: &Operands,
        idle: &dyn Fn(JobId) -> bool,
        evicted: &mut Vec<JobId>,
    ) -> (Claim, Vec<Effect>) {
        let mut effects = Vec::new();
        if !self.rooms.contains_key(&job) {
            if !self.make_room(now, job, operands, idle, evicted, &mut effects) {
                return (Claim::NoRoom, effects);
            }
            for file in &operands.files {
                let wanted = File { state: State::Wanted, readers: 0, let_go: 0 };
                self.files.entry(*file).or_insert(wanted).readers += 1;
            }
            self.rooms.insert(job, operands.clone());
        }
        let missing = |file: &InputFile| self.files.get(file).is_none_or(|file| file.state != State::Kept);
        let claim = if operands.files.iter().any(missing) { Claim::Gathering } else { Claim::Ready };
        effects.extend(self.fetch_next(now));
        (claim, effects)
    }

    /// A piece came. What is to be done with it, or nothing where nobody wants it any more.
    pub(crate) fn piece_arrived(
        &mut self,
        job: JobId,
        input: u32,
        offset: u64,
        piece: Vec<u8>,
    ) -> Result<Option<Effect>, Violation> {
        let asked = |fetch: &&mut Fetch| {
            (fetch.job, fetch.input, fetch.offset) == (job, input, offset) && fetch.awaits != Awaits::Store
        };
        let Some(fetch) = self.fetch.as_mut().filter(asked) else {
            let stray = self.strays.iter().position(|stray| *stray == (job, input, offset));
            let at = stray.ok_or(Violation::PieceUnasked { job, input, offset })?;
            self.strays.remove(at);
            return Ok(None);
        };
        let (bytes, expected) = (piece.len() as u64, fetch.piece_bytes());
        if bytes != expected {
            return Err(Violation::PieceSize { job, input, bytes, expected });
        }
        fetch.awaits = Awaits::Store;
        Ok(Some(Effect::StorePiece { fetch: fetch.serial, input: fetch.file, offset, piece }))
    }

    /// The shell has taken a piece.
    pub(crate) fn piece_stored(&mut self, now: Tick, serial: FetchSerial) -> Vec<Effect> {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.serial == serial) else {
            return Vec::new();
        };
        fetch.offset += fetch.piece_bytes();
        if fetch.offset < fetch.file.bytes {
            return alloc::vec![fetch.ask(now)];
        }
        if let Some(file) = self.files.get_mut(&fetch.file) {
            file.state = State::Kept;
        }
        self.fetch = None;
        self.fetch_next(now).into_iter().collect()
    }

    /// The shell found that the bytes are of no use: whose they were, unless nobody's any more.
    pub(crate) fn rejected(&mut self, serial: FetchSerial) -> Vec<JobId> {
        match &self.fetch {
            Some(fetch) if fetch.serial == serial => self.readers_of(&fetch.file),
            _ => Vec::new(),
        }
    }

    /// The hub cannot send what was asked for: whose it was, unless nobody's any more.
    pub(crate) fn unavailable(&mut self, job: JobId, input: u32) -> Result<Option<UnusableJob>, Violation> {
        match &mut self.fetch {
            Some(fetch) if (fetch.job, fetch.input) == (job, input) && fetch.awaits != Awaits::Store => {
                fetch.awaits = Awaits::Refused;
                let reason = Unusable::Unavailable { input: fetch.file };
                Ok(Some((job, reason)))
            }
            _ => {
                let stray = self.strays.iter().position(|stray| (stray.0, stray.1) == (job, input));
                let at = stray.ok_or(Violation::InputUnasked { job, input })?;
                self.strays.remove(at);
                Ok(None)
            }
        }
    }

    /// When the piece that is awaited is late.
    pub(crate) fn late_at(&self) -> Option<Tick> {
        match self.fetch.as_ref()?.awaits {
            Awaits::Piece { until } => Some(until),
            Awaits::Store | Awaits::Refused => None,
        }
    }

    /// The job whose piece is late.
    pub(crate) fn late(&self, now: Tick) -> Option<UnusableJob> {
        let fetch = self.fetch.as_ref()?;
        let late = self.late_at().is_some_and(|until| until <= now);
        late.then_some((fetch.job, Unusable::Late { input: fetch.file }))
    }

    /// A job needs its operands no more. Files stay for others until room is wanted; a fetch goes on in the
    /// name of another reader.
    pub(crate) fn let_go(&mut self, now: Tick, job: JobId) -> Vec<Effect> {
        let Some(operands) = self.rooms.remove(&job) else { return Vec::new() };
        self.let_go += 1;
        let mut effects = Vec::new();
        for name in operands.files {
            let Some(file) = self.files.get_mut(&name) else { continue };
            (file.readers, file.let_go) = (file.readers - 1, self.let_go);
            match file.state {
                State::Wanted if file.readers == 0 => drop(self.files.remove(&name)),
                State::Fetching => effects.extend(self.fetch_for_another(now, job, name)),
                State::Wanted | State::Kept => {}
            }
        }
        effects.extend(self.fetch_next(now));
        effects
    }

    /// The session is gone, and with it every job. Whole files stay.
    pub(crate) fn session_over(&mut self) -> Vec<Effect> {
        self.rooms.clear();
        self.strays.clear();
        self.let_go += 1;
        let fetch = self.fetch.take();
        self.files.retain(|_, file| {
            (file.readers, file.let_go) = (0, self.let_go);
            file.state == State::Kept
        });
        fetch.into_iter().map(|fetch| Effect::DropInput { input: fetch.file }).collect()
    }

    /// Memory that is given away.
    fn bytes(&self) -> u64 {
        self.rooms.values().map(|operands| operands.room(self.bytes_max)).sum()
    }

    fn make_room(
        &mut self,
        now: Tick,
        job: JobId,
        operands: &Operands,
        idle: &dyn Fn(JobId) -> bool,
        evicted: &mut Vec<JobId>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        loop {
            let missing = operands.files.iter().filter(|file| !self.files.contains_key(file));
            let is_full = self.bytes() + operands.room(self.bytes_max) > self.bytes_max;
            let is_disk_full = file_bytes(self.files.keys()) + file_bytes(missing) > self.cache_bytes_max;
            if !is_full && !is_disk_full {
                return true;
            }
            // A file that nobody reads holds no memory.
            let unread = self.files.iter().filter(|(name, file)| {
                is_disk_full
                    && file.readers == 0
                    && file.state == State::Kept
                    && !operands.files.contains(name)
            });
            if let Some((name, _)) = unread.min_by_key(|(_, file)| file.let_go) {
                let input = *name;
                self.files.remove(&input);
                effects.push(Effect::DropInput { input });
                continue;
            }
            let Some(other) = self.rooms.keys().copied().find(|other| *other != job && idle(*other)) else {
                return false;
            };
            evicted.push(other);
            effects.extend(self.let_go(now, other));
        }
    }

    /// Begins the next fetch where none is under way.
    fn fetch_next(&mut self, now: Tick) -> Option<Effect> {
        if self.fetch.is_some() {
            return None;
        }
        let (file, (job, input)) = self.files.iter().find_map(|(name, file)| {
            (file.state == State::Wanted).then(|| Some((*name, self.reader_of(name)?))).flatten()
        })?;
        self.serial = FetchSerial(self.serial.0 + 1);
        self.files.get_mut(&file)?.state = State::Fetching;
        let fetch = Fetch { serial: self.serial, file, job, input, offset: 0, awaits: Awaits::Store };
        Some(self.fetch.insert(fetch).ask(now))
    }

    /// The fetch of a file whose asker has let go.
    fn fetch_for_another(&mut self, now: Tick, job: JobId, name: InputFile) -> Option<Effect> {
        let other = self.reader_of(&name);
        let fetch = self.fetch.as_mut().filter(|fetch| fetch.job == job)?;
        if let Awaits::Piece { .. } = fetch.awaits {
            if self.strays.len() >= STRAYS_MAX {
                self.strays.pop_front();
            }
            self.strays.push_back((fetch.job, fetch.input, fetch.offset));
        }
        match other {
            Some((job, input)) => {
                (fetch.job, fetch.input) = (job, input);
                (fetch.awaits != Awaits::Store).then(|| fetch.ask(now))
            }
            None => {
                self.fetch = None;
                self.files.remove(&name);
                Some(Effect::DropInput { input: name })
            }
        }
    }

    fn reader_of(&self, name: &InputFile) -> Option<(JobId, u32)> {
        self.rooms.iter().find_map(|(job, operands)| {
            let input = operands.files.iter().position(|file| file == name)?;
            Some((*job, u32::try_from(input).ok()?))
        })
    }

    fn readers_of(&self, name: &InputFile) -> Vec<JobId> {
        let reads = |(job, operands): (&JobId, &Operands)| operands.files.contains(name).then_some(*job);
        self.rooms.iter().filter_map(reads).collect()
    }

    /// Panics when files, rooms and the fetch disagree.
    pub(crate) fn invariants(&self) {
        assert!(self.bytes() <= self.bytes_max, "more memory is given away than there is");
        assert!(file_bytes(self.files.keys()) <= self.cache_bytes_max, "more is on disk than may be");
        for (name, file) in &self.files {
            assert_eq!(file.readers, self.readers_of(name).len());
            assert!(file.readers > 0 || file.state == State::Kept, "{name:?} is wanted by nobody");
            let fetched = self.fetch.as_ref().is_some_and(|fetch| fetch.file == *name);
            assert_eq!(file.state == State::Fetching, fetched);
        }
        assert!(self.rooms.values().flat_map(|room| &room.files).all(|name| self.files.contains_key(name)));
        let wanted = self.files.values().any(|file| file.state == State::Wanted);
        assert!(!wanted || self.fetch.is_some(), "a file is wanted and none is fetched");
        if let Some(fetch) = &self.fetch {
            let room = self.rooms.get(&fetch.job).and_then(|room| room.files.get(fetch.input as usize));
            assert_eq!(room, Some(&fetch.file), "a fetch is in the name of a reader");
            assert!(fetch.offset < fetch.file.bytes);
        }
    }

    /// The jobs that have room.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = JobId> {
        self.rooms.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use tessera_protocol::id::Digest;

    const JOBS: [JobId; 2] = [JobId([1; 16]), JobId([2; 16])];

    fn file(number: u8, bytes: u64) -> InputFile {
        InputFile { blake3: Digest([number; 32]), bytes }
    }

    fn operands(files: &[InputFile]) -> Operands {
        Operands { files: files.to_vec(), ..Operands::default() }
    }

    fn holding(least_bytes: u64, most_bytes: u64) -> Operands {
        Operands { files: Vec::new(), least_bytes, most_bytes }
    }

    #[test]
    fn files_that_were_used_longest_ago_leave_the_disk_for_others() {
        let [old, new, wanted] = [1, 2, 3].map(|number| file(number, 40));
        // The one used longest ago has not the smallest digest. Files take nothing of the memory.
        let mut inputs = Inputs::new(10, 100, vec![new, old]);
        inputs.invariants();
        let mut evicted = Vec::new();
        let (claim, effects) = inputs.claim(Tick(0), JOBS[0], &operands(&[wanted]), &|_| false, &mut evicted);
        assert_eq!((claim, effects[0].clone()), (Claim::Gathering, Effect::DropInput { input: new }));
        inputs.invariants();
        assert!(evicted.is_empty());
        let (claim, effects) =
            inputs.claim(Tick(0), JOBS[1], &operands(&[file(5, 60)]), &|_| false, &mut evicted);
        assert_eq!(effects, [Effect::DropInput { input: old }]);
        assert_eq!(claim, Claim::Gathering);
        inputs.invariants();
        let third = operands(&[file(6, 1)]);
        let (claim, _) = inputs.claim(Tick(0), JobId([3; 16]), &third, &|_| false, &mut evicted);
        assert_eq!(claim, Claim::NoRoom, "both are being read");
    }

    #[test]
    fn a_job_whose_files_never_fit_the_disk_is_refused_with_the_provider_s_limit() {
        let inputs = Inputs::new(10, 100, Vec::new());
        assert_eq!(inputs.check(&operands(&[file(1, 100)])), Ok(()));
        let refused = inputs.check(&operands(&[file(1, 60), file(2, 41)]));
        let reason = Unusable::CacheTooSmall { bytes: 101, bytes_max: 100 };
        assert_eq!(refused, Err(reason));
        assert!(alloc::format!("{reason}").contains("--cache-bytes"));
    }

    #[test]
    fn operands_larger_than_memory_take_half_of_it_and_leave_room_for_another_job() {
        let mut inputs = Inputs::new(100, 100, Vec::new());
        let huge = holding(20, 1_000_000);
        assert_eq!(inputs.check(&huge), Ok(()));
        assert_eq!(inputs.check(&holding(101, 101)), Err(Unusable::TooLarge { bytes: 101, bytes_max: 100 }));
        let mut evicted = Vec::new();
        for job in JOBS {
            let (claim, _) = inputs.claim(Tick(0), job, &huge, &|_| false, &mut evicted);
            assert_eq!((claim, inputs.bytes()), (Claim::Ready, 50 * u64::from(job.0[0])));
            inputs.invariants();
        }
        let third = JobId([3; 16]);
        let (claim, _) = inputs.claim(Tick(0), third, &holding(20, 30), &|_| false, &mut evicted);
        assert_eq!(claim, Claim::NoRoom);
        let (claim, _) = inputs.claim(Tick(0), third, &holding(20, 30), &|_| true, &mut evicted);
        assert_eq!((claim, &evicted[..]), (Claim::Ready, &JOBS[..1]), "an idle job lets its memory go");
        inputs.invariants();
    }
}
