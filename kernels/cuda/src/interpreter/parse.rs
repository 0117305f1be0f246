//! From PTX text to kernels whose operands are numbered registers.
//!
//! Owns the small part of PTX's grammar that NVRTC writes for our sources. Constants, parameters and special registers
//! get registers of their own, filled before a thread starts, so that an operand is never anything else.

use std::collections::HashMap;

use super::PtxError;
use super::opcode::{Operation, lint, operation};

/// The kernels of one PTX text.
#[derive(Debug)]
pub struct Module {
    kernels: HashMap<String, Kernel>,
}

/// One kernel, decoded.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) code: Vec<Instruction>,
    /// Registers of a thread.
    pub(super) registers: usize,
    /// Registers with a value that is known before the launch.
    pub(super) constants: Vec<(Register, u64)>,
    /// The register of each parameter, in order, where the kernel reads it, and its size in bytes.
    pub(super) parameters: Vec<(Option<Register>, usize)>,
    /// Special registers that the kernel reads.
    pub(super) specials: Vec<(Register, Special)>,
    /// *Units*: bytes.
    pub(super) shared_bytes: usize,
    pub(super) has_barriers: bool,
}

pub(super) type Register = u32;

/// A number that depends on where a thread is in the grid: axis 0, 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Global,
    Shared,
}

/// An address: a register and an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) space: Space,
    pub(super) base: Register,
    pub(super) offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Four,
    Eight,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Atomic {
    Add,
    Max,
}

/// One instruction; targets are positions in the code.
#[derive(Clone, Copy, Debug)]
pub(super) enum Instruction {
    One(fn(u64) -> u64, Register, Register),
    Two(fn(u64, u64) -> u64, Register, [Register; 2]),
    Three(fn(u64, u64, u64) -> u64, Register, [Register; 3]),
    Four(fn(u64, u64, u64, u64) -> u64, Register, [Register; 4]),
    Load(Width, Register, Place),
    Store(Width, Register, Place),
    Reduce(Atomic, Width, Register, Place),
    /// Where `compare` is found, stores `with`; the register gets what was found.
    CompareAndSwap {
        width: Width,
        found: Register,
        place: Place,
        compare: Register,
        with: Register,
    },
    Jump(usize),
    /// Jumps where the register is not `unless`.
    JumpIf {
        predicate: Register,
        unless: u64,
        target: usize,
    },
    Barrier,
    Return,
}

impl Module {
    /// Reads PTX. *Errors*: what the lint refuses, and what is not understood.
    pub fn parse(text: &str) -> Result<Module, PtxError> {
        let text: String = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default())
            .fold(String::new(), |text, line| text + line + "\n");
        let mut kernels = HashMap::new();
        for entry in text.split(".visible .entry ").skip(1) {
            let unknown =
                || PtxError::Unknown { statement: entry.lines().next().unwrap_or_default().to_owned() };
            let (name, rest) = entry.split_once('(').ok_or_else(unknown)?;
            let (parameters, rest) = rest.split_once(')').ok_or_else(unknown)?;
            let (_, body) = rest.split_once('{').ok_or_else(unknown)?;
            let (body, _) = body.rsplit_once('}').ok_or_else(unknown)?;
            let decoder = Decoder::new(name.trim(), parameters)?;
            kernels.insert(name.trim().to_owned(), decoder.decode(body)?);
        }
        Ok(Module { kernels })
    }

    pub(super) fn kernel(&self, name: &str) -> Result<&Kernel, PtxError> {
        self.kernels.get(name).ok_or_else(|| PtxError::NoKernel { name: name.to_owned() })
    }

    /// Names of the kernels, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.kernels.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

fn unknown(statement: &str) -> PtxError {
    PtxError::Unknown { statement: statement.trim().to_owned() }
}

