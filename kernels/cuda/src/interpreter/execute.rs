//! Grids, blocks and threads.
//!
//! Owns the machine: memory and the execution of a launch. One thread runs until it ends or waits.

use std::collections::HashMap;

use super::PtxError;
use super::memory::{Memory, load, store};
use super::parse::{Atomic, Instruction, Kernel, Module, Place, Space, Special, Width};
use crate::backend::Argument;

/// A device that is none: memory, and launches one after another.
#[derive(Debug, Default)]
pub struct Machine {
    memory: Memory,
    /// Instructions executed by all launches.
    executed: u64,
    /// The last block and thread first.
    backwards: bool,
    /// Which instructions of each kernel were ever executed.
    reached: HashMap<String, Vec<bool>>,
}

/// Where a thread goes on, or that it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Barrier { next: usize },
    End,
}

impl Machine {
    /// The address of a new buffer, zeroed.
    pub fn allocate(&mut self, bytes: usize) -> u64 {
        self.memory.allocate(bytes)
    }

    /// Gives a buffer back.
    pub fn free(&mut self, address: u64) {
        self.memory.free(address);
    }

    /// So many bytes from an address on. *Errors*: [`PtxError::Address`].
    pub fn bytes(&mut self, address: u64, bytes: usize) -> Result<&mut [u8], PtxError> {
        self.memory.bytes(address, bytes)
    }

    /// Instructions executed so far.
    pub fn executed(&self) -> u64 {
        self.executed
    }

    /// Of each kernel that ran: its name, and the numbers of the instructions that no thread ever came to.
    pub fn unreached(&self) -> Vec<(&str, Vec<usize>)> {
        let numbers = |reached: &[bool]| {
            reached.iter().enumerate().filter(|(_, reached)| !**reached).map(|(number, _)| number).collect()
        };
        let mut all: Vec<_> =
            self.reached.iter().map(|(name, reached)| (name.as_str(), numbers(reached))).collect();
        all.sort_unstable();
        all
    }

    /// Runs the last block and thread first from now on. A kernel that lacks a barrier gives other bytes then.
    pub fn turn_around(&mut self) {
        self.backwards = !self.backwards;
    }

    /// The numbers below `count`, in the order in which their owners run.
    fn order(&self, count: u32) -> impl Iterator<Item = u32> + use<> {
        let backwards = self.backwards;
        (0..count).map(move |number| if backwards { count - 1 - number } else { number })
    }

    /// Runs a grid of blocks of threads, all in one or two dimensions.
    pub fn launch(
        &mut self,
        module: &Module,
        name: &str,
        blocks: [u32; 2],
        threads: u32,
        arguments: &[Argument],
    ) -> Result<(), PtxError> {
        let kernel = module.kernel(name)?;
        let mut template = template(kernel, name, arguments)?;
        let mut reached = self.reached.remove(name).unwrap_or_else(|| vec![false; kernel.code.len()]);
        for y in self.order(blocks[1]) {
            for x in self.order(blocks[0]) {
                for (register, special) in &kernel.specials {
                    let value = match special {
                        Special::Thread(_) => continue,
                        Special::Threads(axis) => [threads, 1, 1][*axis],
                        Special::Block(axis) => [x, y, 0][*axis],
                        Special::Blocks(axis) => [blocks[0], blocks[1], 1][*axis],
                    };
                    template[*register as usize] = u64::from(value);
                }
                self.block(kernel, &template, threads, &mut reached)?;
            }
        }
        self.reached.insert(name.to_owned(), reached);
        Ok(())
    }

    /// Runs the threads of one block from barrier to barrier.
    fn block(
        &mut self,
        kernel: &Kernel,
        template: &[u64],
        threads: u32,
        reached: &mut [bool],
    ) -> Result<(), PtxError> {
        let mut shared = vec![0u8; kernel.shared_bytes];
        let fill = |registers: &mut [u64], thread: u32| {
            registers.copy_from_slice(template);
            for (register, special) in &kernel.specials {
                if let Special::Thread(axis) = special {
                    registers[*register as usize] = u64::from([thread, 0, 0][*axis]);
                }
            }
        };
        if !kernel.has_barriers {
            // Threads that never wait share one set of registers, which stays in the cache.
            let mut registers = vec![0; kernel.registers];
            for thread in self.order(threads) {
                fill(&mut registers, thread);
                self.thread(kernel, 0, &mut registers, &mut shared, reached)?;
            }
            return Ok(());
        }
        let mut files = vec![0; kernel.registers * threads as usize];
        for (thread, registers) in files.chunks_exact_mut(kernel.registers).enumerate() {
            fill(registers, thread as u32);
        }
        let mut stops = vec![Stop::Barrier { next: 0 }; threads as usize];
        loop {
            for thread in self.order(threads) {
                let stop = &mut stops[thread as usize];
                let registers = &mut files[thread as usize * kernel.registers..][..kernel.registers];
                if let Stop::Barrier { next } = *stop {
                    *stop = self.thread(kernel, next, registers, &mut shared, reached)?;
                }
            }
            let ended = stops.iter().filter(|stop| **stop == Stop::End).count();
            match ended {
                0 => {}
                all if all == stops.len() => return Ok(()),
                _ => return Err(PtxError::Barrier),
            }
        }
    }

