//! Inputs that a job names by the files they are in: `{ name = "field", file = "field.nc" }`.
//!
//! Owns how such an entry becomes a name, a digest and a length. What is in a file is no business of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Value};
use tessera_protocol::id::Digest;
use tessera_protocol::spec::{FieldError, Input};

use super::LocalInput;

/// Read at once. *Units*: bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Parameters that name inputs, by workload; `*` stands for every entry of a list.
const FIELDS: [(&str, &[&str]); 3] = [
    ("climate_pca", &["field/*", "project/*", "weights/input"]),
    ("catastrophe", &["tracks/input", "exposure", "curves", "land/mask"]),
    ("video", &["input"]),
];

/// Whether jobs of a workload name files in their parameters.
pub(super) fn names_files(workload: &Value) -> bool {
    FIELDS.iter().any(|(name, _)| *workload == **name)
}

/// Replaces paths that a job's parameters hold where they name an input by entries of its inputs.
fn declare(value: &mut Value) {
    let workload = value.get("workload").and_then(Value::as_str).unwrap_or_default();
    let Some((_, fields)) = FIELDS.into_iter().find(|(name, _)| *name == workload) else { return };
    let mut entries = value.get("inputs").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(params) = value.get_mut("params") else { return };
    for field in fields {
        let named: Vec<&mut Value> = match field.strip_suffix("/*") {
            Some(list) => params.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().collect(),
            None => params.pointer_mut(&format!("/{field}")).into_iter().collect(),
        };
        for name in named {
            let Some(written) = name.as_str().map(str::to_owned) else { continue };
            let is_declared = |entry: &Value| entry.get("name").is_some_and(|name| *name == *written);
            if entries.iter().any(is_declared) {
                continue;
            }
            let short = Path::new(&written)
                .file_name()
                .map_or(written.clone(), |name| name.to_string_lossy().into_owned());
            // Two files of one name keep their paths for names.
            let taken = entries.iter().any(|entry| entry.get("name").is_some_and(|name| *name == *short));
            let chosen = if taken { written.clone() } else { short };
            entries.push(serde_json::json!({ "name": chosen, "file": written }));
            *name = chosen.into();
        }
    }
    if !entries.is_empty()
        && let Some(job) = value.as_object_mut()
    {
        job.insert("inputs".to_owned(), Value::Array(entries));
    }
}

/// Replaces the files of a job's inputs by what the job declares of them, and says which files those are. A
/// file that is not there is none to look at where the job declares it in full: the hub may have it.
pub(super) fn fill(value: &mut Value, folder: &Path) -> Result<Vec<LocalInput>, Vec<FieldError>> {
    declare(value);
    let Some(inputs) = value.get_mut("inputs").and_then(Value::as_array_mut) else { return Ok(Vec::new()) };
    let (mut files, mut findings) = (Vec::new(), Vec::new());
    for (position, entry) in inputs.iter_mut().enumerate() {
        let Some(entry) = entry.as_object_mut() else { continue };
        match entry.remove("file") {
            None => {}
            Some(Value::String(written)) => match local(entry, &written, folder) {
                Ok(file) => files.extend(file),
                Err(mut error) => {
                    error.field = format!("inputs[{position}].{}", error.field);
                    findings.push(error);
                }
            },
            Some(other) => findings.push(FieldError {
                field: format!("inputs[{position}].file"),
                value: other.to_string(),
                allowed: "the path of a file, as a string".to_owned(),
            }),
        }
    }
    if findings.is_empty() { Ok(files) } else { Err(findings) }
}