/// What is known while a kernel is being decoded.
#[derive(Default)]
struct Decoder {
    kernel: Kernel,
    /// Registers by name, constant or special register.
    registers: HashMap<String, Register>,
    /// Position of each parameter by name.
    parameters: HashMap<String, usize>,
    /// Offset of each shared array.
    shared: HashMap<String, u64>,
    labels: HashMap<String, usize>,
    /// Instructions that jump to a label not yet resolved.
    jumps: Vec<(usize, String)>,
}

impl Decoder {
    fn new(name: &str, parameters: &str) -> Result<Decoder, PtxError> {
        let mut decoder = Decoder::default();
        for parameter in parameters.split(',').map(str::trim).filter(|parameter| !parameter.is_empty()) {
            let words: Vec<&str> = parameter.split_whitespace().collect();
            let [".param", kind, parameter_name] = words[..] else {
                return Err(unknown(&format!("{name}({parameter})")));
            };
            let bytes = match kind {
                ".u64" | ".f64" | ".b64" => 8,
                ".u32" | ".f32" | ".b32" => 4,
                _ => return Err(unknown(parameter)),
            };
            decoder.parameters.insert(parameter_name.to_owned(), decoder.kernel.parameters.len());
            decoder.kernel.parameters.push((None, bytes));
        }
        Ok(decoder)
    }

    fn decode(mut self, body: &str) -> Result<Kernel, PtxError> {
        for statement in body.split(';') {
            let mut statement = statement.trim();
            while let Some((label, rest)) =
                statement.split_once(':').filter(|(label, _)| label.starts_with('$'))
            {
                self.labels.insert(label.to_owned(), self.kernel.code.len());
                statement = rest.trim();
            }
            if statement.starts_with(".shared") {
                self.shared_array(statement)?;
            } else if !statement.is_empty()
                && !statement.starts_with(".reg")
                && !statement.starts_with(".pragma")
            {
                self.instruction(statement)?;
            }
        }
        // Control that falls off the end returns.
        self.kernel.code.push(Instruction::Return);
        for (at, label) in std::mem::take(&mut self.jumps) {
            let to = *self.labels.get(&label).ok_or_else(|| unknown(&label))?;
            match &mut self.kernel.code[at] {
                Instruction::Jump(target) | Instruction::JumpIf { target, .. } => *target = to,
                _ => return Err(unknown(&label)),
            }
        }
        self.kernel.registers = self.registers.len();
        Ok(self.kernel)
    }

