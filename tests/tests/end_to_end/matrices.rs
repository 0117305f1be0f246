//! Matrix jobs with the real programs: files in, one file out, the same bytes whatever happens.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tessera_kernels::philox::Schedule;
use tessera_planners::monte_carlo::philox_key;
use tessera_protocol::id::Digest;

use super::programs::{Agent, Hub, run, until};

/// A matrix by rows.
struct Dense {
    rows: usize,
    cols: usize,
    entries: Vec<f64>,
}

impl Dense {
    /// Entries that no sum of products of them rounds away.
    fn new(rows: usize, cols: usize, salt: usize) -> Dense {
        let entry = |at: usize| ((at * 7_919 + salt * 104_729) % 2_003) as f64 / 1_001.0 - 1.0;
        Dense { rows, cols, entries: (0..rows * cols).map(entry).collect() }
    }

    fn at(&self, row: usize, col: usize) -> f64 {
        self.entries[row * self.cols + col]
    }

    /// The file that numpy would write.
    fn npy(&self, fortran: bool) -> Vec<u8> {
        let order = if fortran { "True" } else { "False" };
        let mut header = format!(
            "{{'descr': '<f8', 'fortran_order': {order}, 'shape': ({}, {}), }}",
            self.rows, self.cols
        );
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        for at in 0..self.entries.len() {
            let entry = match fortran {
                true => self.at(at % self.rows, at / self.rows),
                false => self.entries[at],
            };
            file.extend(entry.to_le_bytes());
        }
        file
    }
}

/// The definition, one chain of fused multiply-adds an element.
fn product(a: &Dense, b: &Dense, add: Option<(f64, f64, &Dense)>) -> Dense {
    let mut entries = Vec::new();
    for row in 0..a.rows {
        for col in 0..b.cols {
            let chain = (0..a.cols).fold(0.0, |sum, k| a.at(row, k).mul_add(b.at(k, col), sum));
            entries.push(match add {
                None => chain,
                Some((alpha, beta, c)) => alpha.mul_add(chain, beta * c.at(row, col)),
            });
        }
    }
    Dense { rows: a.rows, cols: b.cols, entries }
}

fn job(folder: &TempDir, workload: &str, params: &str) -> PathBuf {
    let text = format!("name = \"product\"\nworkload = \"{workload}\"\nseed = 5\n[params]\n{params}\n");
    let path = folder.path().join("product.toml");
    std::fs::write(&path, text).expect("the folder is ours");
    path
}

fn output_digest(document: &Value) -> &str {
    document["result"]["output"]["blake3"].as_str().expect("the result is a file")
}

/// As the protocol documents random entries.
fn uniform(stream: u32, rows: usize, cols: usize) -> Dense {
    let schedule = Schedule::new(philox_key(5));
    let entry = |at: usize| {
        let word = schedule.block(at as u64, 0, stream)[0] as u32;
        (2.0 * f64::from(word >> 9) + 1.0) / f64::from(1 << 23) - 1.0
    };
    Dense { rows, cols, entries: (0..rows * cols).map(entry).collect() }
}

#[test]
fn a_product_has_one_digest_for_any_agents_lanes_and_tiles() {
    let folder = TempDir::new().unwrap();
    let (a, b) = (uniform(0xffff_ff00, 150, 90), uniform(0xffff_ff01, 90, 130));
    let expected = Digest::of(&product(&a, &b, None).npy(false)).to_string();
    for (agents, lanes, tile) in [("1", "1", "[64, 64]"), ("3", "1", "[32, 100]"), ("3", "2", "[16, 16]")] {
        let params = format!(
            "dtype = \"f64\"\ntile = {tile}\na = {{ random = \"uniform\", rows = 150, cols = 90 }}\n\
             b = {{ random = \"uniform\", rows = 90, cols = 130 }}"
        );
        let document = run(&job(&folder, "gemm", &params), &["--agents", agents, "--lanes", lanes], None);
        assert_eq!(output_digest(&document), expected, "{agents} agents, {lanes} lanes, tile {tile}");
    }
}

