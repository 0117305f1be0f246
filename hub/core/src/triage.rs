//! Triage: a look at a partial that costs no more than hashing it, and says what is odd about it.
//!
//! Owns what counts as odd. Decides nothing: an odd answer is checked for sure when its batch closes, as far as
//! the job's budget goes, and what was odd about it is kept beside its digest where it is disputed. Computes no
//! sample, no product of matrices and no picture. What no kernel can answer is refused when it is read, by
//! [`Plan::read_partial`]. Floats decide here what is looked at twice and never what is true or paid.

use alloc::string::String;
use core::fmt;

use tessera_planners::{Part, Plan};
use tessera_protocol::spec::{Manifest, Params};
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::ShardIndex;

mod blocks;
mod products;
mod samples;

use blocks::Blocks;
use samples::Samples;

/// Shards that must be final before another is compared with them.
const RELEASED_MIN: u64 = 16;

/// What is odd about a partial.
#[derive(Clone, Debug, PartialEq)]
pub enum Oddity {
    /// A mean of its samples lies far from that of the samples that are final.
    MeanApart {
        /// Of which sum of the tally; of a job that counts, of which count.
        sum: usize,
        /// Of the shard.
        mean: f64,
        /// Of what is final.
        pooled: f64,
        /// Samples behind it.
        samples: u64,
        /// How far. *Units*: tenths of the standard error of the difference.
        tenths: u64,
    },
    /// Its sum of squares is less than its sum needs.
    SquaresTooSmall {
        /// Which sum of the tally.
        sum: usize,
        /// It.
        total: f64,
        /// Of its squares.
        squares: f64,
        /// How many were summed.
        samples: u64,
    },
    /// The book is not worth what its contracts are.
    BookUnlikeContracts {
        /// Sum of the book's values.
        book: f64,
        /// The same from the contracts' sums.
        contracts: f64,
    },
    /// The book's values do not add up to their histogram.
    BookUnlikeBins {
        /// Sum of the book's values.
        book: f64,
        /// The same from the histogram.
        binned: f64,
    },
    /// An element that operands of this size do not give.
    ElementTooLarge {
        /// Row of the result.
        row: u64,
        /// Column of the result.
        col: u64,
        /// What is there.
        value: f64,
        /// What could be.
        bound: f64,
    },
    /// Two diagonal elements and the one between them that no product of a matrix with itself has.
    NotAGram {
        /// Row of the result.
        row: u64,
        /// Column of the result.
        col: u64,
    },
    /// Nothing but zeros, where other blocks of the job have other elements.
    AllZero {
        /// Of so many blocks that are final.
        released: u64,
        /// So many are zero.
        zeros: u64,
    },
    /// Something about a product, in words.
    Product(String),
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Oddity::MeanApart { sum, mean, pooled, samples, tenths } => write!(
                f,
                "sum {sum} has a mean of {mean}, and that of the {samples} samples that are final is {pooled}: {}.{} standard errors apart",
                tenths / 10,
                tenths % 10
            ),
            Oddity::SquaresTooSmall { sum, total, squares, samples } => write!(
                f,
                "sum {sum} of {samples} samples is {total}, which no samples have whose squares add up to {squares}"
            ),
            Oddity::BookUnlikeContracts { book, contracts } => {
                write!(f, "the book's values add up to {book}, and those of its contracts to {contracts}")
            }
            Oddity::BookUnlikeBins { book, binned } => {
                write!(f, "the book's values add up to {book}, and those in its histogram to {binned}")
            }
            Oddity::ElementTooLarge { row, col, value, bound } => {
                write!(f, "element ({row}, {col}) is {value}, and its operands give at most {bound}")
            }
            Oddity::NotAGram { row, col } => write!(
                f,
                "element ({row}, {col}) is larger than the diagonal allows in a product of a matrix with itself"
            ),
            Oddity::AllZero { released, zeros } => {
                write!(
                    f,
                    "all its elements are zero, as are those of {zeros} of {released} blocks that are final"
                )
            }
            Oddity::Product(what) => f.write_str(what),
        }
    }
}

/// What a job's looks compare with.
#[derive(Debug, Default)]
pub struct Triage {
    samples: Option<Samples>,
    blocks: Blocks,
}

impl Triage {
    /// Looks at a partial of a shard of the plan. `released` is what the final shards of the pass add up to.
    pub fn look(
        &mut self,
        manifest: &Manifest,
        plan: &Plan,
        index: ShardIndex,
        part: &Part,
        released: Option<&Tally>,
    ) -> Option<Oddity> {
        match (part, &manifest.spec().params) {
            (Part::Tally(tally), Params::MonteCarlo(params)) => {
                if self.samples.is_none() {
                    self.samples = Samples::new(params, plan);
                }
                self.samples.as_mut()?.look(plan, tally, released)
            }
            (Part::Block(bytes), _) => {
                let task = plan.matrix()?;
                self.blocks.look(task, &task.block(plan.shard(index)?.first)?, bytes)
            }
            (Part::Product(_, bytes), Params::Staged(params)) => {
                products::look(params, plan, index, bytes).map(Oddity::Product)
            }
            (Part::Tally(_) | Part::Product(..), _) => None,
        }
    }

    /// A partial of the job is final.
    pub fn released(&mut self, part: &Part) {
        if let Part::Block(bytes) = part {
            self.blocks.released(bytes);
        }
    }
}

#[cfg(test)]
mod tests;