    /// `.shared .align 8 .b8 name[16384]`, or one number without brackets.
    fn shared_array(&mut self, statement: &str) -> Result<(), PtxError> {
        let words: Vec<&str> = statement.split_whitespace().collect();
        let [".shared", ".align", align, kind, name] = words[..] else {
            return Err(unknown(statement));
        };
        let unit = match kind {
            ".b8" => 1,
            ".u32" | ".b32" | ".f32" => 4,
            ".u64" | ".b64" | ".f64" => 8,
            _ => return Err(unknown(statement)),
        };
        let (name, count) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
            Some((name, count)) => (name, count.parse().map_err(|_| unknown(statement))?),
            None => (name, 1),
        };
        let align: usize = align.parse().map_err(|_| unknown(statement))?;
        let offset = self.kernel.shared_bytes.next_multiple_of(align);
        self.shared.insert(name.to_owned(), offset as u64);
        self.kernel.shared_bytes = offset + unit * count;
        Ok(())
    }

    fn instruction(&mut self, statement: &str) -> Result<(), PtxError> {
        let (guard, rest) = match statement.strip_prefix('@') {
            Some(guarded) => {
                let (guard, rest) =
                    guarded.split_once(char::is_whitespace).ok_or_else(|| unknown(statement))?;
                (Some(guard), rest.trim())
            }
            None => (None, statement),
        };
        let (opcode, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        lint(opcode)?;
        let operands = split_operands(operands);
        if guard.is_some() && opcode != "bra" && opcode != "bra.uni" {
            return Err(unknown(statement));
        }
        let instruction = match opcode {
            "bra" | "bra.uni" => {
                let [target] = operands[..] else { return Err(unknown(statement)) };
                self.jumps.push((self.kernel.code.len(), target.to_owned()));
                match guard {
                    None => Instruction::Jump(0),
                    Some(guard) => {
                        let unless = u64::from(guard.starts_with('!'));
                        let predicate = self.operand(guard.trim_start_matches('!'))?;
                        Instruction::JumpIf { predicate, unless, target: 0 }
                    }
                }
            }
            "ret" => Instruction::Return,
            "bar.sync" => {
                self.kernel.has_barriers = true;
                Instruction::Barrier
            }
            _ if opcode.starts_with("ld.") || opcode.starts_with("st.") => {
                return self.transfer(statement, opcode, &operands);
            }
            _ if opcode.starts_with("red.") || opcode.starts_with("atom.") => {
                self.atomic(statement, opcode, &operands)?
            }
            _ => self.computing(statement, opcode, &operands)?,
        };
        self.kernel.code.push(instruction);
        Ok(())
    }

    fn computing(
        &mut self,
        statement: &str,
        opcode: &str,
        operands: &[&str],
    ) -> Result<Instruction, PtxError> {
        let operation = operation(opcode).ok_or_else(|| unknown(statement))?;
        let registers: Vec<Register> =
            operands.iter().map(|operand| self.operand_of(opcode, operand)).collect::<Result<_, _>>()?;
        Ok(match (operation, &registers[..]) {
            (Operation::One(does), [to, a]) => Instruction::One(does, *to, *a),
            (Operation::Two(does), [to, a, b]) => Instruction::Two(does, *to, [*a, *b]),
            (Operation::Three(does), [to, a, b, c]) => Instruction::Three(does, *to, [*a, *b, *c]),
            (Operation::Four(does), [to, a, b, c, d]) => Instruction::Four(does, *to, [*a, *b, *c, *d]),
            _ => return Err(unknown(statement)),
        })
    }

    /// Loads and stores; a vector becomes one instruction an element.
    fn transfer(&mut self, statement: &str, opcode: &str, operands: &[&str]) -> Result<(), PtxError> {
        let [first, second] = operands else { return Err(unknown(statement)) };
        let (values, address) = if opcode.starts_with("ld.") { (first, second) } else { (second, first) };
        let width = width(opcode).ok_or_else(|| unknown(statement))?;
        let known = ["ld", "st", "global", "shared", "param", "nc", "v2", "v4"];
        if !opcode.split('.').rev().skip(1).all(|part| known.contains(&part)) {
            return Err(unknown(statement));
        }
        if opcode.starts_with("ld.param") {
            let name = address.trim_start_matches('[').trim_end_matches(']');
            let position = *self.parameters.get(name).ok_or_else(|| unknown(statement))?;
            let from = self.operand(&format!("%param{position}"))?;
            self.kernel.parameters[position].0 = Some(from);
            let to = self.operand(values)?;
            self.kernel.code.push(Instruction::One(|a| a, to, from));
            return Ok(());
        }
        let place = self.place(statement, opcode, address)?;
        let step = if width == Width::Four { 4 } else { 8 };
        for (element, value) in values.trim_matches(['{', '}']).split(',').enumerate() {
            let register = self.operand_of(opcode, value.trim())?;
            let place = Place { offset: place.offset.wrapping_add(step * element as u64), ..place };
            self.kernel.code.push(if opcode.starts_with("ld.") {
                Instruction::Load(width, register, place)
            } else {
                Instruction::Store(width, register, place)
            });
        }
        Ok(())
    }

    fn atomic(&mut self, statement: &str, opcode: &str, operands: &[&str]) -> Result<Instruction, PtxError> {
        let width = width(opcode).ok_or_else(|| unknown(statement))?;
        let parts: Vec<&str> = opcode.split('.').collect();
        match (&parts[..], operands) {
            (["red", _, "add", "u32" | "u64"], [address, value]) => Ok(Instruction::Reduce(
                Atomic::Add,
                width,
                self.operand_of(opcode, value)?,
                self.place(statement, opcode, address)?,
            )),
            (["red", _, "max", "u32" | "u64"], [address, value]) => Ok(Instruction::Reduce(
                Atomic::Max,
                width,
                self.operand_of(opcode, value)?,
                self.place(statement, opcode, address)?,
            )),
            (["atom", _, "cas", "b32"], [found, address, compare, with]) => Ok(Instruction::CompareAndSwap {
                width,
                found: self.operand(found)?,
                place: self.place(statement, opcode, address)?,
                compare: self.operand_of(opcode, compare)?,
                with: self.operand_of(opcode, with)?,
            }),
            _ => Err(unknown(statement)),
        }
    }

    /// `[base]`, `[base+offset]` or `[base+-offset]`, the base a register or a shared array.
    fn place(&mut self, statement: &str, opcode: &str, address: &str) -> Result<Place, PtxError> {
        let space = match opcode.split('.').nth(1) {
            Some("global") => Space::Global,
            Some("shared") => Space::Shared,
            _ => return Err(unknown(statement)),
        };
        let inner = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        let inner = inner.ok_or_else(|| unknown(statement))?;
        let (base, offset) = match inner.split_once('+') {
            Some((base, offset)) => (base, offset.parse::<i64>().map_err(|_| unknown(statement))?),
            None => (inner, 0),
        };
        Ok(Place { space, base: self.operand(base)?, offset: offset as u64 })
    }

    /// The register of an operand: a register, a special register, the address of a shared array or a constant.
    fn operand(&mut self, text: &str) -> Result<Register, PtxError> {
        self.operand_of("", text)
    }

    /// As [`Decoder::operand`]. A negative constant has as many bits as what the instruction takes.
    fn operand_of(&mut self, opcode: &str, text: &str) -> Result<Register, PtxError> {
        let narrow = text.starts_with('-') && opcode.ends_with("32");
        let key = if narrow { format!("{text} of 32 bits") } else { text.to_owned() };
        if let Some(register) = self.registers.get(&key) {
            return Ok(*register);
        }
        let register = self.registers.len() as Register;
        if let Some(special) = special(text) {
            self.kernel.specials.push((register, special));
        } else if let Some(offset) = self.shared.get(text) {
            self.kernel.constants.push((register, *offset));
        } else if !text.starts_with('%') {
            let bits = constant(text).ok_or_else(|| unknown(text))?;
            self.kernel.constants.push((register, if narrow { u64::from(bits as u32) } else { bits }));
        }
        self.registers.insert(key, register);
        Ok(register)
    }
}

