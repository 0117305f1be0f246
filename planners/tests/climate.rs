//! Climate jobs from their specification to their result document and files: against the eofs package and
//! scikit-learn, over shard sizes and orders, and with files that are not what they should be.
//!
//! The numbers are those of `kernels/reference/climate.py`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use netcdf_reader::NcFile;
use serde_json::{Value, json};
use tessera_kernels::climate;
use tessera_kernels::isa::Isa;
use tessera_planners::{Next, Plan, next_stage};
use tessera_protocol::climate::Task;
use tessera_protocol::id::Digest;
use tessera_protocol::product::{Output, ProductView};
use tessera_protocol::spec::JobSpec;
use tessera_protocol::unit::ShardIndex;

/// What a job needs, and how it is run.
#[derive(Clone)]
struct Job {
    params: Value,
    inputs: Vec<(String, Vec<u8>)>,
    /// Shards are run last to first.
    backwards: bool,
    isa: Isa,
}

/// What a client gets.
struct Outcome {
    document: Value,
    digest: Digest,
    files: BTreeMap<String, Vec<u8>>,
    stages: Vec<String>,
    shards: u64,
}

impl Job {
    fn new(params: Value, inputs: &[(&str, Vec<u8>)]) -> Job {
        let inputs = inputs.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        Job { params, inputs, backwards: false, isa: Isa::detect() }
    }

    /// The outcome, or the words that the job ends with.
    fn outcome(&self) -> Result<Outcome, String> {
        let mut store: HashMap<[u8; 32], Bytes> = HashMap::new();
        let mut put = |bytes: Vec<u8>| {
            let digest = Digest::of(&bytes);
            store.insert(digest.0, bytes.into());
            digest
        };
        let inputs: Vec<Value> = self
            .inputs
            .iter()
            .map(|(name, bytes)| json!({ "name": name, "blake3": put(bytes.clone()), "bytes": bytes.len() }))
            .collect();
        let job = json!({
            "name": "test", "workload": "climate_pca", "params": self.params, "inputs": inputs
        });
        let spec = JobSpec::from_value(&job).and_then(JobSpec::check);
        let manifest = spec.unwrap_or_else(|error| panic!("{error}"));
        let mut plan = Plan::new(&manifest, 0).expect("the survey can be planned");
        let (mut stages, mut shards) = (Vec::new(), 0);
        loop {
            stages.push(plan.stage().expect("a stage").to_owned());
            shards += plan.shards();
            let products = self.stage(&plan, &mut store);
            match next_stage(&manifest, &plan, products).map_err(|error| error.to_string())? {
                Next::Round(next) => plan = *next,
                Next::Finished(document) => {
                    let digest = Digest::of(&document);
                    let document: Value = serde_json::from_slice(&document).unwrap();
                    let files = files(&document, &store);
                    return Ok(Outcome { document, digest, files, stages, shards });
                }
            }
        }
    }

    fn stage(
        &self,
        plan: &Plan,
        store: &mut HashMap<[u8; 32], Bytes>,
    ) -> Vec<tessera_protocol::product::ProductRef> {
        let task = Task::decode(plan.task()).expect("planners write tasks");
        let named: Vec<[u8; 32]> = plan.inputs().iter().map(|(digest, _)| digest.0).collect();
        let first = plan.indices().start;
        let mut products = Vec::new();
        let indices: Vec<u64> = match self.backwards {
            true => (0..plan.shards()).rev().collect(),
            false => (0..plan.shards()).collect(),
        };
        for index in indices {
            let shard = plan.shard(ShardIndex(first + index)).expect("a shard");
            // An agent has what the plan names and nothing else.
            let find = |digest: &[u8; 32]| store.get(digest).filter(|_| named.contains(digest)).cloned();
            let product = climate::run(&task, shard.first, shard.count, &find, self.isa, &|| false);
            let bytes = product.unwrap_or_else(|error| panic!("{error}")).encode().expect("a product");
            let digest = Digest::of(&bytes);
            products.push((index, ProductView::decode(&bytes).unwrap().reference(digest)));
            store.insert(digest.0, bytes.into());
        }
        products.sort_by_key(|(index, _)| *index);
        products.into_iter().map(|(_, product)| product).collect()
    }

