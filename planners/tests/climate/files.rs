//! Fields as they lie in files: members, latitudes of each cell, the example.

use std::path::Path;

use netcdf_reader::NcFile;
use serde_json::{Value, json};

use crate::driver::{Job, npy, numbers, reference_bytes, wide};

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
fn a_compressed_netcdf_4_file_has_the_modes_of_the_same_values_in_a_classic_one() {
    let params = json!({ "field": ["z"], "weights": "sqrt_cos_lat", "modes": 3, "formats": ["npy"] });
    let of = |name: &str| Job::new(params.clone(), &[("z", reference_bytes(name))]).done();
    let (classic, hdf5) = (of("wide.nc"), of("wide.nc4"));
    assert_eq!(hdf5.files, classic.files);
    assert_eq!(hdf5.document["cells_missing"], 2);
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