    /// Runs one thread from an instruction on.
    fn thread(
        &mut self,
        kernel: &Kernel,
        first: usize,
        registers: &mut [u64],
        shared: &mut [u8],
        reached: &mut [bool],
    ) -> Result<Stop, PtxError> {
        let mut next = first;
        loop {
            let instruction = kernel.code[next];
            reached[next] = true;
            next += 1;
            self.executed += 1;
            match instruction {
                Instruction::One(does, to, a) => registers[to as usize] = does(registers[a as usize]),
                Instruction::Two(does, to, [a, b]) => {
                    registers[to as usize] = does(registers[a as usize], registers[b as usize]);
                }
                Instruction::Three(does, to, [a, b, c]) => {
                    registers[to as usize] =
                        does(registers[a as usize], registers[b as usize], registers[c as usize]);
                }
                Instruction::Four(does, to, from) => {
                    let [a, b, c, d] = from.map(|register| registers[register as usize]);
                    registers[to as usize] = does(a, b, c, d);
                }
                Instruction::Load(width, to, place) => {
                    registers[to as usize] = self.load(shared, &place, width, registers)?;
                }
                Instruction::Store(width, from, place) => {
                    self.store(shared, &place, width, registers, registers[from as usize])?;
                }
                Instruction::Reduce(atomic, width, from, place) => {
                    let (before, value) =
                        (self.load(shared, &place, width, registers)?, registers[from as usize]);
                    let after = match atomic {
                        Atomic::Add => before.wrapping_add(value),
                        Atomic::Max if value > before => value,
                        Atomic::Max => before,
                    };
                    self.store(shared, &place, width, registers, after)?;
                }
                Instruction::CompareAndSwap { width, found, place, compare, with } => {
                    let before = self.load(shared, &place, width, registers)?;
                    if before == registers[compare as usize] {
                        self.store(shared, &place, width, registers, registers[with as usize])?;
                    }
                    registers[found as usize] = before;
                }
                Instruction::Jump(target) => next = target,
                Instruction::JumpIf { predicate, unless, target } => {
                    if registers[predicate as usize] != unless {
                        next = target;
                    }
                }
                Instruction::Barrier => return Ok(Stop::Barrier { next }),
                Instruction::Return => return Ok(Stop::End),
            }
        }
    }

    #[inline]
    fn load(
        &mut self,
        shared: &[u8],
        place: &Place,
        width: Width,
        registers: &[u64],
    ) -> Result<u64, PtxError> {
        let address = registers[place.base as usize].wrapping_add(place.offset);
        match place.space {
            Space::Global => self.memory.load(address, width),
            Space::Shared => load(shared, address, width),
        }
    }

    #[inline]
    fn store(
        &mut self,
        shared: &mut [u8],
        place: &Place,
        width: Width,
        registers: &[u64],
        value: u64,
    ) -> Result<(), PtxError> {
        let address = registers[place.base as usize].wrapping_add(place.offset);
        match place.space {
            Space::Global => self.memory.store(address, width, value),
            Space::Shared => store(shared, address, width, value),
        }
    }
}

/// What the registers of every thread hold before it starts.
fn template(kernel: &Kernel, name: &str, arguments: &[Argument]) -> Result<Vec<u64>, PtxError> {
    let wrong = || PtxError::Arguments { kernel: name.to_owned() };
    if arguments.len() != kernel.parameters.len() {
        return Err(wrong());
    }
    let mut template = vec![0; kernel.registers];
    for (register, value) in &kernel.constants {
        template[*register as usize] = *value;
    }
    for ((register, bytes), argument) in kernel.parameters.iter().zip(arguments) {
        let (value, found) = argument.bits();
        if found != *bytes {
            return Err(wrong());
        }
        if let Some(register) = register {
            template[*register as usize] = value;
        }
    }
    Ok(template)
}