    fn done(&self) -> Outcome {
        self.outcome().unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(&self) -> String {
        self.outcome().err().expect("the job ends with an error")
    }
}

/// The outputs of a document, as a client puts them together, digests compared.
fn files(document: &Value, store: &HashMap<[u8; 32], Bytes>) -> BTreeMap<String, Vec<u8>> {
    let outputs: Vec<Output> = serde_json::from_value(document["outputs"].clone()).unwrap();
    let mut files = BTreeMap::new();
    for output in outputs {
        let mut bytes = Vec::new();
        for part in &output.parts {
            bytes.extend(&store[&part.product.0][part.offset as usize..][..part.bytes as usize]);
        }
        assert_eq!(
            (Digest::of(&bytes), bytes.len() as u64),
            (output.blake3, output.bytes),
            "{}",
            output.name
        );
        files.insert(output.name, bytes);
    }
    files
}

fn reference_bytes(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/reference/climate").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn numbers(npy: &[u8]) -> (Vec<u64>, Vec<f64>) {
    let file = npyz::NpyFile::new(npy).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

fn npy(shape: &[u64], values: &[f64]) -> Vec<u8> {
    use npyz::WriterBuilder;
    let mut bytes = Vec::new();
    let options = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes);
    let mut writer = options.begin_nd().unwrap();
    writer.extend(values).unwrap();
    writer.finish().unwrap();
    bytes
}

/// Both hold the same numbers to a part of the largest of each row of the reference.
fn assert_agree(ours: &[u8], reference: &str, tolerance: f64) {
    let (shape, ours) = numbers(ours);
    let (expected_shape, expected) = numbers(&reference_bytes(&format!("{reference}.npy")));
    assert_eq!(shape, expected_shape, "{reference}");
    let largest =
        expected.iter().filter(|number| !number.is_nan()).fold(0.0, |most: f64, one| most.max(one.abs()));
    let mut worst = 0.0f64;
    for (place, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
        assert_eq!(ours.is_nan(), expected.is_nan(), "{reference}, {place}");
        if !ours.is_nan() {
            worst = worst.max((ours - expected).abs() / largest);
        }
    }
    println!("{reference}: {worst:.1e}");
    assert!(worst <= tolerance, "{reference}: {worst:e}");
}

const TOLERANCE: f64 = 1e-10;

fn wide() -> Job {
    let params = json!({
        "field": ["wide.nc"], "project": ["new.npy"], "weights": "sqrt_cos_lat", "modes": 5,
        "reconstruct": [3, 1], "formats": ["netcdf", "npy"]
    });
    let inputs = [("wide.nc", reference_bytes("wide.nc")), ("new.npy", reference_bytes("wide_new.npy"))];
    Job::new(params, &inputs)
}

fn tall() -> Job {
    let params = json!({ "field": ["tall.npy"], "modes": 5, "formats": ["npy"] });
    Job::new(params, &[("tall.npy", reference_bytes("tall.npy"))])
}

#[test]
fn a_weighted_field_has_the_modes_scores_errors_and_reconstruction_of_the_eofs_package() {
    let outcome = wide().done();
    let names = [
        "eofs",
        "pcs",
        "eofs_divided",
        "pcs_divided",
        "eofs_multiplied",
        "pcs_multiplied",
        "eigenvalues",
        "variance_fractions",
        "north_errors",
        "projected",
        "reconstruction",
    ];
    for name in names {
        assert_agree(&outcome.files[&format!("{name}.npy")], &format!("wide_{name}"), TOLERANCE);
    }
    assert_eq!(outcome.stages, ["survey", "cells", "gram", "eigen", "modes", "project", "finish"]);
    let document = &outcome.document;
    assert_eq!(document["variable"], "z");
    assert_eq!((&document["cells"], &document["cells_missing"]), (&json!(63), &json!(2)));
    assert_eq!(document["grid"][0], json!({ "name": "latitude", "size": 7 }));
    assert!(document["orthonormality_error"].as_f64().unwrap() < 1e-13);
}

#[test]
fn a_field_of_more_samples_than_cells_has_the_modes_of_scikit_learn() {
    let outcome = tall().done();
    for name in ["eofs", "pcs", "eigenvalues", "variance_fractions"] {
        let (shape, ours) = numbers(&outcome.files[&format!("{name}.npy")]);
        // The reference has no missing cells.
        let ours = match name {
            "eofs" => {
                let present: Vec<f64> = ours.into_iter().filter(|loading| !loading.is_nan()).collect();
                npy(&[shape[0], present.len() as u64 / shape[0]], &present)
            }
            _ => npy(&shape, &ours),
        };
        assert_agree(&ours, &format!("tall_{name}"), TOLERANCE);
    }
    assert_eq!(outcome.document["products_of"], "cells");
    assert_eq!(outcome.stages, ["survey", "cells", "gram", "eigen", "modes", "scores", "finish"]);
}

#[test]
fn a_standardised_field_has_the_modes_of_scikit_learn() {
    let params = json!({ "field": ["wide.npy"], "standardise": true, "modes": 5, "formats": ["npy"] });
    let outcome = Job::new(params, &[("wide.npy", reference_bytes("wide.npy"))]).done();
    let (_, eofs) = numbers(&outcome.files["eofs.npy"]);
    let present: Vec<f64> = eofs.into_iter().filter(|loading| !loading.is_nan()).collect();
    assert_agree(&npy(&[5, 61], &present), "standard_eofs", TOLERANCE);
    for name in ["pcs", "eigenvalues", "variance_fractions"] {
        assert_agree(&outcome.files[&format!("{name}.npy")], &format!("standard_{name}"), TOLERANCE);
    }
    // Every cell has variance one.
    assert!((outcome.document["total_variance"].as_f64().unwrap() - 61.0).abs() < 1e-12);
}

#[test]
fn weights_from_a_file_are_those_from_the_latitude() {
    let params = json!({
        "field": ["wide.npy"], "weights": { "input": "w.npy" }, "modes": 5, "formats": ["npy"]
    });
    let inputs = [("wide.npy", reference_bytes("wide.npy")), ("w.npy", reference_bytes("wide_weights.npy"))];
    let outcome = Job::new(params, &inputs).done();
    assert_agree(&outcome.files["eofs.npy"], "wide_eofs", TOLERANCE);
    assert_agree(&outcome.files["eigenvalues.npy"], "wide_eigenvalues", TOLERANCE);
}

#[test]
fn the_netcdf_output_holds_the_same_numbers_with_the_coordinates_of_the_input() {
    let outcome = wide().done();
    let file = NcFile::from_bytes(&outcome.files["eof.nc"]).unwrap();
    for name in ["eofs", "eofs_divided", "pcs", "eigenvalues", "north_errors", "reconstruction", "projected"]
    {
        let (shape, expected) = numbers(&outcome.files[&format!("{name}.npy")]);
        let found = file.read_variable::<f64>(name).unwrap();
        assert_eq!(found.shape().iter().map(|side| *side as u64).collect::<Vec<_>>(), shape, "{name}");
        for (found, expected) in found.iter().zip(&expected) {
            let same = found.to_bits() == expected.to_bits() || (expected.is_nan() && *found > 9.9e36);
            assert!(same, "{name}: {found} for {expected}");
        }
    }
    let latitudes: Vec<f64> = file.read_variable::<f64>("latitude").unwrap().into_iter().collect();
    assert_eq!(latitudes, [80.0, 65.0, 50.0, 35.0, 20.0, 5.0, -10.0]);
    let time = file.variable("time").unwrap();
    assert_eq!(time.attribute("units").unwrap().value.as_string().unwrap(), "days since 1900-01-01");
    assert_eq!(file.read_variable::<f64>("time").unwrap()[[3]], 90.0);
}

#[test]
fn shard_sizes_orders_and_instruction_sets_give_one_digest() {
    // Several panels of cells, several tiles, several blocks of samples, in both ways.
    let generated = |samples: u64, cells: u64| {
        let value = |at: u64| ((at * 911 + at / cells * 577 + at * at % 89) % 2017) as f64 / 97.0;
        npy(&[samples, cells], &(0..samples * cells).map(value).collect::<Vec<_>>())
    };
    let params = json!({ "field": ["a.npy"], "project": ["b.npy"], "modes": 4, "reconstruct": [1] });
    let jobs = [
        (wide(), 9),
        (Job::new(params.clone(), &[("a.npy", generated(40, 3_000)), ("b.npy", generated(70, 3_000))]), 17),
        (Job::new(params, &[("a.npy", generated(150, 70)), ("b.npy", generated(9, 70))]), 20),
    ];
    for (job, shards) in jobs {
        let whole = job.done();
        for size in [1, 2, 5] {
            let mut cut = job.clone();
            cut.params["shard_size"] = json!(size);
            cut.backwards = size != 2;
            for isa in Isa::available() {
                let found = Job { isa, ..cut.clone() }.done();
                assert_eq!(found.files, whole.files, "{size} on {isa}");
                assert_eq!(found.digest, whole.digest, "{size} on {isa}");
                assert!(size > 1 || found.shards >= shards, "{} shards", found.shards);
            }
        }
    }
}

#[test]
fn members_are_further_samples_and_keep_their_place_in_the_output() {
    let (shape, values) = numbers(&reference_bytes("wide.npy"));
    let half = values.len() / 2;
    let halves = [&values[..half], &values[half..]].map(|half| npy(&[12, shape[1], shape[2]], half));
    let [a, b] = halves;
    let params = json!({ "field": ["a.npy", "b.npy"], "modes": 3, "formats": ["netcdf", "npy"] });
    let together = Job::new(params, &[("a.npy", a), ("b.npy", b)]).done();
    let params = json!({ "field": ["wide.npy"], "modes": 3, "formats": ["npy"] });
    let whole = Job::new(params, &[("wide.npy", reference_bytes("wide.npy"))]).done();
    assert_eq!(together.files["eofs.npy"], whole.files["eofs.npy"]);
    let (shape, members) = numbers(&together.files["pcs.npy"]);
    assert_eq!((shape, members), (vec![2, 12, 3], numbers(&whole.files["pcs.npy"]).1));
    let file = NcFile::from_bytes(&together.files["eof.nc"]).unwrap();
    let names: Vec<&str> =
        file.variable("pcs").unwrap().dimensions().iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["member", "time", "mode"]);
}

