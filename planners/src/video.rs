//! Planning the video workload.

use alloc::string::ToString;
use alloc::vec::Vec;

use tessera_protocol::product::ProductRef;
use tessera_protocol::spec::{JobSpec, VideoParams};

use crate::staged::{StageError, Step};

pub(crate) fn step(
    _spec: &JobSpec,
    _params: &VideoParams,
    _done: &[Vec<ProductRef>],
) -> Result<Step, StageError> {
    Err(StageError::Input("".to_string()))
}
