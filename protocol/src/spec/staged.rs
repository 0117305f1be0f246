//! Parameters of the workloads whose jobs go through stages.

use serde::Serialize;

use super::{CatastropheParams, ClimateParams, VideoParams, Workload};

/// The parameters of one such workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant, reason = "a job has one of them")]
pub enum StagedParams {
    /// Of [`Workload::ClimatePca`].
    Climate(ClimateParams),
    /// Of [`Workload::Catastrophe`].
    Catastrophe(CatastropheParams),
    /// Of [`Workload::Video`].
    Video(VideoParams),
}

impl StagedParams {
    /// The workload they are of.
    pub fn workload(&self) -> Workload {
        match self {
            StagedParams::Climate(_) => Workload::ClimatePca,
            StagedParams::Catastrophe(_) => Workload::Catastrophe,
            StagedParams::Video(_) => Workload::Video,
        }
    }
}
