//! numpy and QuantLib, in one Python process that lives as long as the run.
//!
//! Owns the process and its lines. It measures itself, so that starting up and speaking cost it nothing.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// `reference.py` in the setup script's virtual environment.
pub(crate) struct Reference {
    child: Child,
    /// Nothing once the process was told to end.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Of Python and the libraries.
    pub(crate) versions: String,
}

impl Reference {
    /// *Errors*: a line that says what to do.
    pub(crate) fn start() -> Result<Reference, String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = here.with_file_name("target/compare/venv/bin/python");
        if !python.exists() {
            return Err("numpy and QuantLib are missing: run bench/compare/setup".to_owned());
        }
        let mut child = Command::new(&python)
            .arg(here.join("compare/reference.py"))
            .env("OPENBLAS_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", python.display()))?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        let answers = BufReader::new(answers.expect("it was piped"));
        let mut reference = Reference { child, requests, answers, versions: String::new() };
        reference.versions = reference.line().map_err(|error| {
            format!("numpy and QuantLib do not start ({error}): run bench/compare/setup again")
        })?;
        Ok(reference)
    }

    /// Has a request answered: the seconds it took, and a value to check.
    ///
    /// *Panics* if the process fails: it said why.
    pub(crate) fn ask(&mut self, request: &str) -> (f64, f64) {
        let requests = self.requests.as_mut().expect("it ends when this is dropped");
        let answer = writeln!(requests, "{request}").and_then(|()| self.line());
        let answer =
            answer.unwrap_or_else(|error| panic!("reference.py does not answer {request:?}: {error}"));
        let number = |word: Option<&str>| word.and_then(|word| word.parse().ok());
        let mut words = answer.split_whitespace();
        match (number(words.next()), number(words.next())) {
            (Some(seconds), Some(value)) => (seconds, value),
            _ => panic!("reference.py answers {request:?} with {answer:?}"),
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // The end of its requests ends it.
        self.requests = None;
        let _ = self.child.wait();
    }
}