#[test]
fn the_example_finds_the_patterns_it_was_made_from() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let text = std::fs::read_to_string(examples.join("climate.toml")).unwrap();
    let spec: Value = toml::from_str(&text).unwrap();
    let inputs =
        ["climate-1.nc", "climate-2.nc"].map(|name| (name, std::fs::read(examples.join(name)).unwrap()));
    let outcome = Job::new(spec["params"].clone(), &inputs).done();
    let document = &outcome.document;
    assert_eq!((&document["samples"], &document["cells_missing"]), (&json!(80), &json!(8)));
    let modes = document["modes"].as_array().unwrap();
    let fraction = |mode: usize| modes[mode]["variance_fraction"].as_f64().unwrap();
    // The see-saw, the wave, and noise.
    assert!(fraction(0) > 0.6 && fraction(1) > 0.1 && fraction(2) < 0.05, "{document:#}");
    assert_eq!(modes[0]["near_degenerate"], false);
    let file = NcFile::from_bytes(&outcome.files["eof.nc"]).unwrap();
    assert_eq!(file.read_variable::<f64>("pcs").unwrap().shape(), [2, 40, 6]);
    assert_eq!(file.read_variable::<f64>("lon").unwrap().len(), 24);
}

/// A NetCDF-3 file of one variable of two-byte numbers, with latitudes of its own, from the pieces of a header.
fn classic(dimensions: &[(&str, u32)], of_field: &[u32], of_latitude: &[u32], fields: &[i16]) -> Vec<u8> {
    let text = |text: &str| {
        let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let numbers =
        |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
    let list = |attributes: &[(&str, &str)]| {
        let mut bytes = numbers(&[12, attributes.len() as u32]);
        attributes
            .iter()
            .for_each(|(name, value)| bytes.extend([text(name), numbers(&[2]), text(value)].concat()));
        bytes
    };
    let size = |of: &[u32]| of.iter().map(|at| dimensions[*at as usize].1).product::<u32>();
    let mut head = [b"CDF\x01".to_vec(), numbers(&[0, 10, dimensions.len() as u32])].concat();
    dimensions.iter().for_each(|(name, size)| head.extend([text(name), numbers(&[*size])].concat()));
    head.extend(numbers(&[0, 0, 11, 2]));
    let latitude = [
        text("phi"),
        numbers(&[of_latitude.len() as u32]),
        numbers(of_latitude),
        list(&[("units", "degrees_north")]),
        numbers(&[5, 4 * size(of_latitude)]),
    ]
    .concat();
    let field = [
        text("x"),
        numbers(&[of_field.len() as u32]),
        numbers(of_field),
        list(&[("coordinates", "phi")]),
        numbers(&[3, 2 * size(of_field)]),
    ]
    .concat();
    let begin = (head.len() + latitude.len() + field.len() + 8) as u32;
    let latitudes: Vec<u8> = (0..size(of_latitude)).flat_map(|at| (at as f32 * 5.0).to_be_bytes()).collect();
    let values: Vec<u8> = fields.iter().flat_map(|value| value.to_be_bytes()).collect();
    let offsets = [begin, begin + latitudes.len() as u32].map(|offset| offset.to_be_bytes().to_vec());
    [head, latitude, offsets[0].clone(), field, offsets[1].clone(), latitudes, values].concat()
}

#[test]
fn a_dimension_of_members_and_latitudes_of_each_cell_are_found() {
    // Cells of a grid that is not regular: the latitude of each is its own.
    let dimensions = [("member", 2), ("time", 9), ("y", 3), ("x", 4)];
    let values: Vec<i16> = (0..216).map(|at| ((at * 911 + at / 12 * 77) % 2017) as i16).collect();
    let bytes = classic(&dimensions, &[0, 1, 2, 3], &[2, 3], &values);
    let params = json!({ "field": ["a"], "weights": "sqrt_cos_lat", "modes": 3, "formats": ["npy"] });
    let outcome = Job::new(params, &[("a", bytes)]).done();
    assert_eq!(outcome.document["samples"], 18);
    let (_, factors) = numbers(&outcome.files["factor.npy"]);
    for (cell, factor) in factors.iter().enumerate() {
        assert!((factor - (cell as f64 * 5.0).to_radians().cos().sqrt()).abs() < 1e-15, "{cell}");
    }
    // The same numbers with the same weights from a `.npy`.
    let field = npy(&[18, 3, 4], &values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>());
    let weights = npy(&[3, 4], &factors);
    let params = json!({ "field": ["a"], "weights": { "input": "w" }, "modes": 3, "formats": ["npy"] });
    let same = Job::new(params, &[("a", field), ("w", weights)]).done();
    assert_eq!(outcome.files["eofs.npy"], same.files["eofs.npy"]);
}

#[test]
fn nothing_of_a_file_that_is_wrong_is_analysed_and_the_message_says_what_to_do() {
    let wide = reference_bytes("wide.nc");
    let refused = |params: Value, inputs: &[(&str, Vec<u8>)]| Job::new(params, inputs).refused();
    let alone = |change: Value, bytes: &[u8]| {
        let mut params = json!({ "field": ["z.nc"], "weights": "sqrt_cos_lat" });
        params.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        refused(params, &[("z.nc", bytes.to_vec())])
    };
    assert_eq!(
        alone(json!({ "variable": "q" }), &wide),
        "z.nc: has no variable \"q\"; it has longitude, latitude, flag, time, z"
    );
    assert_eq!(alone(json!({ "units": "hPa" }), &wide), "z.nc: z has units \"m\" where hPa is needed");
    let renamed = |from: &[u8], to: &[u8]| {
        let at = wide.windows(from.len()).position(|window| window == from).unwrap();
        [&wide[..at], to, &wide[at + from.len()..]].concat()
    };
    assert_eq!(
        alone(json!({ "variable": "z" }), &renamed(b"days since", b"days after")),
        "z.nc: time has units \"days after 1900-01-01\" where a unit of time since a date, as in `days since \
         1900-01-01` is needed"
    );
    assert_eq!(
        alone(json!({}), &renamed(b"degrees_north", b"radians_north")),
        "z.nc: latitude has units \"radians_north\" where degrees_north is needed"
    );
    assert_eq!(
        alone(json!({}), &wide[..wide.len() - 4]),
        format!(
            "z.nc: cut short: it has {} bytes, and its header speaks of more; copy it again",
            wide.len() - 4
        )
    );
    assert!(alone(json!({}), &wide[..300]).starts_with("z.nc: its header is not that of a NetCDF-3 file: "));
    assert!(
        alone(json!({}), b"\x89HDF\r\n\x1a\n....").contains("convert NetCDF-4 (HDF5) with `nccopy -k nc6")
    );
    assert!(alone(json!({}), b"").starts_with("z.nc: neither a NetCDF-3 nor a .npy file"));
    assert_eq!(
        alone(json!({ "variable": "flag" }), &wide),
        "z.nc: flag: its dimensions must be time, or member and time, and then those of a grid"
    );
    let plain = npy(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 6.0, 5.0]);
    assert_eq!(
        alone(json!({}), &plain),
        "z.nc: has no latitude to weight by; give `params.weights` as a .npy, or `none`"
    );
    let other = npy(&[3, 3], &[1.0; 9]);
    let two = [("a.npy", plain.clone()), ("b.npy", other.clone())];
    assert_eq!(
        refused(json!({ "field": ["a.npy", "b.npy"] }), &two),
        "b.npy: its grid is cell 3, but that of a.npy is cell 2: they must be the same"
    );
    let weights = json!({ "field": ["a.npy"], "weights": { "input": "b.npy" } });
    assert_eq!(refused(weights, &two), "b.npy: its shape is [3, 3], but weights have that of the grid, [2]");
    let constant = [("a.npy", npy(&[3, 2], &[1.0, 0.1, 1.0, 0.1, 1.0, 0.1]))];
    assert_eq!(
        refused(json!({ "field": ["a.npy"] }), &constant),
        "the field has no variance: every cell is the same in all samples"
    );
    let missing = [("a.npy", npy(&[3, 2], &[f64::NAN; 6]))];
    assert_eq!(
        refused(json!({ "field": ["a.npy"] }), &missing),
        "every cell of the field is missing in all samples"
    );
    let huge = [("a.npy", npy(&[2, 2], &[1e200, 1.0, -1e200, 2.0]))];
    assert_eq!(
        refused(json!({ "field": ["a.npy"] }), &huge),
        "products of the field's anomalies are too large: change its units"
    );
    let single = [("a.npy", npy(&[1, 2], &[1.0, 2.0]))];
    assert_eq!(
        refused(json!({ "field": ["a.npy"] }), &single),
        "the field has one sample: modes of variance need two or more"
    );
}