#[test]
fn matrices_come_from_files_of_either_order_and_the_result_is_a_file() {
    let folder = TempDir::new().unwrap();
    let (a, b, c) = (Dense::new(70, 40, 1), Dense::new(40, 50, 2), Dense::new(70, 50, 3));
    for (name, matrix, fortran) in [("a.npy", &a, false), ("b.npy", &b, true), ("c.npy", &c, false)] {
        std::fs::write(folder.path().join(name), matrix.npy(fortran)).unwrap();
    }
    let params = "dtype = \"f64\"\nalpha = 1.5\nbeta = -0.25\ntile = [32, 32]\na = { input = \"a.npy\" }\n\
                  b = { input = \"b.npy\" }\nc = { input = \"c.npy\" }";
    let path = folder.path().join("result.npy");
    let document =
        run(&job(&folder, "gemm", params), &["--agents", "2", "--output", path.to_str().unwrap()], None);
    let expected = product(&a, &b, Some((1.5, -0.25, &c))).npy(false);
    assert_eq!(output_digest(&document), Digest::of(&expected).to_string());
    assert!(std::fs::read(&path).unwrap() == expected, "the file holds the product");
}

#[test]
fn a_product_interrupted_by_the_death_of_its_hub_goes_on_from_the_tiles_that_were_done() {
    let folder = TempDir::new().unwrap();
    let params = "dtype = \"f32\"\ntile = [16, 16]\nk_panel = 100\n\
                  a = { random = \"uniform\", rows = 700, cols = 300 }\n\
                  b = { random = \"uniform\", rows = 300, cols = 700 }";
    let job = job(&folder, "gemm", params);
    let expected = run(&job, &["--agents", "1"], None);
    let mut hub = Hub::start(&folder.path().join("hub"), 2);
    let _agents: Vec<Agent> =
        (0..2).map(|number| hub.agent(&folder.path().join(format!("agent-{number}")))).collect();
    let id = hub.json(&["submit", job.to_str().unwrap()])["id"].as_str().expect("an id").to_owned();
    let view = |hub: &Hub| hub.json(&["job", "show", &id]);
    let shards = view(&hub)["shards"].as_u64().unwrap();
    until("a part of the job is done", || {
        let done = view(&hub)["shards_done"].as_u64().unwrap();
        (done >= 300 || done == shards).then_some(())
    });
    hub.crash_and_restart();
    assert!(view(&hub)["shards_done"].as_u64() > Some(0), "tiles survive the crash");
    let done = until("the job has ended", || Some(view(&hub)).filter(|view| view["state"] == "done"));
    assert_eq!(done["digest"], expected["digest"]);
    let replayed = hub.json(&["job", "replay", &id]);
    assert_eq!((&replayed["same"], &replayed["digest"]), (&Value::Bool(true), &expected["digest"]));
    assert_file(&hub, &id, output_digest(&expected), folder.path());
}

/// The hub's file has the digest that the document names.
fn assert_file(hub: &Hub, id: &str, digest: &str, folder: &Path) {
    let path = folder.join("downloaded.npy");
    let output = hub.tessera(&["job", "result", id, "--output", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Digest::of(&std::fs::read(&path).unwrap()).to_string(), digest);
}

#[test]
fn a_symmetric_update_gives_the_half_that_was_asked_for() {
    let folder = TempDir::new().unwrap();
    let a = uniform(0xffff_ff00, 60, 35);
    let transposed = Dense {
        rows: a.cols,
        cols: a.rows,
        entries: (0..a.entries.len()).map(|at| a.at(at % a.rows, at / a.rows)).collect(),
    };
    let mut expected = product(&a, &transposed, None);
    for at in 0..expected.entries.len() {
        if at % 60 < at / 60 {
            expected.entries[at] = 0.0;
        }
    }
    let params = "dtype = \"f64\"\ntriangle = \"upper\"\ntile = 16\na = { random = \"uniform\", rows = 60, cols = 35 }";
    let document = run(&job(&folder, "syrk", params), &["--agents", "2"], None);
    assert_eq!(output_digest(&document), Digest::of(&expected.npy(false)).to_string());
}
