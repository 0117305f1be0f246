//! Device memory in host memory, with every access checked.
//!
//! Owns the buffers and how an address names one: the buffer's number above, the offset below.

use super::PtxError;
use super::parse::Width;

const OFFSET_BITS: u32 = 40;

/// The buffers of one machine. A number is not used again.
#[derive(Debug, Default)]
pub(super) struct Memory {
    buffers: Vec<Vec<u8>>,
}

impl Memory {
    /// A zeroed buffer's address.
    pub(super) fn allocate(&mut self, bytes: usize) -> u64 {
        self.buffers.push(vec![0; bytes]);
        (self.buffers.len() as u64) << OFFSET_BITS
    }

    /// Gives a buffer's memory back; later accesses are errors.
    pub(super) fn free(&mut self, address: u64) {
        if let Ok(buffer) = self.buffer(address) {
            *buffer = Vec::new();
        }
    }

    fn buffer(&mut self, address: u64) -> Result<&mut Vec<u8>, PtxError> {
        let number = (address >> OFFSET_BITS).checked_sub(1).ok_or(PtxError::Address { address })?;
        self.buffers.get_mut(number as usize).ok_or(PtxError::Address { address })
    }

    /// So many bytes from an address on, all in one buffer.
    pub(super) fn bytes(&mut self, address: u64, bytes: usize) -> Result<&mut [u8], PtxError> {
        let offset = (address & ((1 << OFFSET_BITS) - 1)) as usize;
        self.buffer(address)?
            .get_mut(offset..)
            .and_then(|rest| rest.get_mut(..bytes))
            .ok_or(PtxError::Address { address })
    }

    #[inline]
    pub(super) fn load(&mut self, address: u64, width: Width) -> Result<u64, PtxError> {
        load(self.bytes(aligned(address, width)?, width.bytes())?, 0, width)
    }

    #[inline]
    pub(super) fn store(&mut self, address: u64, width: Width, value: u64) -> Result<(), PtxError> {
        store(self.bytes(aligned(address, width)?, width.bytes())?, 0, width, value)
    }
}

impl Width {
    pub(super) fn bytes(self) -> usize {
        match self {
            Width::Four => 4,
            Width::Eight => 8,
        }
    }
}

fn aligned(address: u64, width: Width) -> Result<u64, PtxError> {
    if address.is_multiple_of(width.bytes() as u64) {
        Ok(address)
    } else {
        Err(PtxError::Address { address })
    }
}

/// A number from bytes, which are shared memory or a piece of global memory.
#[inline]
pub(super) fn load(bytes: &[u8], address: u64, width: Width) -> Result<u64, PtxError> {
    let out_of_bounds = PtxError::Address { address };
    let Some(rest) = bytes.get(aligned(address, width)? as usize..) else { return Err(out_of_bounds) };
    match width {
        Width::Four => rest.first_chunk().map(|four| u64::from(u32::from_le_bytes(*four))),
        Width::Eight => rest.first_chunk().map(|eight| u64::from_le_bytes(*eight)),
    }
    .ok_or(out_of_bounds)
}

/// Stores a number to bytes, as [`load`].
#[inline]
pub(super) fn store(bytes: &mut [u8], address: u64, width: Width, value: u64) -> Result<(), PtxError> {
    let number = value.to_le_bytes();
    let place =
        bytes.get_mut(aligned(address, width)? as usize..).and_then(|rest| rest.get_mut(..width.bytes()));
    place.ok_or(PtxError::Address { address })?.copy_from_slice(&number[..width.bytes()]);
    Ok(())
}
