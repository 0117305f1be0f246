//! Tiles of which not all panels are in: sums in the arena, panels added in ascending order whatever order they came in.
//!
//! Owns the keys and notes of its blocks. Adds elements; of jobs it knows their ids and of who is paid, nothing.

use std::collections::BTreeSet;
use std::fmt;

use tessera_planners::add_panel;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::spec::Dtype;

use crate::arena::{Arena, ArenaError};
use crate::backing::Backing;

/// A verified panel of a tile.
#[derive(Clone, Debug)]
pub struct Panel {
    /// The job.
    pub job: JobId,
    /// The plan that cuts it.
    pub plan: Digest,
    /// The tile's position.
    pub tile: u64,
    /// Which panel of it.
    pub panel: u64,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Comes back with the panel after a crash.
    pub note: Vec<u8>,
}

/// A panel that the last checkpoint saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The job.
    pub job: JobId,
    /// The plan that cuts it.
    pub plan: Digest,
    /// The tile's position.
    pub tile: u64,
    /// Which panel of it.
    pub panel: u64,
    /// What was left with it.
    pub note: Vec<u8>,
}

/// Why a panel was not kept, or a tile is not to be had.
#[derive(Debug)]
pub enum KeepError {
    /// The sum left the finite numbers; the tile is forgotten.
    NotFinite,
    /// What was kept of the tile is gone: all of its panels are computed again.
    Lost,
    /// Nothing changed; it may be tried again.
    Arena(ArenaError),
}

impl fmt::Display for KeepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeepError::NotFinite => f.write_str("a sum of panels is too large for its type"),
            KeepError::Lost => f.write_str("the sum of a tile is lost; its panels are computed again"),
            KeepError::Arena(error) => write!(f, "a panel cannot be kept: {error}"),
        }
    }
}

impl std::error::Error for KeepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            KeepError::Arena(error) => Some(error),
            KeepError::NotFinite | KeepError::Lost => None,
        }
    }
}

/// The open tiles of all jobs.
#[derive(Debug)]
pub struct Folds<B> {
    arena: Arena<B>,
}

/// What is noted with a block: the plan, the first panel that is not in, and the notes of the panels that are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    plan: Digest,
    next: u64,
    panels: Vec<Vec<u8>>,
}

impl Note {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = [&self.plan.0[..], &self.next.to_le_bytes()].concat();
        for panel in &self.panels {
            bytes.extend((panel.len() as u32).to_le_bytes());
            bytes.extend(panel);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Note> {
        let (plan, rest) = bytes.split_first_chunk()?;
        let (next, mut rest) = rest.split_first_chunk()?;
        let mut panels = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk()?;
            let (panel, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            panels.push(panel.to_vec());
            rest = after;
        }
        Some(Note { plan: Digest(*plan), next: u64::from_le_bytes(*next), panels })
    }
}

/// The sum of a tile's first panels lies before its panels that came early.
fn sum_key(job: JobId, tile: u64) -> Vec<u8> {
    [&tile_key(job, tile)[..], &0_u64.to_be_bytes()].concat()
}

fn early_key(job: JobId, tile: u64, panel: u64) -> Vec<u8> {
    [&tile_key(job, tile)[..], &(panel + 1).to_be_bytes()].concat()
}

fn tile_key(job: JobId, tile: u64) -> Vec<u8> {
    [&job.0[..], &tile.to_be_bytes()].concat()
}

/// Job, tile, and the panel of one that came early.
fn place(key: &[u8]) -> Option<(JobId, u64, Option<u64>)> {
    let (job, rest) = key.split_first_chunk()?;
    let (tile, rest) = rest.split_first_chunk()?;
    let panel = u64::from_be_bytes(rest.try_into().ok()?);
    Some((JobId(*job), u64::from_be_bytes(*tile), panel.checked_sub(1)))
}

impl<B: Backing> Folds<B> {
    /// Goes on from what the arena holds.
    pub fn new(arena: Arena<B>) -> Folds<B> {
        Folds { arena }
    }

    /// Keeps a panel: adds it to the sum where those before it are in, and puts it aside where not. One that is in
    /// already changes nothing.
    pub fn keep(&mut self, of: &Panel, bytes: &[u8]) -> Result<(), KeepError> {
        let kept = self.keep_or_lose(of, bytes);
        if let Err(KeepError::NotFinite | KeepError::Lost) = &kept {
            self.forget_tile(of.job, of.tile);
        }
        kept
    }

