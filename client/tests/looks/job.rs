//! A job computed here, whose result can be changed afterwards as a liar would.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;
use tessera_client::compute::{ComputeError, Finished, look_at_stages};
use tessera_client::spec_file;
use tessera_kernels::isa::Isa;
use tessera_kernels::look::Look;
use tessera_kernels::staged;
use tessera_planners::{Next, Plan, next_stage};
use tessera_protocol::id::Digest;
use tessera_protocol::product::{Output, ProductView};
use tessera_protocol::spec::{JobSpec, Manifest};
use tessera_protocol::staged::Task;
use tessera_protocol::unit::ShardIndex;

#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) manifest: Manifest,
    /// The result document's text, in which numbers keep every digit.
    pub(crate) document: String,
    pub(crate) inputs: BTreeMap<Digest, Bytes>,
    pub(crate) outputs: BTreeMap<String, Vec<u8>>,
}

impl Job {
    /// Of a file in `examples`, with other parameters.
    pub(crate) fn example(name: &str, change: impl Fn(&mut JobSpec)) -> Job {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let (mut spec, files) = spec_file::load_with_files(&path, &|_| None).unwrap();
        change(&mut spec);
        let read =
            |file: spec_file::LocalInput| (file.input.blake3, std::fs::read(file.path).unwrap().into());
        Job::computed(spec, files.into_iter().map(read).collect())
    }

    /// Computes every shard of every stage.
    pub(crate) fn computed(spec: JobSpec, inputs: BTreeMap<Digest, Bytes>) -> Job {
        let manifest = spec.check().unwrap();
        let mut plan = Plan::new(&manifest, 0).unwrap();
        let mut store = inputs.clone();
        let document = loop {
            let task = Task::decode(plan.kernel(), plan.task()).unwrap();
            let mut products = Vec::new();
            for index in plan.indices().start..plan.indices().end {
                let shard = plan.shard(ShardIndex(index)).unwrap();
                let find = |blake3: &[u8; 32]| store.get(&Digest(*blake3)).cloned();
                let units = (shard.first, shard.count);
                let bytes = staged::run(&task, units, &find, Isa::detect(), &|| false).unwrap();
                products.push(ProductView::decode(&bytes).unwrap().reference(Digest::of(&bytes)));
                store.insert(Digest::of(&bytes), bytes.into());
            }
            match next_stage(&manifest, &plan, products).unwrap() {
                Next::Finished(document) => break String::from_utf8(document).unwrap(),
                Next::Round(next) => plan = *next,
            }
        };
        let value: Value = serde_json::from_str(&document).unwrap();
        let outputs: Vec<Output> = serde_json::from_value(value["outputs"].clone()).unwrap();
        let bytes = |output: &Output| {
            let part = &output.parts[0];
            store[&part.product][part.offset as usize..][..part.bytes as usize].to_vec()
        };
        let outputs = outputs.iter().map(|output| (output.name.clone(), bytes(output))).collect();
        Job { manifest, document, inputs, outputs }
    }

    /// Looks at it with a key.
    pub(crate) fn look(&self, key: u32) -> Look {
        let look =
            look_at_stages(&self.manifest, self.document.as_bytes(), self, Isa::detect(), [key, 5], &|| {
                false
            });
        look.unwrap().expect("a job of stages")
    }

    /// The names of the checks that do not hold, for whoever changed the result.
    pub(crate) fn failing(mut self, lie: impl FnOnce(&mut Job)) -> Vec<&'static str> {
        lie(&mut self);
        let checks = self.look(11).checks;
        checks.into_iter().filter(|check| !check.holds).map(|check| check.name).collect()
    }

    #[track_caller]
    pub(crate) fn assert_honest(&self) {
        for key in 0..5 {
            let look = self.look(key);
            assert!(look.holds() && !look.checks.is_empty(), "{:#?}", look);
        }
    }

    /// A number of the document by its path, to the last bit.
    pub(crate) fn number(&self, path: &str) -> f64 {
        self.text(path).parse().unwrap()
    }

    /// Changes a number of the document.
    pub(crate) fn set(&mut self, path: &str, number: f64) {
        let (at, length) = self.place(path);
        self.document.replace_range(at..at + length, &number.to_string());
    }

    fn text(&self, path: &str) -> &str {
        let (at, length) = self.place(path);
        &self.document[at..at + length]
    }

    /// Where the number of `a.2.b` is: the document is canonical, so that it can be searched.
    fn place(&self, path: &str) -> (usize, usize) {
        let mut at = 0;
        for step in path.split('.') {
            let rest = &self.document[at..];
            at += match step.parse::<usize>() {
                Ok(index) => rest.match_indices('{').nth(index).expect("an element").0,
                Err(_) => {
                    let key = format!("\"{step}\":");
                    rest.find(&key).unwrap_or_else(|| panic!("{step} in {rest}")) + key.len()
                }
            };
        }
        (at, self.document[at..].find([',', '}', ']']).unwrap())
    }

    /// The numbers of an `.npy` output, to change.
    pub(crate) fn numbers(&mut self, name: &str, change: impl FnOnce(&mut [f64])) {
        let bytes = self.outputs.get_mut(name).unwrap();
        let begin = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let (words, []) = bytes[begin..].as_chunks_mut::<8>() else { panic!("{name} is of doubles") };
        let mut numbers: Vec<f64> = words.iter().map(|word| f64::from_le_bytes(*word)).collect();
        change(&mut numbers);
        words.iter_mut().zip(numbers).for_each(|(word, number)| *word = number.to_le_bytes());
    }

    /// The text of an output, to change.
    pub(crate) fn lines(&mut self, name: &str, change: impl FnOnce(&mut Vec<String>)) {
        let text = String::from_utf8(self.outputs.remove(name).unwrap()).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        self.outputs.insert(name.to_owned(), (lines.join("\n") + "\n").into_bytes());
    }
}

impl Finished for Job {
    fn input(&self, blake3: Digest, to: &mut dyn Write) -> Result<(), ComputeError> {
        to.write_all(&self.inputs[&blake3]).unwrap();
        Ok(())
    }

    fn output(&self, output: &Output, to: &mut dyn Write) -> Result<(), ComputeError> {
        let cause = "it was taken away".to_owned();
        let bytes = self.outputs.get(&output.name);
        let bytes = bytes.ok_or(ComputeError::Output { name: output.name.clone(), cause })?;
        to.write_all(bytes).unwrap();
        Ok(())
    }
}

/// An array as numpy saves it.
pub(crate) fn npy(shape: &[usize], numbers: &[f64]) -> Vec<u8> {
    let sides: Vec<String> = shape.iter().map(|side| format!("{side},")).collect();
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({}), }}", sides.join(" "));
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}
