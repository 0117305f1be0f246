//! The files that a matrix job names: what is in them is filled into the job.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tessera_protocol::spec::{FieldError, Input};

use crate::matrix_file::{self, MatrixFileError, Survey};

/// A file of this machine that a job reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalInput {
    /// Where it is.
    pub path: PathBuf,
    /// As the job declares it.
    pub input: Input,
}

/// Replaces the paths of a matrix job's operands by names, fills in shapes and type, and says which files
/// those are. A file that is not there is none to look at where the job declares it in full: the hub may
/// have it.
pub(super) fn fill(value: &mut Value, folder: &Path) -> Result<Vec<LocalInput>, Vec<FieldError>> {
    let declared = names(value);
    let Some(params) = value.pointer_mut("/params").and_then(Value::as_object_mut) else {
        return Ok(Vec::new());
    };
    let (mut files, mut findings) = (Vec::<LocalInput>::new(), Vec::new());
    for field in ["a", "b", "c"] {
        let Some(operand) = params.get(field).and_then(Value::as_object) else { continue };
        let Some(written) = operand.get("input").and_then(Value::as_str).map(str::to_owned) else { continue };
        let mut refuse = |part: &str, value: String, allowed: String| {
            findings.push(FieldError { field: format!("params.{field}{part}"), value, allowed });
        };
        let path = folder.join(&written);
        let survey = match matrix_file::survey(&path) {
            Ok(survey) => survey,
            Err(MatrixFileError::Unreadable(error))
                if error.kind() == io::ErrorKind::NotFound
                    && declared.contains(&written)
                    && operand.contains_key("rows")
                    && operand.contains_key("cols") =>
            {
                continue;
            }
            Err(error) => {
                refuse(".input", format!("{written:?}"), error.to_string());
                continue;
            }
        };
        let name =
            path.file_name().map_or_else(|| written.clone(), |name| name.to_string_lossy().into_owned());
        let input = Input { name, blake3: survey.blake3, bytes: survey.bytes };
        if files.iter().any(|file| file.input.name == input.name && file.input != input) {
            let allowed = format!("another file of this job is called {} too: rename one", input.name);
            refuse(".input", format!("{written:?}"), allowed);
            continue;
        }
        describe(params, field, &input.name, &survey, &mut refuse);
        if !files.iter().any(|file| file.input == input) {
            files.push(LocalInput { path, input });
        }
    }
    if findings.is_empty() { Ok(files) } else { Err(findings) }
}

/// Names of the inputs that the job declares.
fn names(value: &Value) -> Vec<String> {
    let declared = value.pointer("/inputs").and_then(Value::as_array).into_iter().flatten();
    declared.filter_map(|input| input.get("name")?.as_str().map(str::to_owned)).collect()
}

/// Writes what a file holds into the parameters, or finds that they say otherwise.
fn describe(
    params: &mut Map<String, Value>,
    field: &str,
    name: &str,
    survey: &Survey,
    refuse: &mut dyn FnMut(&str, String, String),
) {
    let header = survey.header;
    let dtype = header.dtype.word();
    match params.get("dtype") {
        None => drop(params.insert("dtype".to_owned(), dtype.into())),
        Some(said) if *said == dtype => {}
        Some(said) => {
            let said = said.as_str().unwrap_or("something else");
            refuse(".input", format!("{name:?}"), format!("holds {dtype}, and the job's dtype is {said}"));
        }
    }
    let Some(operand) = params.get_mut(field).and_then(Value::as_object_mut) else { return };
    for (side, found) in [("rows", header.rows), ("cols", header.cols)] {
        match operand.get(side) {
            None => drop(operand.insert(side.to_owned(), found.into())),
            Some(said) if *said == found => {}
            Some(said) => refuse(&format!(".{side}"), said.to_string(), format!("{name} has {found} {side}")),
        }
    }
    operand.insert("input".to_owned(), name.into());
}