fn local(
    entry: &mut Map<String, Value>,
    written: &str,
    folder: &Path,
) -> Result<Option<LocalInput>, FieldError> {
    let path = folder.join(written);
    let declared =
        |entry: &Map<String, Value>| ["name", "blake3", "bytes"].iter().all(|key| entry.contains_key(*key));
    let (blake3, bytes) = match digest(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound && declared(entry) => return Ok(None),
        Err(error) => {
            let (field, value) = ("file".to_owned(), format!("{written:?}"));
            return Err(FieldError { field, value, allowed: format!("cannot read it: {error}") });
        }
    };
    if !entry.contains_key("name") {
        let name = path.file_name().map_or_else(|| written.into(), |name| name.to_string_lossy());
        entry.insert("name".to_owned(), Value::String(name.into_owned()));
    }
    for (key, found) in [("blake3", Value::String(blake3.to_string())), ("bytes", Value::from(bytes))] {
        match entry.get(key) {
            None => drop(entry.insert(key.to_owned(), found)),
            Some(said) if *said == found => {}
            Some(said) => {
                let allowed = format!("{written} has {found}; the job declares another file");
                return Err(FieldError { field: key.to_owned(), value: said.to_string(), allowed });
            }
        }
    }
    let name = entry.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Some(LocalInput { path, input: Input { name, blake3, bytes } }))
}

fn digest(path: &Path) -> io::Result<(Digest, u64)> {
    let (mut file, mut hasher, mut bytes) = (File::open(path)?, blake3::Hasher::new(), 0);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok((Digest(*hasher.finalize().as_bytes()), bytes)),
            Ok(read) => {
                hasher.update(&piece[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_file_is_declared_by_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("field.nc"), b"CDF").unwrap();
        let mut job = json!({ "inputs": [{ "file": "field.nc" }, { "name": "f", "file": "field.nc" }] });
        let files = fill(&mut job, folder.path()).unwrap();
        let (digest, names) = (Digest::of(b"CDF"), ["field.nc", "f"]);
        for (entry, name) in job["inputs"].as_array().unwrap().iter().zip(names) {
            assert_eq!(*entry, json!({ "name": name, "blake3": digest, "bytes": 3 }));
        }
        assert_eq!(files.iter().map(|file| file.input.name.as_str()).collect::<Vec<_>>(), names);
    }

    #[test]
    fn a_path_in_the_parameters_stands_for_an_input() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [("a.nc", b"1"), ("b.nc", b"2")] {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let mut job = json!({
            "workload": "climate_pca",
            "params": { "field": ["a.nc", "./b.nc", "declared"] },
            "inputs": [{ "name": "declared", "file": "a.nc" }],
        });
        let files = fill(&mut job, folder.path()).unwrap();
        assert_eq!(job["params"]["field"], json!(["a.nc", "b.nc", "declared"]));
        let names: Vec<&str> = files.iter().map(|file| file.input.name.as_str()).collect();
        assert_eq!(names, ["declared", "a.nc", "b.nc"]);
        let mut missing = json!({ "workload": "video", "params": { "input": "no.mp4" } });
        let message = fill(&mut missing, folder.path()).unwrap_err()[0].to_string();
        assert!(message.starts_with("inputs[0].file = \"no.mp4\": cannot read it"), "{message}");
    }

    #[test]
    fn a_file_that_is_missing_or_another_one_is_refused_unless_the_hub_may_have_it() {
        let folder = tempfile::tempdir().unwrap();
        let refused =
            |entry: Value| fill(&mut json!({ "inputs": [entry] }), folder.path()).unwrap_err()[0].to_string();
        let message = refused(json!({ "file": "no.nc" }));
        assert!(message.starts_with("inputs[0].file = \"no.nc\": cannot read it: "), "{message}");
        assert!(refused(json!({ "file": 3 })).starts_with("inputs[0].file = 3: the path of a file"));
        let digest = Digest::of(b"CDF");
        let mut elsewhere =
            json!({ "inputs": [{ "name": "f", "file": "no.nc", "blake3": digest, "bytes": 3 }] });
        assert_eq!(fill(&mut elsewhere, folder.path()), Ok(Vec::new()));
        std::fs::write(folder.path().join("a"), b"CDG").unwrap();
        let message = refused(json!({ "name": "f", "file": "a", "blake3": digest }));
        assert!(message.ends_with("the job declares another file"), "{message}");
    }
}