    fn keep_or_lose(&mut self, of: &Panel, bytes: &[u8]) -> Result<(), KeepError> {
        let sum = sum_key(of.job, of.tile);
        let early = early_key(of.job, of.tile, of.panel);
        let known = self.arena.note(&sum).map(Note::decode);
        let next = match known {
            Some(Some(note)) if note.plan == of.plan => note.next,
            // Of another plan, or not ours.
            Some(_) => {
                self.forget_tile(of.job, of.tile);
                0
            }
            None => 0,
        };
        if of.panel < next || self.is_early(of, &early) {
            return Ok(());
        }
        let note = Note { plan: of.plan, next: of.panel + 1, panels: vec![of.note.clone()] }.encode();
        if of.panel > next {
            return self.arena.put(early, bytes.to_vec(), note).map_err(arena);
        }
        if next == 0 {
            self.arena.put(sum, bytes.to_vec(), note).map_err(arena)?;
        } else {
            self.add(&sum, bytes, of.dtype, std::slice::from_ref(&of.note))?;
        }
        match self.add_early(of.job, of.tile, of.dtype) {
            // The panel is in, and what came early is added with the next or at the end.
            Ok(()) | Err(KeepError::Arena(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn is_early(&self, of: &Panel, early: &[u8]) -> bool {
        self.arena.note(early).and_then(Note::decode).is_some_and(|note| note.plan == of.plan)
    }

    fn add(&mut self, sum: &[u8], panel: &[u8], dtype: Dtype, notes: &[Vec<u8>]) -> Result<(), KeepError> {
        let added = self.arena.update(sum, |sum, note| {
            let Some(mut noted) = Note::decode(note) else { return Err(KeepError::Lost) };
            add_panel(sum, panel, dtype).map_err(|_| KeepError::NotFinite)?;
            noted.next += 1;
            noted.panels.extend_from_slice(notes);
            *note = noted.encode();
            Ok(())
        });
        added.map_err(arena)?
    }

    fn add_early(&mut self, job: JobId, tile: u64, dtype: Dtype) -> Result<(), KeepError> {
        let sum = sum_key(job, tile);
        while let Some(next) = self.arena.note(&sum).and_then(Note::decode).map(|note| note.next) {
            let early = early_key(job, tile, next);
            let Some(note) = self.arena.note(&early).and_then(Note::decode) else { return Ok(()) };
            let bytes = self.arena.read(&early).map_err(arena)?.to_vec();
            self.add(&sum, &bytes, dtype, &note.panels)?;
            self.arena.forget(&early);
        }
        Ok(())
    }

    /// A tile of which all `panels` were kept.
    pub fn tile(
        &mut self,
        job: JobId,
        tile: u64,
        (panels, dtype): (u64, Dtype),
    ) -> Result<Vec<u8>, KeepError> {
        let whole = self.whole(job, tile, (panels, dtype));
        if let Err(KeepError::NotFinite | KeepError::Lost) = &whole {
            self.forget_tile(job, tile);
        }
        whole
    }

    fn whole(&mut self, job: JobId, tile: u64, (panels, dtype): (u64, Dtype)) -> Result<Vec<u8>, KeepError> {
        self.add_early(job, tile, dtype)?;
        let sum = sum_key(job, tile);
        let next = self.arena.note(&sum).and_then(Note::decode).map(|note| note.next);
        if next != Some(panels) {
            return Err(KeepError::Lost);
        }
        Ok(self.arena.read(&sum).map_err(arena)?.to_vec())
    }

    /// A tile is durable elsewhere, or wanted no more.
    pub fn forget_tile(&mut self, job: JobId, tile: u64) {
        self.forget_under(&tile_key(job, tile));
    }

    /// A job ended.
    pub fn forget_job(&mut self, job: JobId) {
        self.forget_under(&job.0);
    }

    fn forget_under(&mut self, prefix: &[u8]) {
        for key in self.arena.keys_under(prefix) {
            self.arena.forget(&key);
        }
    }

    /// Jobs of which anything is here.
    pub fn jobs(&self) -> BTreeSet<JobId> {
        self.arena.notes().filter_map(|(key, _)| place(key)).map(|(job, ..)| job).collect()
    }

    /// The panels that are here, each with its note.
    pub fn found(&self) -> Vec<Found> {
        let mut all = Vec::new();
        for (key, note) in self.arena.notes() {
            let Some(((job, tile, early), note)) = place(key).zip(Note::decode(note)) else { continue };
            let first = early.unwrap_or(0);
            for (panel, noted) in (first..).zip(note.panels) {
                all.push(Found { job, plan: note.plan, tile, panel, note: noted });
            }
        }
        all
    }

    /// The blocks.
    pub fn arena(&self) -> &Arena<B> {
        &self.arena
    }

    /// The blocks.
    pub fn arena_mut(&mut self) -> &mut Arena<B> {
        &mut self.arena
    }

    /// Ends it as a crash does.
    pub fn into_backing(self) -> B {
        self.arena.into_backing()
    }
}

fn arena(error: ArenaError) -> KeepError {
    match error {
        ArenaError::Damaged | ArenaError::Unknown => KeepError::Lost,
        error => KeepError::Arena(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::Volatile;

    const JOB: JobId = JobId([7; 16]);

    fn folds() -> Folds<Volatile> {
        Folds::new(Arena::open(Volatile::default(), 32).unwrap())
    }

    fn panel(panel: u64) -> Panel {
        let (plan, note) = (Digest([1; 32]), vec![panel as u8]);
        Panel { job: JOB, plan, tile: 3, panel, dtype: Dtype::F64, note }
    }

    fn keep(folds: &mut Folds<Volatile>, at: u64, value: f64) -> Result<(), KeepError> {
        // Two blocks fit, three do not.
        folds.keep(&panel(at), &[value.to_le_bytes(), [0; 8]].concat())
    }

    fn sum(folds: &mut Folds<Volatile>, panels: u64) -> Result<f64, KeepError> {
        let bytes = folds.tile(JOB, 3, (panels, Dtype::F64))?;
        Ok(f64::from_le_bytes(bytes[..8].try_into().unwrap()))
    }

    #[test]
    fn panels_are_added_in_ascending_order_whatever_order_they_came_in() {
        // Added in another order, the large ones swallow the one.
        let panels = [1e16, -1e16, 1.0];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut folds = folds();
            for at in order {
                keep(&mut folds, at, panels[at as usize]).unwrap();
                keep(&mut folds, at, panels[at as usize]).unwrap();
            }
            assert_eq!(sum(&mut folds, 3).unwrap(), 1.0, "{order:?}");
            assert_eq!(folds.found().len(), 3, "each was counted once");
            folds.forget_tile(JOB, 3);
            assert!(folds.jobs().is_empty());
        }
    }

    #[test]
    fn what_a_checkpoint_saw_is_found_with_its_notes_and_goes_on() {
        let mut folds = folds();
        for at in [0, 1, 3] {
            keep(&mut folds, at, 1.0).unwrap();
        }
        folds.arena_mut().checkpoint().unwrap();
        keep(&mut folds, 2, 1.0).unwrap();
        let mut folds = Folds::new(Arena::open(folds.into_backing(), 32).unwrap());
        let found: Vec<(u64, Vec<u8>)> =
            folds.found().into_iter().map(|found| (found.panel, found.note)).collect();
        assert_eq!(found, [(0, vec![0]), (1, vec![1]), (3, vec![3])]);
        keep(&mut folds, 2, 1.0).unwrap();
        assert_eq!(sum(&mut folds, 4).unwrap(), 4.0);
    }

    #[test]
    fn a_tile_without_all_of_its_panels_is_lost_and_not_half_a_sum() {
        let mut folds = folds();
        keep(&mut folds, 0, 1.0).unwrap();
        assert!(matches!(sum(&mut folds, 2), Err(KeepError::Lost)));
        assert!(folds.jobs().is_empty());
    }

    #[test]
    fn a_sum_that_leaves_the_finite_numbers_is_an_error() {
        let mut folds = folds();
        keep(&mut folds, 1, f64::MAX).unwrap();
        assert!(matches!(keep(&mut folds, 0, f64::MAX), Err(KeepError::NotFinite)));
    }

    #[test]
    fn panels_of_another_plan_do_not_mix() {
        let mut folds = folds();
        keep(&mut folds, 0, 5.0).unwrap();
        folds.keep(&Panel { plan: Digest([2; 32]), ..panel(0) }, &[0; 16]).unwrap();
        assert_eq!(sum(&mut folds, 1).unwrap(), 0.0);
    }
}
