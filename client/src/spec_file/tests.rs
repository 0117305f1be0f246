//! What a person sees when a job file is right and when it is wrong.

use super::*;
use tessera_protocol::spec::{ModelName, MonitoringSpec, MonteCarloParams};

const PI: &str =
    "name = \"pi\"\nworkload = \"monte_carlo\"\nseed = 7\n\n[params]\nmodel = \"pi\"\npaths = 1_000\n";

const INLINE: &str = r#"
name = "inline"
workload = "monte_carlo"

[params]
model = "gbm"
paths = 1000

[[params.book]]
id = "c1"
underlying = "ACME"
kind = "down_and_out_call"
spot = 100
strike = 100
rate = 0.05
volatility = 0.2
expiry = 1
barrier = 90
monitoring = [0.5, 1.0]
"#;

const BOOK: &str =
    "id,underlying,kind,spot,strike,rate,volatility,expiry\nc1,ACME,european_call,100,100,0.05,0.2,1\n";

fn monte_carlo(spec: &JobSpec) -> &MonteCarloParams {
    spec.params.monte_carlo().unwrap()
}

fn toml(text: &str) -> Result<JobSpec, SpecFileError> {
    parse_toml(text, "job.toml", &mut |path| match path {
        "data/book.csv" => Ok(BOOK.as_bytes().to_vec()),
        "wrong.csv" => Ok(BOOK.replace(",0.2,", ",-0.2,").into_bytes()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
    })
}

fn message(text: &str) -> String {
    toml(text).map_or_else(|error| error.to_string(), |_| String::new())
}

#[test]
fn toml_and_json_say_the_same_job() {
    let from_toml = toml(PI).unwrap();
    assert_eq!(
        (monte_carlo(&from_toml).model, monte_carlo(&from_toml).paths, from_toml.seed),
        (ModelName::Pi, 1000, 7)
    );
    let json = serde_json::to_vec(&from_toml).unwrap();
    let from_json = parse_json(&json, "job.json", &mut |_| unreachable!()).unwrap();
    assert_eq!(from_json, from_toml);
    let inline = toml(INLINE).unwrap();
    assert_eq!(monte_carlo(&inline).book[0].monitoring, Some(MonitoringSpec::Dates(vec![0.5, 1.0])));
    assert!(inline.inputs.is_empty());
}

#[test]
fn a_book_in_a_file_becomes_rows_and_a_declared_input() {
    let text = PI.replace("\"pi\"\npaths", "\"gbm\"\nbook = \"data/book.csv\"\npaths");
    let spec = toml(&text).unwrap();
    assert_eq!(monte_carlo(&spec).book.len(), 1);
    assert_eq!(spec.inputs[0].name, "book.csv");
    assert_eq!(spec.inputs[0].blake3, Digest::of(BOOK.as_bytes()));
    assert_eq!(spec.inputs[0].bytes, BOOK.len() as u64);

    let pinned = format!(
        "{text}\n[[inputs]]\nname = \"book.csv\"\nblake3 = \"{}\"\nbytes = {}\n",
        Digest::of(BOOK.as_bytes()),
        BOOK.len()
    );
    assert_eq!(toml(&pinned).unwrap(), spec);
    let other = pinned.replace(&format!("bytes = {}", BOOK.len()), "bytes = 3");
    let message = message(&other);
    assert!(
        message.starts_with("job.toml line 13, column 1: inputs[0].bytes = 3: book.csv has "),
        "{message}"
    );
    assert!(message.ends_with("the job declares another file"), "{message}");
}

#[test]
fn malformed_toml_is_shown_where_it_breaks() {
    assert_eq!(
        message("name = \"pi\"\nworkload = monte_carlo\n"),
        "job.toml: TOML parse error at line 2, column 12\n  |\n2 | workload = monte_carlo\n  |            ^^^^^^^^^^^\n\
         string values must be quoted, expected literal string"
    );
    assert!(message("name = \"a\"\nname = \"b\"\n").contains("duplicate key"));
}

#[test]
fn a_wrong_field_is_named_with_its_line_its_value_and_what_is_allowed() {
    let cases = [
        (
            PI.replace("1_000", "0"),
            "job.toml line 7, column 1: params.paths = 0: must be from 1 to 1000000000000000",
        ),
        (
            PI.replace("seed", "sed"),
            "job.toml line 3, column 1: sed: unknown field `sed`, expected one of `name`, `project`, `workload`, `seed`, \
             `params`, `inputs`, `verify`, `priority`, `limits`, `requirements`",
        ),
        (PI.replace("paths = 1_000\n", ""), "job.toml line 5, column 2: params: missing field `paths`"),
        (PI.replace("name = \"pi\"\n", ""), "job.toml: (document): missing field `name`"),
        (
            PI.replace("1_000", "1e3"),
            "job.toml line 7, column 1: params.paths: invalid type: floating point `1000.0`, expected a whole number from 0 on",
        ),
        (
            PI.replace("= 7", "= 99999999999999999999"),
            "job.toml line 3, column 1: seed = 99999999999999999999: an integer of at most 64 bits",
        ),
        (
            PI.replace("= 7", "= 2026-11-21"),
            "job.toml line 3, column 1: seed: a date is not allowed here; times are years from now",
        ),
        (
            INLINE.replace("volatility = 0.2", "volatility = -0.2"),
            "job.toml line 16, column 1: params.book[0].volatility = -0.2: must be greater than 0 and at most 10",
        ),
        (
            INLINE.replace("volatility = 0.2", "volatility = nan"),
            "job.toml line 16, column 1: params.book[0].volatility = nan: must be a finite number; `nan` and `inf` are not",
        ),
        (
            INLINE.replace("[0.5, 1.0]", "[0.5, inf]"),
            "job.toml line 19, column 20: params.book[0].monitoring[1] = inf: must be a finite number; `nan` and `inf` are not",
        ),
        (
            INLINE.replace("[0.5, 1.0]", "[0.5, 1.5]"),
            "job.toml line 19, column 20: params.book[0].monitoring[1] = 1.5: must be later than 0.5 and no later than \
             the expiry, 1",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(message(&text), expected);
    }
}

#[test]
fn a_book_that_cannot_be_read_or_is_wrong_is_named() {
    let with = |book: &str| PI.replace("\"pi\"\npaths", &format!("\"gbm\"\nbook = \"{book}\"\npaths"));
    assert_eq!(
        message(&with("none.csv")),
        "job.toml line 7, column 1: params.book = \"none.csv\": cannot read it: no such file"
    );
    assert_eq!(
        message(&with("wrong.csv")),
        "wrong.csv row 1 (line 2), column volatility: \"-0.2\": must be greater than 0 and at most 10"
    );
    let pi = PI.replace("paths", "book = \"data/book.csv\"\npaths");
    assert_eq!(
        message(&pi),
        "job.toml line 7, column 1: params.book = 1 contracts: must be absent for the model `pi`, which prices nothing"
    );
}

#[test]
fn a_wrong_json_file_is_shown_where_it_breaks() {
    let json = |text: &str| {
        parse_json(text.as_bytes(), "job.json", &mut |_| unreachable!()).unwrap_err().to_string()
    };
    assert_eq!(json("{\"name\": }"), "job.json: not JSON: expected value at line 1 column 10");
    let text =
        "{\"name\": \"pi\", \"workload\": \"monte_carlo\",\n \"params\": {\"model\": \"pi\", \"paths\": -1}}";
    assert_eq!(
        json(text),
        "job.json: params.paths: invalid value: integer `-1`, expected a whole number from 0 on at line 2 column 38"
    );
}

#[test]
fn files_that_are_missing_not_text_or_of_another_kind_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    let message = load(&path).unwrap_err().to_string();
    assert!(message.starts_with("cannot read ") && message.contains("job.toml: No such file"), "{message}");
    std::fs::write(&path, b"name = \"a\"\nseed = \xff").unwrap();
    let message = load(&path).unwrap_err().to_string();
    assert!(message.ends_with("job.toml line 2: not UTF-8 text; save the file as UTF-8"), "{message}");
    let message = load(&folder.path().join("job.yaml")).unwrap_err().to_string();
    assert!(message.ends_with("a job file must end in .toml or .json"), "{message}");
    std::fs::write(&path, vec![b' '; FILE_BYTES_MAX + 1]).unwrap();
    assert!(matches!(load(&path), Err(SpecFileError::FileTooLarge { .. })));
}

#[test]
fn a_book_is_found_beside_its_job_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.csv"), BOOK).unwrap();
    let path = folder.path().join("job.toml");
    std::fs::write(&path, PI.replace("\"pi\"\npaths", "\"gbm\"\nbook = \"b.csv\"\npaths")).unwrap();
    assert_eq!(monte_carlo(&load(&path).unwrap()).book[0].id, "c1");
}
