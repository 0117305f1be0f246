//! What is wrong with data is said in words that name the place; nothing panics.

use serde_json::{Value, json};

use crate::driver::{Job, npy, numbers, reference_bytes, wide};

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
    assert!(alone(json!({}), &wide[..300]).starts_with("z.nc: its header is not that of a NetCDF file: "));
    assert!(
        alone(json!({}), b"\x89HDF\r\n\x1a\n....").starts_with("z.nc: its header is not that of a NetCDF")
    );
    assert!(alone(json!({}), b"").starts_with("z.nc: neither a NetCDF nor a .npy file"));
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
    for name in ["wide.nc", "wide.nc4", "wide.npy", "tall.npy"] {
        let whole = reference_bytes(name);
        // A header is where damage can hurt; its end is past the first 700 bytes of the NetCDF file.
        let header = if name == "wide.nc" {
            800
        } else if name == "wide.nc4" {
            8_000
        } else {
            128
        };
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
            let params = if name.starts_with("wide.nc") {
                params
            } else {
                json!({ "field": ["damaged"], "modes": 2 })
            };
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
