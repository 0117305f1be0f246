//! The tasks of staged workloads: what an agent needs to run any shard of a stage.
//!
//! Owns which kernel reads which task. What a task says is its workload's.

use alloc::vec::Vec;

use crate::id::Digest;
use crate::{catastrophe, climate, video};

/// A stage's task as its kernel reads it.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Of a climate PCA.
    Climate(climate::Task),
    /// Of a catastrophe model.
    Catastrophe(catastrophe::Task),
    /// Of an encoding.
    Video(video::Task),
}

impl Task {
    /// Reads bytes from outside for a kernel; nothing where they are no task of it.
    pub fn decode(kernel: &str, bytes: &[u8]) -> Option<Task> {
        match kernel {
            "climate_pca" => climate::Task::decode(bytes).ok().map(Task::Climate),
            "catastrophe" => catastrophe::Task::decode(bytes).ok().map(Task::Catastrophe),
            // What follows names the encoder's build.
            kernel => match kernel.split_once(':') {
                Some(("video" | "video_opus", _)) => video::Task::decode(bytes).ok().map(Task::Video),
                _ => None,
            },
        }
    }

    /// The files that it reads, by digest and length, in the order in which it numbers them.
    pub fn inputs(&self) -> Vec<(Digest, u64)> {
        let inputs = match self {
            Task::Climate(task) => task.inputs(),
            Task::Catastrophe(task) => task.inputs(),
            Task::Video(task) => task.inputs(),
        };
        inputs.into_iter().map(|(blake3, bytes)| (Digest(blake3), bytes)).collect()
    }
}
