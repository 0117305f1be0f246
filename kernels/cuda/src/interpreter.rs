//! The committed PTX, run on a processor: proof of its bits where there is no device.
//!
//! Owns parsing ([`Module`]), the lint and the execution of grids. It knows the instructions that our kernels are made
//! of and refuses every other, above all floating-point arithmetic that is not rounded to nearest once.
//!
//! *Order*: blocks one after another; the threads of a block one after another, each up to its next barrier; or all of
//! them the other way round. Addresses
//! are checked: an access outside a buffer, or not aligned, is an error, as is a barrier that not all threads reach.

mod execute;
mod memory;
mod opcode;
mod parse;

use std::fmt;

pub use execute::Machine;
pub use parse::Module;

/// Why PTX was refused or could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PtxError {
    /// An instruction whose result is not that of one rounding to nearest, or that flushes subnormals.
    NotReproducible {
        /// The instruction.
        instruction: String,
    },
    /// Text that this interpreter does not understand.
    Unknown {
        /// The statement.
        statement: String,
    },
    /// There is no such kernel.
    NoKernel {
        /// Its name.
        name: String,
    },
    /// The launch has other arguments than the kernel.
    Arguments {
        /// Its name.
        kernel: String,
    },
    /// An access outside every buffer, or not aligned.
    Address {
        /// The address.
        address: u64,
    },
    /// Some threads of a block wait at a barrier and others have ended.
    Barrier,
}

impl fmt::Display for PtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PtxError::NotReproducible { instruction } => write!(
                f,
                "`{instruction}` does not give the same bits everywhere: floating-point arithmetic needs .rn and must \
                 be neither approximate nor flush subnormals; compile with --fmad=false --ftz=false"
            ),
            PtxError::Unknown { statement } => write!(f, "the interpreter does not know `{statement}`"),
            PtxError::NoKernel { name } => write!(f, "the PTX has no kernel {name}"),
            PtxError::Arguments { kernel } => write!(f, "the arguments are not those of the kernel {kernel}"),
            PtxError::Address { address } => {
                write!(f, "an access at {address:#x} is outside its buffer or not aligned")
            }
            PtxError::Barrier => f.write_str("a barrier was not reached by all threads of its block"),
        }
    }
}

impl std::error::Error for PtxError {}