#[test]
fn grids_of_other_places_do_not_fit_each_other() {
    let (a, mut b) = (reference_bytes("wide.nc"), reference_bytes("wide.nc"));
    // The first latitude, 80, is 60 in the second file.
    let at = b.windows(4).rposition(|window| window == 80.0f32.to_be_bytes()).unwrap();
    b[at..at + 4].copy_from_slice(&60.0f32.to_be_bytes());
    let params = json!({ "field": ["a.nc", "b.nc"] });
    assert_eq!(
        Job::new(params, &[("a.nc", a), ("b.nc", b)]).refused(),
        "b.nc: its latitude differs from that of a.nc: they must be of one grid"
    );
}

#[test]
fn a_cell_that_is_missing_at_some_times_is_named_whatever_the_shards() {
    let mut bytes = reference_bytes("wide.nc");
    // Of the last record, the cell of latitude 65 and longitude 20, the 12th of 63.
    let at = bytes.len() - 2 * 63 + 2 * 11;
    // Records end with a padded one.
    let pad = 2;
    bytes[at - pad..at - pad + 2].copy_from_slice(&(-32_000i16).to_be_bytes());
    for size in [1, 100] {
        let params = json!({ "field": ["z.nc"], "shard_size": size });
        assert_eq!(
            Job::new(params, &[("z.nc", bytes.clone())]).refused(),
            "cell 11 (latitude 65 degrees_north, longitude 20 degrees_east) is missing in 1 of 24 samples, first in \
             sample 24 of file 1 (time = 690 days since 1900-01-01): a cell must have all its values or none; \
             fill them or mask the cell"
        );
    }
    // Projected samples may lack what the field lacks, and nothing else.
    let (shape, mut new) = numbers(&reference_bytes("wide_new.npy"));
    new[63 + 30] = f64::NAN;
    let mut job = wide();
    job.inputs[1].1 = npy(&shape, &new);
    assert_eq!(
        job.refused(),
        "cell 30 (latitude 35 degrees_north, longitude 30 degrees_east) is missing in sample 2 of projected \
         file 1, but the modes have a loading there: fill it before projecting"
    );
}

