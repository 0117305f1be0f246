//! A look at a block of a matrix product: whether operands like the job's can give it.

use tessera_protocol::matrix::{Block, Source, Task};
use tessera_protocol::spec::Dtype;

use super::{Oddity, RELEASED_MIN};

/// Among so many blocks that are final one that is zero is no surprise.
const ZERO_ONE_IN: u64 = 64;
/// More than rounding does to a sum of products. *Units*: parts of it.
const SLACK: f64 = 1.01;
/// The same of two diagonal elements' product, at the most terms and the fewest bits there are.
const GRAM_SLACK: f64 = 1.05;
/// Elements below which binary32 loses squares.
const TINY: f64 = 1e-20;

/// What is known of a job's blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    released: u64,
    zeros: u64,
}

/// A block as its job sees it.
struct View<'a> {
    task: &'a Task,
    block: &'a Block,
    bytes: &'a [u8],
    /// Columns of the block.
    cols: u64,
}

impl Blocks {
    pub(super) fn look(&self, task: &Task, block: &Block, bytes: &[u8]) -> Option<Oddity> {
        let view = View { task, block, bytes, cols: block.cols.end - block.cols.start };
        if !is_zero(bytes) {
            return view.too_large().or_else(|| view.no_gram());
        }
        let expected = self.released < RELEASED_MIN || self.zeros * ZERO_ONE_IN >= self.released;
        let odd = !expected || view.bound(false).is_some();
        odd.then_some(Oddity::AllZero { released: self.released, zeros: self.zeros })
    }

    pub(super) fn released(&mut self, bytes: &[u8]) {
        self.released += 1;
        self.zeros += u64::from(is_zero(bytes));
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

impl View<'_> {
    /// The largest an element may be, where all operands are made from the seed: their entries are at most one, and
    /// none is zero. On the diagonal of a product with itself an element is a sum of squares; any other is one of
    /// products of either sign, with a variance of a ninth each, and lies within twelve standard deviations.
    fn bound(&self, diagonal: bool) -> Option<f64> {
        let is_made = |source| matches!(source, Source::Uniform { .. });
        let made = is_made(self.task.a.source) && is_made(self.task.b.source);
        let addend = self.task.c.as_ref().filter(|_| self.block.panel == 0);
        if !made || addend.is_some_and(|c| !is_made(c.source)) || self.task.alpha.abs() < TINY {
            return None;
        }
        let terms = self.block.terms.end - self.block.terms.start;
        let likely = if diagonal { terms } else { terms.min(4 * (terms.isqrt() + 1)) };
        let added = addend.map_or(0.0, |_| self.task.beta.abs());
        Some(SLACK * (self.task.alpha.abs() * likely as f64 + added))
    }

    fn too_large(&self) -> Option<Oddity> {
        let bounds = [self.bound(false)?, self.bound(true)?];
        (0..self.block.elements()).find_map(|position| {
            let ([row, col], value) = (self.place(position), self.at(position));
            let bound = bounds[usize::from(self.task.half.is_some() && row == col)];
            (value.abs() > bound).then_some(Oddity::ElementTooLarge { row, col, value, bound })
        })
    }

    /// Of a tile on the diagonal of a product with itself: the square of an element is at most the product of the
    /// two diagonal elements in its row and column.
    fn no_gram(&self) -> Option<Oddity> {
        let added = self.task.c.is_some() && self.block.panel == 0;
        if self.task.half.is_none() || self.block.rows != self.block.cols || added {
            return None;
        }
        (0..self.block.elements()).find_map(|position| {
            let (line, across) = (position / self.cols, position % self.cols);
            let diagonal = [line, across].map(|at| self.at(at * self.cols + at).abs());
            let value = self.at(position).abs();
            let is_small = diagonal.iter().any(|element| *element < TINY) || value < TINY;
            let fits = is_small || value / diagonal[0] * (value / diagonal[1]) <= GRAM_SLACK;
            let [row, col] = self.place(position);
            (!fits).then_some(Oddity::NotAGram { row, col })
        })
    }

    /// Row and column of the result.
    fn place(&self, position: u64) -> [u64; 2] {
        [self.block.rows.start + position / self.cols, self.block.cols.start + position % self.cols]
    }

    fn at(&self, position: u64) -> f64 {
        let width = self.task.element_bytes() as usize;
        let element = &self.bytes[position as usize * width..][..width];
        match (self.task.dtype(), element) {
            (Dtype::F32, [a, b, c, d]) => f64::from(f32::from_le_bytes([*a, *b, *c, *d])),
            (_, element) => element.try_into().map_or(0.0, f64::from_le_bytes),
        }
    }
}
