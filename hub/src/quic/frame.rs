//! Frames on a stream: a `u32` little-endian length, then that many bytes.
//!
//! Owns reading them from chunks cut anywhere. Knows nothing of what a body says.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// Length of a frame's prefix. *Units*: bytes.
pub(super) const PREFIX_BYTES: usize = 4;
/// What is reserved for a body before it arrives; the rest grows with what does arrive, so that a
/// false length costs nothing.
const RESERVE_BYTES_MAX: usize = 16 << 10;

/// A length that no frame may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    /// A frame without a version byte.
    Empty,
    /// A frame beyond its stream's limit.
    TooLarge { bytes: usize, bytes_max: usize },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Empty => f.write_str("an empty frame"),
            FrameError::TooLarge { bytes, bytes_max } => {
                write!(f, "a frame of {bytes} bytes; at most {bytes_max} are allowed")
            }
        }
    }
}

/// Reads the frames of one stream.
pub(super) struct FrameReader {
    bytes_max: usize,
    prefix: [u8; PREFIX_BYTES],
    prefix_read: usize,
    /// The body under way; its length is in `prefix` once that is whole.
    body: BytesMut,
}

impl FrameReader {
    /// A reader at the start of a stream whose bodies have at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> FrameReader {
        FrameReader { bytes_max, prefix: [0; PREFIX_BYTES], prefix_read: 0, body: BytesMut::new() }
    }

    /// Bytes of an unfinished body that are held.
    pub(super) fn held_bytes(&self) -> usize {
        self.body.len()
    }

    /// Takes the next chunk of the stream; hands out each body that it completes. A body that lies
    /// within the chunk is not copied.
    ///
    /// *Errors*: a length out of bounds. The stream is of no use afterwards.
    pub(super) fn push(
        &mut self,
        mut chunk: Bytes,
        mut complete: impl FnMut(Bytes),
    ) -> Result<(), FrameError> {
        while !chunk.is_empty() {
            if self.prefix_read < PREFIX_BYTES {
                let taken = chunk.len().min(PREFIX_BYTES - self.prefix_read);
                chunk.copy_to_slice(&mut self.prefix[self.prefix_read..self.prefix_read + taken]);
                self.prefix_read += taken;
                if self.prefix_read < PREFIX_BYTES {
                    break;
                }
                self.check_length()?;
            }
            let missing = self.body_bytes() - self.body.len();
            if self.body.is_empty() && chunk.len() >= missing {
                complete(chunk.split_to(missing));
                self.prefix_read = 0;
            } else {
                let taken = chunk.len().min(missing);
                if self.body.is_empty() {
                    self.body.reserve(missing.min(RESERVE_BYTES_MAX));
                }
                self.body.extend_from_slice(&chunk.split_to(taken));
                if taken == missing {
                    complete(std::mem::take(&mut self.body).freeze());
                    self.prefix_read = 0;
                }
            }
        }
        Ok(())
    }

    fn body_bytes(&self) -> usize {
        u32::from_le_bytes(self.prefix) as usize
    }

    fn check_length(&self) -> Result<(), FrameError> {
        match self.body_bytes() {
            0 => Err(FrameError::Empty),
            bytes if bytes > self.bytes_max => Err(FrameError::TooLarge { bytes, bytes_max: self.bytes_max }),
            _ => Ok(()),
        }
    }
}

/// Appends a frame with `body`, whose length the caller has checked.
pub(super) fn append(buffer: &mut BytesMut, body: &[u8]) {
    let length = u32::try_from(body.len()).expect("frame limits are far below 4 GiB");
    buffer.reserve(PREFIX_BYTES + body.len());
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_wherever_the_stream_is_cut() {
        let bodies: Vec<Vec<u8>> =
            [1usize, 3, 4, 5, 300, 1, 70_000].iter().map(|&n| vec![n as u8; n]).collect();
        let mut stream = BytesMut::new();
        bodies.iter().for_each(|body| append(&mut stream, body));
        let stream = stream.freeze();
        for step in [1, 2, 3, 5, 7, 1200, stream.len()] {
            let mut reader = FrameReader::new(70_000);
            let mut seen = Vec::new();
            for start in (0..stream.len()).step_by(step) {
                let chunk = stream.slice(start..stream.len().min(start + step));
                reader.push(chunk, |body| seen.push(body.to_vec())).expect("no frame is too large");
            }
            assert_eq!(seen, bodies, "chunks of {step}");
            assert_eq!(reader.held_bytes(), 0);
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_before_its_body_arrives() {
        let push = |bytes: &[u8]| FrameReader::new(10).push(Bytes::copy_from_slice(bytes), |_| ());
        assert_eq!(push(&[11, 0, 0, 0]), Err(FrameError::TooLarge { bytes: 11, bytes_max: 10 }));
        assert_eq!(push(&[0, 0, 0, 0]), Err(FrameError::Empty));
        assert_eq!(push(&[255, 255, 255]), Ok(()), "not known yet");
        assert_eq!(push(&[10, 0, 0, 0]), Ok(()));
    }
}
