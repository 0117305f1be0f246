//! The tally: a partial result that merges exactly.
//!
//! Exact sums, counts and sparse bins all merge by addition, so shard size, order and number cannot
//! change a bit. The hub merges tallies without knowing what they count.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use smallvec::SmallVec;

use crate::exact::{DecodeSumError, ExactSum, PackedSums, Value};
use crate::limits;

/// What a range of samples adds up to.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally<S: Sums = Vec<ExactSum>> {
    /// How many samples were taken.
    pub samples: u64,
    /// Exact sums, in the workload's order.
    pub sums: S,
    /// Dense counts, in the workload's order.
    pub counts: S::Counts,
    /// Sparse counts `(bin, count)`. *Order*: strictly ascending by bin, no zero counts.
    pub bins: Vec<(u32, u64)>,
}

/// A tally as it was sent: to be looked at, and added to another.
pub type PackedTally = Tally<PackedSums>;

/// The exact sums of a tally.
pub trait Sums {
    /// How the counts beside them are held.
    type Counts: FromIterator<u64> + Deref<Target = [u64]>;
    /// How many there are.
    fn count(&self) -> usize;
    /// One of them. *Panics*: where there is none.
    fn value(&self, position: usize) -> Value;
    /// Adds each to the one of its position, of as many.
    fn add_to(&self, sums: &mut [ExactSum]);
}

impl Sums for Vec<ExactSum> {
    type Counts = Vec<u64>;

    fn count(&self) -> usize {
        self.len()
    }

    fn value(&self, position: usize) -> Value {
        self[position].value()
    }

    fn add_to(&self, sums: &mut [ExactSum]) {
        for (mine, theirs) in sums.iter_mut().zip(self) {
            mine.merge(theirs);
        }
    }
}

impl Sums for PackedSums {
    /// One count, which is all that many jobs have, takes no memory of its own.
    type Counts = SmallVec<[u64; 1]>;

    fn count(&self) -> usize {
        self.len()
    }

    fn value(&self, position: usize) -> Value {
        self.value(position)
    }

    fn add_to(&self, sums: &mut [ExactSum]) {
        self.add_to(sums);
    }
}

/// How many sums, counts and bins a tally may hold: known before its bytes are read, so that a few bytes
/// cannot ask for much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Exactly so many sums.
    pub sums: usize,
    /// Exactly so many counts.
    pub counts: usize,
    /// At most so many bins.
    pub bins_max: usize,
}

impl Shape {
    /// The longest encoding of a tally of this shape. *Units*: bytes.
    pub fn encoded_bytes_max(&self) -> usize {
        let number = 10;
        let (sums, counts) = (self.sums * crate::exact::ENCODED_BYTES_MAX, self.counts * number);
        4 * number + sums + counts + 2 * number * self.bins_max
    }
}

/// Why bytes are not a tally, or two tallies do not merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TallyError {
    /// Cut short, trailing bytes, bins out of order or not in canonical form.
    Malformed,
    /// The two have other numbers of sums or counts.
    Shape,
    /// A count passed `u64::MAX`.
    Overflow,
}

impl fmt::Display for TallyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TallyError::Malformed => "the partial is not a tally in canonical form",
            TallyError::Shape => "the partial has another number of sums or counts than its job",
            TallyError::Overflow => "a count of the partial passed 2^64 - 1",
        })
    }
}

impl core::error::Error for TallyError {}

impl Default for Tally {
    fn default() -> Tally {
        Tally { samples: 0, sums: Vec::new(), counts: Vec::new(), bins: Vec::new() }
    }
}

impl Tally {
    /// Adds another tally of the same shape. On error `self` is unchanged.
    pub fn merge<S: Sums>(&mut self, other: &Tally<S>) -> Result<(), TallyError> {
        if self.sums.len() != other.sums.count() || self.counts.len() != other.counts.len() {
            return Err(TallyError::Shape);
        }
        let samples = self.samples.checked_add(other.samples).ok_or(TallyError::Overflow)?;
        let counts_fit = self.counts.iter().zip(&*other.counts).all(|(a, b)| a.checked_add(*b).is_some());
        if !counts_fit {
            return Err(TallyError::Overflow);
        }
        if !other.bins.is_empty() {
            self.bins = merge_bins(&self.bins, &other.bins)?;
        }
        self.samples = samples;
        for (mine, theirs) in self.counts.iter_mut().zip(&*other.counts) {
            *mine += theirs;
        }
        other.sums.add_to(&mut self.sums);
        Ok(())
    }

    /// Adds a tally of one count and nothing else. On error `self` is unchanged.
    pub fn merge_count(&mut self, samples: u64, count: u64) -> Result<(), TallyError> {
        let (true, [mine]) = (self.sums.is_empty(), &mut self.counts[..]) else {
            return Err(TallyError::Shape);
        };
        let samples = self.samples.checked_add(samples).ok_or(TallyError::Overflow)?;
        *mine = mine.checked_add(count).ok_or(TallyError::Overflow)?;
        self.samples = samples;
        Ok(())
    }

