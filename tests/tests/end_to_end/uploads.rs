//! A large file on its way to a hub that is killed in the middle of it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;

use tempfile::TempDir;
use tessera_protocol::limits::INPUT_PIECE_BYTES;

use super::programs::{Hub, until};

/// A matrix of zeros in pieces of a file, and its job.
const ROWS: u64 = 2_048;
const COLS: u64 = 4_096;
const FILE_BYTES: u64 = 128 + ROWS * COLS * 8;

fn stage(folder: &TempDir) -> String {
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({ROWS}, {COLS}), }}");
    header += &" ".repeat(128 - 10 - header.len() - 1);
    let mut file = File::create(folder.path().join("a.npy")).expect("the folder is ours");
    file.write_all(b"\x93NUMPY\x01\x00\x76\x00").expect("writable");
    file.write_all(header.as_bytes()).expect("writable");
    file.write_all(b"\n").expect("writable");
    file.set_len(FILE_BYTES).expect("writable");
    let job = folder.path().join("job.toml");
    let text = format!(
        "name = \"p\"\nworkload = \"gemm\"\n[params]\na = {{ input = \"a.npy\" }}\n\
         b = {{ random = \"uniform\", rows = {COLS}, cols = 16 }}\n"
    );
    std::fs::write(&job, text).expect("the folder is ours");
    job.to_str().expect("a path of letters").to_owned()
}

#[test]
fn an_upload_goes_on_when_the_hub_was_killed_in_the_middle_and_sends_little_twice() {
    let folder = TempDir::new().unwrap();
    let job = stage(&folder);
    let mut hub = Hub::start(&folder.path().join("hub"), 1);
    let mut client = hub.client(&["submit", &job]);
    let mut client = client.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("tessera starts");
    let stored = |hub: &Hub| hub.metric("tessera_upload_bytes_total");
    let before =
        until("some pieces are stored", || Some(stored(&hub)).filter(|it| *it >= 4 * INPUT_PIECE_BYTES));
    assert!(before < FILE_BYTES, "the hub is killed in the middle");
    hub.crash_and_restart();
    let mut said = String::new();
    client.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(client.wait().expect("it was our child").success(), "{said}");
    let after = stored(&hub);
    println!("{before} bytes were stored before the kill and {after} after it, of {FILE_BYTES}");
    assert!(after <= FILE_BYTES - before, "{after} bytes were sent again after {before} had been stored");
    assert!(after > 0 && said.contains("trying again") && said.contains("are at the hub already"), "{said}");

    let again = hub.client(&["submit", &job]).output().expect("tessera runs");
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && said.contains("a.npy is at the hub already"), "{said}");
    assert_eq!(stored(&hub), after, "nothing is sent twice");
}
