//! What jobs need of the agents that run them, each need that some job has by a small number.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;

use slab::Slab;
use tessera_protocol::spec::Region;

use super::roster::Number;
use crate::message::Work;

/// An amount of memory in steps of a quarter of a power of two.
///
/// Both a need and what is kept are rounded so that an agent which could just run a job counts as able: one that
/// cannot after all says so, and the shard goes elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Memory(u16);

impl Memory {
    pub(super) fn of(bytes: u64) -> Memory {
        let Some(octave) = bytes.checked_ilog2() else { return Memory(0) };
        let quarter = ((u128::from(bytes) * 4) >> octave) as u16 - 4;
        Memory(1 + octave as u16 * 4 + quarter)
    }
}

/// What an agent must have to run a job's shards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) kernel: Arc<str>,
    pub(super) memory: Memory,
    /// Of one GPU; the least of all where it needs none.
    pub(super) gpu: Memory,
    /// What that GPU may be, in lower case; empty for any.
    pub(super) models: Arc<[String]>,
    /// Where it may be; empty for anywhere.
    pub(super) regions: Arc<[Region]>,
}

impl Need {
    /// What a job's shards take.
    pub(super) fn of(work: &Work) -> Need {
        Need {
            kernel: work.plan.kernel().clone(),
            memory: Memory::of(work.plan.operand_bytes()),
            gpu: work.requirements.gpu_bytes().map(Memory::of).unwrap_or_default(),
            models: work.requirements.gpu_models().iter().map(|model| model.to_ascii_lowercase()).collect(),
            regions: work.requirements.regions().into(),
        }
    }

    /// Whether a GPU that is called so, in lower case, is one of those it may be.
    pub(super) fn names(&self, gpu: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|model| gpu.contains(&**model))
    }

    /// Whether an agent may be there.
    pub(super) fn allows(&self, region: &str) -> bool {
        self.regions.is_empty() || self.regions.iter().any(|allowed| allowed.as_str() == region)
    }
}

/// Names a need that some job has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NeedNo(u32);

impl Number for NeedNo {
    fn new(at: usize) -> NeedNo {
        NeedNo(at as u32)
    }

    fn at(self) -> usize {
        self.0 as usize
    }
}

/// The needs that jobs have.
#[derive(Debug, Default)]
pub(super) struct Needs {
    numbers: BTreeMap<Arc<Need>, NeedNo>,
    /// Each with how many jobs have it.
    known: Slab<(Arc<Need>, u32)>,
}

impl Needs {
    /// A job has this need. *Returns* its number, and whether no other has it.
    pub(super) fn join(&mut self, need: Need) -> (NeedNo, bool) {
        if let Some(number) = self.numbers.get(&need).copied() {
            self.known[number.at()].1 += 1;
            return (number, false);
        }
        let need = Arc::new(need);
        let number = NeedNo::new(self.known.insert((need.clone(), 1)));
        self.numbers.insert(need, number);
        (number, true)
    }

    /// A job has it no longer.
    pub(super) fn leave(&mut self, number: NeedNo) {
        let (need, jobs) = &mut self.known[number.at()];
        *jobs -= 1;
        if *jobs == 0 {
            self.numbers.remove(need);
            self.known.remove(number.at());
        }
    }

    /// *Panics*: when no job has it.
    pub(super) fn get(&self, number: NeedNo) -> &Need {
        &self.known[number.at()].0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NeedNo, &Need)> {
        self.known.iter().map(|(at, (need, _))| (NeedNo::new(at), &**need))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_is_never_a_lower_step_and_a_quarter_more_is_a_higher_one() {
        let mut before = Memory::of(0);
        for bytes in (0..10_000).chain([1 << 40, u64::MAX]) {
            let memory = Memory::of(bytes);
            assert!(memory >= before, "{bytes}");
            before = memory;
            if (4..1 << 50).contains(&bytes) {
                assert!(Memory::of(bytes + bytes.div_ceil(4)) > memory, "{bytes}");
            }
        }
    }

    #[test]
    fn a_need_keeps_its_number_until_its_last_job_has_gone() {
        let need = |kernel: &str| Need {
            kernel: kernel.into(),
            memory: Memory::default(),
            gpu: Memory::default(),
            models: Arc::default(),
            regions: Arc::default(),
        };
        let mut needs = Needs::default();
        let (first, _) = needs.join(need("first"));
        let (second, _) = needs.join(need("second"));
        assert_eq!((needs.join(need("first")), first == second), ((first, false), false));
        needs.leave(first);
        assert_eq!(&*needs.get(first).kernel, "first");
        needs.leave(first);
        assert_eq!(needs.join(need("third")), (first, true));
        assert_eq!(needs.iter().map(|(number, _)| number).collect::<alloc::vec::Vec<_>>(), [first, second]);
    }
}
