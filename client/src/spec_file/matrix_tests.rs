//! What a person sees when a job of matrices is right and when it is wrong.

use std::fs;

use tempfile::TempDir;
use tessera_protocol::spec::{Dtype, GemmParams, Params};

use super::*;

/// A folder with the files that numpy wrote, and a job file.
fn folder(name: &str, job: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/tests/npy");
    for file in fs::read_dir(fixtures).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let path = folder.path().join(name);
    fs::write(&path, job).unwrap();
    (folder, path)
}

fn job(params: &str) -> String {
    format!("name = \"product\"\nworkload = \"gemm\"\n[params]\n{params}\n")
}

fn gemm(spec: &JobSpec) -> &GemmParams {
    match &spec.params {
        Params::Gemm(params) => params,
        other => panic!("{other:?}"),
    }
}

/// What is said of a job, without the folder.
fn message(params: &str) -> String {
    let (folder, path) = folder("job.toml", &job(params));
    let said = load_with_files(&path, &|_| None).map_or_else(|error| error.to_string(), |_| String::new());
    said.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn a_path_becomes_a_shape_a_type_and_a_digest() {
    let text = job("a = { input = \"c.npy\" }\nb = { input = \"./fortran.npy\" }\ntranspose_b = true");
    let (folder, path) = folder("job.toml", &text);
    let (spec, files) = load_with_files(&path, &|_| None).unwrap();
    let params = gemm(&spec);
    assert_eq!((params.dtype, params.a.rows, params.a.cols, params.b.rows), (Dtype::F64, 2, 3, 2));
    assert_eq!(params.b.input.as_deref(), Some("fortran.npy"));
    let expected: Vec<Input> = ["c.npy", "fortran.npy"]
        .map(|name| {
            let bytes = fs::read(folder.path().join(name)).unwrap();
            Input { name: name.to_owned(), blake3: Digest::of(&bytes), bytes: 176 }
        })
        .into();
    assert_eq!(spec.inputs, expected);
    assert_eq!(files.iter().map(|file| file.input.clone()).collect::<Vec<_>>(), expected);

    // The job as the hub has it needs no files beside it, and is the same.
    let json = folder.path().join("elsewhere/job.json");
    fs::create_dir(json.parent().unwrap()).unwrap();
    fs::write(&json, serde_json::to_vec(&spec).unwrap()).unwrap();
    assert_eq!(load_with_files(&json, &|_| None).unwrap(), (spec, Vec::new()));
}

#[test]
fn every_file_that_is_no_matrix_is_named_with_its_field_and_line() {
    for (file, said) in [
        ("none.npy", "cannot read it: No such file or directory (os error 2)"),
        (".", "not a file"),
        ("make.py", "not a .npy file: write it with numpy.save"),
        ("truncated.npy", "truncated: it has 173 bytes, and its header says 176"),
        ("big_endian.npy", "big-endian elements (>f8): convert them with `.astype('<f8')` before saving"),
        ("objects.npy", "an array of Python objects: convert it with `.astype('<f8')` before saving it"),
        ("vector.npy", "an array of 1 dimensions: a matrix has 2; see numpy.reshape"),
        ("cube.npy", "an array of 3 dimensions: a matrix has 2; see numpy.reshape"),
        ("nan.npy", "entry [1, 0] is NaN or infinite: every entry must be finite"),
        ("infinite_fortran.npy", "entry [0, 2] is NaN or infinite: every entry must be finite"),
    ] {
        let params = format!("a = {{ input = \"c.npy\" }}\nb = {{ input = \"{file}\" }}");
        let expected = format!("job.toml line 5, column 7: params.b.input = \"{file}\": {said}");
        assert_eq!(message(&params), expected);
    }
    assert!(message("a = { input = \"empty.npy\" }\nb = { input = \"c.npy\" }").contains("0 x 3 elements"));
}

#[test]
fn files_that_do_not_fit_the_job_or_each_other_are_refused() {
    let both = |a: &str, b: &str| format!("a = {{ {a} }}\nb = {{ {b} }}");
    let c = "input = \"c.npy\"";
    assert_eq!(
        message(&both(c, "input = \"f4.npy\"")),
        "job.toml line 5, column 7: params.b.input = \"f4.npy\": holds f32, and the job's dtype is f64"
    );
    assert_eq!(
        message(&format!("dtype = \"f32\"\n{}", both(c, "random = \"uniform\", rows = 3, cols = 1"))),
        "job.toml line 5, column 7: params.a.input = \"c.npy\": holds f64, and the job's dtype is f32"
    );
    assert_eq!(
        message(&both("input = \"c.npy\", rows = 3", "random = \"uniform\", rows = 3, cols = 1")),
        "job.toml line 4, column 24: params.a.rows = 3: c.npy has 2 rows"
    );
    assert_eq!(
        message(&both(c, c)),
        "job.toml line 5, column 1: params.b = 2 x 3: op(A) has 3 columns and op(B) 2 rows: they must be equal"
    );
    let said = message(&both(
        "random = \"uniform\", rows = 2, cols = 3",
        "random = \"uniform\", rows = 3, cols = 1",
    ));
    assert!(said.contains("missing field `dtype`"), "{said}");
}

#[test]
fn a_pinned_digest_and_a_name_given_twice_are_compared() {
    let pinned = job("a = { input = \"c.npy\" }\nb = { random = \"uniform\", rows = 3, cols = 4 }")
        + &format!("[[inputs]]\nname = \"c.npy\"\nblake3 = \"{}\"\nbytes = 176\n", Digest::of(b"other"));
    let (_folder, path) = folder("job.toml", &pinned);
    let said = load(&path).unwrap_err().to_string();
    assert!(said.contains("inputs[0].blake3") && said.contains("the job declares another file"), "{said}");

    let text = job("a = { input = \"c.npy\" }\nb = { input = \"other/c.npy\" }\ntranspose_b = true");
    let (folder, path) = folder("job.toml", &text);
    fs::create_dir(folder.path().join("other")).unwrap();
    fs::copy(folder.path().join("fortran.npy"), folder.path().join("other/c.npy")).unwrap();
    let said = load(&path).unwrap_err().to_string();
    assert!(said.contains("another file of this job is called c.npy too: rename one"), "{said}");
}
