//! Exact sums of blocks of doubles at vector speed.
//!
//! A window of 103 bits slides over the values' scale. Adding and subtracting `1.5 · 2^n` splits a value
//! into the multiple of the window's unit it holds, which integer lanes add up, and an exact rest; two
//! such steps leave a remainder that is almost always zero and is added on its own where it is not.
//! Owns this fast way into an [`ExactSum`]; it cannot change a bit of the result, whatever the window.

use tessera_protocol::exact::{EXPONENT_MAX, EXPONENT_MIN, ExactSum, NotFinite};

use crate::isa::{Isa, for_each_isa};

/// Longest block. A window's integers are below 2^51, so 2^11 of them stay within 63 bits.
pub const BLOCK_VALUES_MAX: usize = 2048;
/// Bits of the upper window, sign aside.
const UPPER_BITS: i32 = 51;
/// Bits of the lower window: the upper one's rest is at most half a unit.
const LOWER_BITS: i32 = 52;
/// Room left above the largest value seen, so that the next block fits too.
const MARGIN_BITS: i32 = 3;
/// A window this much above a block is moved down when remainders show up.
const SLACK_BITS: i32 = 12;

/// The top of a window that is none.
const NO_WINDOW: i32 = i32::MAX;

/// Exact sums of values and of their (rounded) squares.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    first: Windowed,
    second: Windowed,
}

impl Moments {
    /// Adds the values and their squares.
    ///
    /// *Errors*: [`NotFinite`] for an infinite value or square; the sums are then of no use.
    /// *Panics*: for more than [`BLOCK_VALUES_MAX`] values.
    pub fn add(&mut self, isa: Isa, values: &[f64]) -> Result<(), NotFinite> {
        assert!(values.len() <= BLOCK_VALUES_MAX);
        let splits = split_with_squares(isa, values, self.first.window, self.second.window);
        self.first.take(splits[0], values, |value| value)?;
        self.second.take(splits[1], values, |value| value * value)
    }

    /// `Σx` and `Σx²`.
    pub fn into_sums(self) -> [ExactSum; 2] {
        [self.first.into_sum(), self.second.into_sum()]
    }
}

/// The exact sum of one block after another.
#[derive(Clone, Debug, Default)]
pub struct Windowed {
    exact: ExactSum,
    window: Window,
    upper: i128,
    lower: i128,
}

impl Windowed {
    /// Adds the values. *Errors* and *Panics*: as [`Moments::add`].
    pub fn add(&mut self, isa: Isa, values: &[f64]) -> Result<(), NotFinite> {
        assert!(values.len() <= BLOCK_VALUES_MAX);
        let split = split(isa, values, self.window);
        self.take(split, values, |value| value)
    }

    /// The sum so far.
    pub fn into_sum(mut self) -> ExactSum {
        self.flush();
        self.exact
    }

    /// Takes over what the vector loop split, or looks again where it did not fit.
    fn take(
        &mut self,
        split: Split,
        values: &[f64],
        map: impl Fn(f64) -> f64 + Copy,
    ) -> Result<(), NotFinite> {
        if self.window.top == NO_WINDOW || split.out_of_range() {
            return self.take_one_by_one(values, map);
        }
        let count = values.len() as u64;
        let sum_of = |bits: u64, centre: f64| {
            i128::from(bits.wrapping_sub(count.wrapping_mul(centre.to_bits())) as i64)
        };
        self.upper += sum_of(split.upper, self.window.upper);
        self.lower += sum_of(split.lower, self.window.lower);
        if split.remainder << 1 != 0 {
            for value in values {
                self.exact.add(self.window.split(map(*value)).2)?;
            }
            self.slide(values, map, SLACK_BITS);
        }
        Ok(())
    }

    #[cold]
    fn take_one_by_one(&mut self, values: &[f64], map: impl Fn(f64) -> f64 + Copy) -> Result<(), NotFinite> {
        for value in values.iter().filter(|value| **value != 0.0) {
            self.exact.add(map(*value))?;
        }
        self.slide(values, map, i32::MIN);
        Ok(())
    }