#[test]
fn fewer_modes_come_back_where_fewer_have_a_variance() {
    // Three samples have two degrees of freedom.
    let field = npy(&[3, 4], &[1.0, 2.0, 0.0, 5.0, 3.0, 1.0, 0.0, 4.0, 2.0, 6.0, 0.0, 4.0]);
    let job = |params: Value| Job::new(params, &[("a.npy", field.clone())]);
    let outcome = job(json!({ "field": ["a.npy"] })).done();
    assert_eq!(outcome.document["modes"].as_array().unwrap().len(), 2);
    assert_eq!(outcome.document["cells_constant"], 1);
    assert_eq!(
        job(json!({ "field": ["a.npy"], "reconstruct": [3] })).refused(),
        "params.reconstruct names mode 3, but the field has 2 modes of variance"
    );
}

#[test]
fn modes_within_each_others_error_are_flagged() {
    // A wave that travels has two modes of one variance; a third pattern stands by itself.
    let value = |at: usize| {
        let (time, cell) = (at / 12, at % 12);
        let turn = [1.0, 0.0, -1.0, 0.0];
        let wave = turn[time % 4] * turn[cell % 4] + turn[(time + 3) % 4] * turn[(cell + 3) % 4];
        wave + if time % 2 == 0 && cell < 3 { 0.1 } else { 0.0 }
    };
    let field = npy(&[80, 12], &(0..960).map(value).collect::<Vec<_>>());
    let outcome = Job::new(json!({ "field": ["a.npy"], "modes": 3 }), &[("a.npy", field)]).done();
    let flags: Vec<&Value> =
        outcome.document["modes"].as_array().unwrap().iter().map(|mode| &mode["near_degenerate"]).collect();
    assert_eq!(flags, [true, false, false]);
}

