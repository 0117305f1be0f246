//! Numbers of the eofs package and scikit-learn, and one digest whatever the cut.

use serde_json::json;
use tessera_kernels::isa::Isa;

use crate::driver::{Job, npy, numbers, reference_bytes, tall, wide};

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
