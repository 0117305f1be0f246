//! The encoder of this machine: found once at the start, and said.
//!
//! Owns the folder for its scratch files. A machine without an encoder computes everything else.

use std::path::Path;

use tessera_media::Encoder;

use crate::executor::Studio;

const FOLDER: &str = "scratch";

/// Finds the encoder and empties the folder for its files, which an earlier start may have left full.
pub(crate) fn open(data: &Path) -> Option<Studio> {
    let encoder = match Encoder::find() {
        Ok(encoder) => encoder,
        Err(error) => {
            tracing::info!("no video is encoded here: {error}");
            return None;
        }
    };
    let scratch = data.join(FOLDER);
    let emptied = match std::fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir_all(&scratch),
    };
    if let Err(error) = emptied {
        tracing::warn!("no video is encoded here: cannot make {}: {error}", scratch.display());
        return None;
    }
    let (version, build) = (encoder.version(), encoder.build());
    tracing::info!("video encoder: {version} (build {build}), run {}", encoder.confinement());
    Some(Studio { encoder, scratch })
}
