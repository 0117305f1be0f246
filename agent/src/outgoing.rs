//! Frames that wait for a stream to take them.
//!
//! Owns the bytes between the machine's effects and QUIC: all that is queued leaves in one write. When
//! [`FRAMES_BYTES_MAX`] wait, the hub does not read, and the next frame is refused.

use std::sync::{Mutex, PoisonError};

use quinn::{SendStream, WriteError};
use tessera_protocol::limits;
use tessera_protocol::wire::Message;
use tokio::sync::Notify;

/// Most bytes that wait for one stream: four of the largest frames. *Units*: bytes.
const FRAMES_BYTES_MAX: usize = 4 * limits::WORK_FRAME_BYTES_MAX;

/// The queue has no room: the hub does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Frames of one stream, in order.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    frames: Mutex<Vec<u8>>,
    filled: Notify,
}

impl Outgoing {
    /// Queues a frame.
    pub(crate) fn push(&self, message: &impl Message) -> Result<(), Full> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() >= FRAMES_BYTES_MAX {
            return Err(Full);
        }
        message.frame(&mut frames);
        self.filled.notify_one();
        Ok(())
    }

    /// Writes whatever is queued, as long as the stream takes it.
    pub(crate) async fn write_to(&self, stream: &mut SendStream) -> WriteError {
        let mut frames = Vec::new();
        loop {
            self.filled.notified().await;
            frames.clear();
            std::mem::swap(&mut frames, &mut self.frames.lock().unwrap_or_else(PoisonError::into_inner));
            if let Err(error) = stream.write_all(&frames).await {
                return error;
            }
        }
    }
}