    /// Moves the window to the block's scale if it lies more than `slack` bits above it.
    fn slide(&mut self, values: &[f64], map: impl Fn(f64) -> f64, slack: i32) {
        let largest = values.iter().map(|value| map(*value).abs().to_bits()).max().unwrap_or(0);
        let top = (largest >> 52) as i32 - 1023 + 1 + MARGIN_BITS;
        if largest != 0 && i64::from(self.window.top) > i64::from(top) + i64::from(slack) {
            self.flush();
            self.window = Window::below(top).unwrap_or_default();
        }
    }

    fn flush(&mut self) {
        if self.window.top != NO_WINDOW {
            self.exact.add_scaled(std::mem::take(&mut self.upper), self.window.top - UPPER_BITS);
            self.exact.add_scaled(std::mem::take(&mut self.lower), self.window.top - UPPER_BITS - LOWER_BITS);
        }
    }
}

/// Where the two splits happen: values below `2^top`.
#[derive(Clone, Copy, Debug)]
struct Window {
    top: i32,
    upper: f64,
    lower: f64,
}

impl Default for Window {
    /// No window yet, or none that fits: every block is added value by value.
    fn default() -> Self {
        Window { top: NO_WINDOW, upper: f64::NAN, lower: f64::NAN }
    }
}

impl Window {
    /// None where the constants or their units would leave the normal doubles.
    fn below(top: i32) -> Option<Window> {
        let unit = top - UPPER_BITS - LOWER_BITS;
        if unit < -1000 || top > 1000 {
            return None;
        }
        const _: () = assert!(EXPONENT_MIN <= -1000 && EXPONENT_MAX >= 1000 - UPPER_BITS);
        let centre = |unit: i32| 1.5 * f64::from_bits(((unit + 52 + 1023) as u64) << 52);
        Some(Window { top, upper: centre(top - UPPER_BITS), lower: centre(unit) })
    }

    /// The shifted values, whose bits count units, and what is left below both.
    #[inline(always)]
    fn split(&self, value: f64) -> (f64, f64, f64) {
        let upper = value + self.upper;
        let rest = value - (upper - self.upper);
        let lower = rest + self.lower;
        (upper, lower, rest - (lower - self.lower))
    }
}

/// What a vector loop gathers over a block.
#[derive(Clone, Copy, Debug, Default)]
struct Split {
    /// Wrapping sum of the bits of the shifted values.
    upper: u64,
    /// The same of the rests.
    lower: u64,
    /// Bits that ever differed from the window's constant: an exponent bit means out of range.
    strayed: u64,
    /// Bits of all remainders; the sign of a zero does not count.
    remainder: u64,
}

impl Split {
    #[inline(always)]
    fn add(&mut self, value: f64, window: &Window) {
        let (upper, lower, remainder) = window.split(value);
        self.upper = self.upper.wrapping_add(upper.to_bits());
        self.lower = self.lower.wrapping_add(lower.to_bits());
        self.strayed |= upper.to_bits() ^ window.upper.to_bits();
        self.remainder |= remainder.to_bits();
    }

    fn out_of_range(&self) -> bool {
        self.strayed >> 52 != 0
    }
}

for_each_isa! {
    fn split(values: &[f64], window: Window) -> Split = split_body;
}

for_each_isa! {
    fn split_with_squares(values: &[f64], window: Window, square_window: Window) -> [Split; 2] = split_with_squares_body;
}

#[inline(always)]
fn split_body(values: &[f64], window: Window) -> Split {
    let mut split = Split::default();
    for value in values {
        split.add(*value, &window);
    }
    split
}

#[inline(always)]
fn split_with_squares_body(values: &[f64], window: Window, square_window: Window) -> [Split; 2] {
    let (mut plain, mut squares) = (Split::default(), Split::default());
    for value in values {
        plain.add(*value, &window);
        squares.add(value * value, &square_window);
    }
    [plain, squares]
}