    /// The canonical bytes: equal tallies have equal bytes, so a check is a hash compare.
    ///
    /// *Shape*: LEB128 numbers `samples, #sums, #counts, #bins`, then the sums' encodings, the counts,
    /// and each bin as its distance from the one before and its count.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [self.samples, self.sums.len() as u64, self.counts.len() as u64, self.bins.len() as u64]
        {
            write_number(&mut bytes, number);
        }
        for sum in &self.sums {
            sum.encode(&mut bytes);
        }
        for count in &self.counts {
            write_number(&mut bytes, *count);
        }
        let mut before = None;
        for (bin, count) in &self.bins {
            write_number(&mut bytes, u64::from(*bin) - before.map_or(0, |before: u32| u64::from(before) + 1));
            write_number(&mut bytes, *count);
            before = Some(*bin);
        }
        bytes
    }

    /// Reads canonical bytes that this program wrote, of any shape within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Tally, TallyError> {
        let [sums, counts, bins] = Reader::header(bytes)?;
        let most = [limits::TALLY_SUMS_MAX, limits::TALLY_COUNTS_MAX, limits::TALLY_BINS_MAX];
        if sums > most[0] || counts > most[1] || bins > most[2] {
            return Err(TallyError::Shape);
        }
        Tally::decode_shaped(bytes, &Shape { sums, counts, bins_max: bins })
    }

    fn decode_shaped(bytes: &[u8], shape: &Shape) -> Result<Tally, TallyError> {
        Tally::decode_with(bytes, shape, |bytes, count| {
            let (mut rest, mut sums) = (bytes, Vec::with_capacity(count));
            for _ in 0..count {
                let sum;
                (sum, rest) = ExactSum::decode(rest)?;
                sums.push(sum);
            }
            Ok((sums, rest))
        })
    }
}

impl PackedTally {
    /// Reads canonical bytes from outside, which must have a shape.
    pub fn read(bytes: &[u8], shape: &Shape) -> Result<PackedTally, TallyError> {
        Tally::decode_with(bytes, shape, PackedSums::decode)
    }

    /// What it takes of memory besides itself. *Units*: bytes.
    pub fn memory_bytes(&self) -> usize {
        self.sums.memory_bytes() + size_of_val(&*self.counts) + size_of_val(&*self.bins)
    }
}

impl From<PackedTally> for Tally {
    fn from(packed: PackedTally) -> Tally {
        let PackedTally { samples, sums, counts, bins } = packed;
        Tally { samples, sums: sums.iter().map(ExactSum::from).collect(), counts: counts.into_vec(), bins }
    }
}

impl<S: Sums> Tally<S> {
    fn decode_with(
        bytes: &[u8],
        shape: &Shape,
        decode_sums: impl FnOnce(&[u8], usize) -> Result<(S, &[u8]), DecodeSumError>,
    ) -> Result<Tally<S>, TallyError> {
        let mut reader = Reader { bytes };
        let samples = reader.number()?;
        let [sums, counts, bins] = [reader.length()?, reader.length()?, reader.length()?];
        if sums != shape.sums || counts != shape.counts || bins > shape.bins_max {
            return Err(TallyError::Shape);
        }
        let (sums, rest) = decode_sums(reader.bytes, sums).map_err(|_| TallyError::Malformed)?;
        reader.bytes = rest;
        let counts = (0..counts).map(|_| reader.number()).collect::<Result<_, _>>()?;
        let mut tally = Tally { samples, sums, counts, bins: Vec::new() };
        let mut next = 0u64;
        for _ in 0..bins {
            let bin = next
                .checked_add(reader.number()?)
                .and_then(|bin| u32::try_from(bin).ok())
                .ok_or(TallyError::Malformed)?;
            let count = reader.number()?;
            if count == 0 {
                return Err(TallyError::Malformed);
            }
            tally.bins.push((bin, count));
            next = u64::from(bin) + 1;
        }
        if reader.bytes.is_empty() { Ok(tally) } else { Err(TallyError::Malformed) }
    }
}

