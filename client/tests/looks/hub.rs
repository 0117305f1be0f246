//! A hub of a few lines that has one finished job.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use tessera_protocol::id::{Digest, JobId};

use crate::job::Job;

fn id() -> JobId {
    JobId::new(1, [3; 10])
}

/// What `tessera job replay ID --quick` does with a job, and the words after it.
pub(crate) fn replay(job: Job, more: &[&str]) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&stream.unwrap(), &job);
        }
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    command.args(["job", "--hub", &url, "replay", &id().to_string(), "--quick"]).args(more);
    command.env_clear().stdin(Stdio::null()).output().unwrap()
}

fn answer(mut stream: &TcpStream, job: &Job) {
    let mut head = String::new();
    let mut lines = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).unwrap() == 0 {
            return;
        }
    }
    let target = head.split(' ').nth(1).unwrap();
    let of_job = target.strip_prefix(&format!("/v1/jobs/{}", id()));
    let found = match (of_job, target.strip_prefix("/v1/inputs/")) {
        (Some(""), _) => Some(view(job).into_bytes()),
        (Some("/result"), _) => Some(job.document.clone().into_bytes()),
        (Some("/manifest"), _) => Some(job.manifest.bytes()),
        (Some(path), _) => path.strip_prefix("/outputs/").and_then(|name| job.outputs.get(name).cloned()),
        (None, Some(input)) => {
            let mut files = job.inputs.iter();
            files.find(|(blake3, _)| blake3.to_string() == input).map(|(_, bytes)| bytes.to_vec())
        }
        (None, None) => None,
    };
    let (status, body) = found.map_or((404, Vec::new()), |body| (200, body));
    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
}

fn view(job: &Job) -> String {
    format!(
        r#"{{"id":"{}","name":"j","project":"default","state":"done","manifest_digest":"{}","verify":"standard","priority":"batch","created_ms":1000,"ended_ms":1500,"paths":0,"extends":null,"cost":20,"shards":1,"shards_done":1,"attempts":1,"checks":0,"mismatches":0,"checks_skipped":0,"lanes":[1],"digest":"{}","failure":null,"waiting":null}}"#,
        id(),
        job.manifest.digest(),
        Digest::of(job.document.as_bytes()),
    )
}
