//! Planning the catastrophe workload.

use alloc::string::ToString;
use alloc::vec::Vec;

use tessera_protocol::product::ProductRef;
use tessera_protocol::spec::{CatastropheParams, JobSpec};

use crate::staged::{StageError, Step};

pub(crate) fn step(
    _spec: &JobSpec,
    _params: &CatastropheParams,
    _done: &[Vec<ProductRef>],
) -> Result<Step, StageError> {
    Err(StageError::Input("".to_string()))
}