/// Operands between commas that are not inside braces.
fn split_operands(text: &str) -> Vec<&str> {
    let (mut operands, mut start, mut depth) = (Vec::new(), 0, 0);
    for (position, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                operands.push(text[start..position].trim());
                start = position + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        operands.push(last);
    }
    operands
}

fn width(opcode: &str) -> Option<Width> {
    match opcode.rsplit('.').next()? {
        "u32" | "s32" | "b32" | "f32" => Some(Width::Four),
        "u64" | "s64" | "b64" | "f64" => Some(Width::Eight),
        _ => None,
    }
}

fn special(text: &str) -> Option<Special> {
    let (name, axis) = text.strip_prefix('%')?.split_once('.')?;
    let axis = ["x", "y", "z"].iter().position(|letter| *letter == axis)?;
    Some(match name {
        "tid" => Special::Thread(axis),
        "ntid" => Special::Threads(axis),
        "ctaid" => Special::Block(axis),
        "nctaid" => Special::Blocks(axis),
        _ => return None,
    })
}

/// `0d` and `0f` introduce the bits of a double and of a float.
fn constant(text: &str) -> Option<u64> {
    if let Some(bits) = text.strip_prefix("0d").or_else(|| text.strip_prefix("0f")) {
        return u64::from_str_radix(bits, 16).ok();
    }
    let negative = text.parse::<i64>().ok().filter(|number| *number < 0);
    negative.map(|number| number as u64).or_else(|| text.parse().ok())
}