#[test]
fn output_beyond_the_limit_is_refused_before_the_modes_are_computed() {
    let value = |at: usize| ((at * 911 + at / 7) % 2017) as f64;
    let field = npy(&[30, 60_000], &(0..1_800_000).map(value).collect::<Vec<_>>());
    let params = json!({ "field": ["a.npy"], "modes": 29, "reconstruct": [1], "formats": ["netcdf", "npy"] });
    let message = Job::new(params, &[("a.npy", field)]).refused();
    assert!(
        message.ends_with("ask for fewer modes or scalings, one format, or no reconstruction"),
        "{message}"
    );
}

/// Numbers that repeat with the seed.
fn random(seed: &mut u64) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize
}

#[test]
fn damaged_files_end_in_a_message_or_a_result_and_never_in_a_panic() {
    let mut seed = 7;
    let (mut results, mut messages) = (0, 0);
    for name in ["wide.nc", "wide.npy", "tall.npy"] {
        let whole = reference_bytes(name);
        // A header is where damage can hurt; its end is past the first 700 bytes of the NetCDF file.
        let header = if name == "wide.nc" { 800 } else { 128 };
        for round in 0..400 {
            let mut bytes = whole.clone();
            match round % 4 {
                0 => bytes.truncate(random(&mut seed) % whole.len()),
                1 => bytes[random(&mut seed) % header] ^= 1 << (random(&mut seed) % 8),
                2 => {
                    let at = random(&mut seed) % (header - 8);
                    bytes[at..at + 4].copy_from_slice(&(random(&mut seed) as u32).to_be_bytes());
                }
                _ => {
                    let at = random(&mut seed) % (header - 4);
                    bytes[at..at + 4].fill([0, 0xff, 0x7f][random(&mut seed) % 3]);
                }
            }
            let params = json!({ "field": ["damaged"], "modes": 2, "weights": "sqrt_cos_lat" });
            let params = if name == "wide.nc" { params } else { json!({ "field": ["damaged"], "modes": 2 }) };
            match Job::new(params, &[("damaged", bytes)]).outcome() {
                Ok(_) => results += 1,
                Err(message) => {
                    assert!(!message.is_empty() && message.len() < 2_000, "{message}");
                    messages += 1;
                }
            }
        }
    }
    assert!(results > 50 && messages > 500, "{results} results, {messages} messages");
}
