//! Values of a field from the bytes of its files, run by run.
//!
//! Owns how packed numbers become doubles and which are missing: not-a-number stands for those. Reads only
//! the cells that are asked for, so that no file is ever converted as a whole.

use std::cell::RefCell;
use std::sync::Arc;

use tessera_protocol::climate::{Element, Field, Piece, Slab, Source};

use super::KernelError;
use crate::runs::{Files, Runs, Unreadable, some_of};

/// Finds an input or product by its digest.
pub type Find<'a> = dyn Files + 'a;

/// A source, as long as the task says.
pub(super) fn open(find: &Find<'_>, source: &Source) -> Result<Arc<dyn Runs>, KernelError> {
    let runs = find.open(&source.blake3).ok_or(KernelError::InputMissing)?;
    if runs.bytes() == source.bytes { Ok(runs) } else { Err(KernelError::InputMissing) }
}

/// All bytes of a product of an earlier stage.
pub(super) fn fetch(find: &Find<'_>, source: &Source) -> Result<Vec<u8>, KernelError> {
    let runs = open(find, source)?;
    Ok(some_of(&*runs, 0, runs.bytes())?)
}

/// One file of a field, open.
#[derive(Clone, Debug)]
struct Opened {
    slab: Slab,
    runs: Arc<dyn Runs>,
}

/// The files of a field.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    pieces: Vec<Opened>,
    cells: u64,
    count: u64,
    /// The run read last, kept for its memory.
    run: RefCell<Vec<u8>>,
}

impl Samples {
    pub(super) fn open(field: &Field, find: &Find<'_>) -> Result<Samples, KernelError> {
        let open_piece = |piece: &Piece| {
            let runs = open(find, &piece.source)?;
            piece.slab.check(runs.bytes(), field.cells).map_err(|_| KernelError::Task)?;
            Ok(Opened { slab: piece.slab.clone(), runs })
        };
        let pieces = field.pieces.iter().map(open_piece).collect::<Result<Vec<_>, KernelError>>()?;
        Ok(Samples { pieces, cells: field.cells, count: field.samples(), run: RefCell::default() })
    }

    /// Of all files.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn cells(&self) -> u64 {
        self.cells
    }

    /// Which file a sample is of, and which of its samples it is.
    pub(super) fn place(&self, sample: u64) -> (usize, u64) {
        let mut within = sample;
        for (position, piece) in self.pieces.iter().enumerate() {
            let count = piece.slab.samples();
            if within < count {
                return (position, within);
            }
            within -= count;
        }
        unreachable!("sample {sample} of {}", self.count)
    }

    /// The values of consecutive cells of a sample; missing ones are not-a-number.
    pub(super) fn read(&self, sample: u64, first_cell: u64, values: &mut [f64]) -> Result<(), Unreadable> {
        let (position, within) = self.place(sample);
        let Opened { slab, runs } = &self.pieces[position];
        assert!(first_cell + values.len() as u64 <= self.cells);
        let begin = slab.sample(within) + first_cell * slab.element.bytes();
        let length = values.len() as u64 * slab.element.bytes();
        let mut run = self.run.borrow_mut();
        run.resize(length as usize, 0);
        // Inside the file: the slab was checked against its length.
        runs.read(begin, &mut run)?;
        unpack(slab, &run, values);
        Ok(())
    }
}

/// Numbers of one file, all of them.
pub(super) fn read_all(piece: &Piece, cells: u64, find: &Find<'_>) -> Result<Vec<f64>, KernelError> {
    let field = Field { pieces: vec![piece.clone()], cells };
    let mut values = vec![0.0; cells as usize];
    Samples::open(&field, find)?.read(0, 0, &mut values)?;
    Ok(values)
}

/// Packed numbers to values.
pub(super) fn unpack(slab: &Slab, bytes: &[u8], values: &mut [f64]) {
    macro_rules! decode {
        ($type:ty, $widen:expr) => {
            match slab.big_endian {
                true => widen(bytes, values, |raw| $widen(<$type>::from_be_bytes(raw))),
                false => widen(bytes, values, |raw| $widen(<$type>::from_le_bytes(raw))),
            }
        };
    }
    match slab.element {
        Element::I8 => decode!(i8, f64::from),
        Element::U8 => decode!(u8, f64::from),
        Element::I16 => decode!(i16, f64::from),
        Element::U16 => decode!(u16, f64::from),
        Element::I32 => decode!(i32, f64::from),
        Element::U32 => decode!(u32, f64::from),
        // Rounded to nearest, as the conversion of every language is.
        Element::I64 => decode!(i64, |integer| integer as f64),
        Element::F32 => decode!(f32, f64::from),
        Element::F64 => decode!(f64, f64::from),
    }
    let unpack = &slab.unpack;
    let [low, high] = unpack.valid;
    if !unpack.missing.is_empty() || low != f64::NEG_INFINITY || high != f64::INFINITY {
        for value in values.iter_mut() {
            if *value < low || *value > high || unpack.missing.contains(value) {
                *value = f64::NAN;
            }
        }
    }
    if unpack.packed {
        values.iter_mut().for_each(|value| *value = *value * unpack.scale + unpack.offset);
    }
}

fn widen<const N: usize>(bytes: &[u8], values: &mut [f64], one: impl Fn([u8; N]) -> f64) {
    for (value, raw) in values.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = one(*raw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_protocol::climate::Unpack;

    #[test]
    fn packed_numbers_are_scaled_and_missing_ones_are_none() {
        let unpack_rule = Unpack {
            packed: true,
            scale: 0.5,
            offset: 10.0,
            missing: vec![-999.0],
            valid: [f64::NEG_INFINITY, 100.0],
        };
        let slab = Slab {
            offset: 0,
            counts: [1, 1],
            strides: [0, 0],
            element: Element::I16,
            big_endian: true,
            unpack: unpack_rule,
        };
        let bytes: Vec<u8> = [3i16, -999, 101, -4].iter().flat_map(|raw| raw.to_be_bytes()).collect();
        let mut values = [0.0; 4];
        unpack(&slab, &bytes, &mut values);
        assert_eq!((values[0], values[3]), (11.5, 8.0));
        assert!(values[1].is_nan() && values[2].is_nan());
    }
}