fn merge_bins(mine: &[(u32, u64)], theirs: &[(u32, u64)]) -> Result<Vec<(u32, u64)>, TallyError> {
    let mut merged = Vec::with_capacity(mine.len().max(theirs.len()));
    let (mut mine, mut theirs) = (mine.iter().copied().peekable(), theirs.iter().copied().peekable());
    while let (Some(a), Some(b)) = (mine.peek().copied(), theirs.peek().copied()) {
        merged.push(match a.0.cmp(&b.0) {
            core::cmp::Ordering::Less => a,
            core::cmp::Ordering::Greater => b,
            core::cmp::Ordering::Equal => (a.0, a.1.checked_add(b.1).ok_or(TallyError::Overflow)?),
        });
        if a.0 <= b.0 {
            mine.next();
        }
        if b.0 <= a.0 {
            theirs.next();
        }
    }
    merged.extend(mine);
    merged.extend(theirs);
    Ok(merged)
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    /// LEB128 in its shortest form only.
    fn number(&mut self) -> Result<u64, TallyError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.bytes.split_first().ok_or(TallyError::Malformed)?;
            self.bytes = rest;
            let bits = u64::from(byte & 0x7f);
            if (shift == 63 && bits > 1) || (shift > 0 && *byte == 0) {
                return Err(TallyError::Malformed);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(TallyError::Malformed)
    }

    /// Numbers of sums, counts and bins.
    fn header(bytes: &[u8]) -> Result<[usize; 3], TallyError> {
        let mut reader = Reader { bytes };
        reader.number()?;
        Ok([reader.length()?, reader.length()?, reader.length()?])
    }

    fn length(&mut self) -> Result<usize, TallyError> {
        usize::try_from(self.number()?).map_err(|_| TallyError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn tally(samples: u64, values: &[f64], counts: &[u64], bins: &[(u32, u64)]) -> Tally {
        let sums = values
            .iter()
            .map(|value| {
                let mut sum = ExactSum::default();
                sum.add(*value).unwrap();
                sum
            })
            .collect();
        Tally { samples, sums, counts: counts.to_vec(), bins: bins.to_vec() }
    }

    #[test]
    fn a_lone_count_merges_as_its_tally_does() {
        for (samples, count) in [(3, 2), (0, 0), (1, u64::MAX - 2), (u64::MAX, 1), (1, u64::MAX)] {
            let mut whole = tally(5, &[], &[2], &[]);
            let mut alone = whole.clone();
            let merged = whole.merge(&tally(samples, &[], &[count], &[]));
            assert_eq!(alone.merge_count(samples, count), merged);
            assert_eq!(alone, whole);
        }
        for mut other in [tally(5, &[], &[2, 3], &[]), tally(5, &[1.0], &[2], &[]), tally(5, &[], &[], &[])] {
            let before = other.clone();
            assert_eq!(other.merge_count(1, 1), Err(TallyError::Shape));
            assert_eq!(other, before);
        }
    }

    #[test]
    fn tallies_merge_to_the_same_bytes_in_either_order() {
        let a = tally(3, &[1e300, 0.1], &[1, 2], &[(0, 1), (7, 2), (u32::MAX, 9)]);
        let b = tally(5, &[-1e300, 1e-300], &[0, 300], &[(7, 5), (8, 1)]);
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b).unwrap();
        ba.merge(&a).unwrap();
        assert_eq!(ab.encode(), ba.encode());
        let mut packed = a.clone();
        let shape = Shape { sums: 2, counts: 2, bins_max: 2 };
        packed.merge(&PackedTally::read(&b.encode(), &shape).unwrap()).unwrap();
        assert_eq!(packed, ab);
        assert_eq!(ab.samples, 8);
        assert_eq!(ab.bins, vec![(0, 1), (7, 7), (8, 1), (u32::MAX, 9)]);
    }

    #[test]
    fn a_tally_reads_back_and_anything_else_is_refused() {
        let whole = tally(300, &[0.1, -2.5], &[0, u64::MAX], &[(0, 1), (1, 1), (900, 70)]);
        let bytes = whole.encode();
        let shape = Shape { sums: 2, counts: 2, bins_max: 3 };
        assert_eq!(PackedTally::read(&bytes, &shape).map(Tally::from), Ok(whole.clone()));
        assert_eq!(Tally::decode(&bytes), Ok(whole));
        for cut in 0..bytes.len() {
            assert_eq!(Tally::decode(&bytes[..cut]), Err(TallyError::Malformed), "cut at {cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Tally::decode(&longer), Err(TallyError::Malformed));
        assert_eq!(
            Tally::decode(&[0x80, 0x00, 0, 0, 0]),
            Err(TallyError::Malformed),
            "not the shortest form"
        );
    }

    #[test]
    fn a_few_bytes_cannot_ask_for_much_memory() {
        let mut bytes = Vec::new();
        for number in [1, 1 << 40, 0, 0] {
            write_number(&mut bytes, number);
        }
        assert_eq!(Tally::decode(&bytes), Err(TallyError::Shape));
        let shape = Shape { sums: 2, counts: 2, bins_max: 3 };
        let right = tally(300, &[0.1, -2.5], &[0, u64::MAX], &[(0, 1), (1, 1), (900, 70)]).encode();
        assert!(Tally::decode_shaped(&right, &shape).is_ok() && right.len() <= shape.encoded_bytes_max());
        for other in
            [Shape { sums: 1, ..shape }, Shape { counts: 3, ..shape }, Shape { bins_max: 2, ..shape }]
        {
            assert_eq!(Tally::decode_shaped(&right, &other), Err(TallyError::Shape));
            assert_eq!(PackedTally::read(&right, &other), Err(TallyError::Shape));
        }
    }

    #[test]
    fn a_merge_that_fails_changes_nothing() {
        let mut mine = tally(1, &[1.0], &[u64::MAX], &[]);
        let before = mine.clone();
        assert_eq!(mine.merge(&tally(1, &[1.0], &[1], &[])), Err(TallyError::Overflow));
        assert_eq!(mine.merge(&tally(1, &[], &[1], &[])), Err(TallyError::Shape));
        assert_eq!(mine, before);
    }
}
