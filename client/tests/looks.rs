//! Quick looks at climate and catastrophe jobs: honest results hold, and each lie is found by the check that is named
//! for it.

#[path = "looks/hub.rs"]
mod hub;
#[path = "looks/job.rs"]
mod job;

use std::collections::BTreeMap;

use bytes::Bytes;
use job::{Job, npy};
use serde_json::{Value, json};
use tessera_protocol::id::Digest;
use tessera_protocol::spec::{FileFormat, JobSpec, Params, ScalingName, StagedParams};

fn climate(spec: &mut JobSpec) -> &mut tessera_protocol::spec::ClimateParams {
    match &mut spec.params {
        Params::Staged(StagedParams::Climate(params)) => params,
        _ => panic!("the example is an analysis"),
    }
}

/// The example with arrays that are easily changed.
fn winters() -> Job {
    Job::example("climate.toml", |spec| climate(spec).formats = vec![FileFormat::Npy])
}

/// An analysis of an array whose modes fall off by a factor.
fn falling(samples: usize, cells: usize, factor: f64, params: Value) -> Job {
    let rank = samples.min(cells);
    let wave = |a: usize, b: usize| ((a * a + 3) as f64 * (b + 1) as f64 * 0.618_034).sin();
    let value = |sample: usize, cell: usize| {
        let terms = (0..rank)
            .map(|mode| factor.powi(mode as i32) * wave(mode + 1, sample) * wave(mode + 7, cell + 2));
        280.0 + terms.sum::<f64>()
    };
    let numbers: Vec<f64> =
        (0..samples).flat_map(|sample| (0..cells).map(move |cell| value(sample, cell))).collect();
    let bytes = Bytes::from(npy(&[samples, cells], &numbers));
    let blake3 = Digest::of(&bytes);
    let mut job = json!({
        "name": "falling", "workload": "climate_pca", "params": { "field": ["f.npy"], "modes": 12 },
        "inputs": [{ "name": "f.npy", "blake3": blake3.to_string(), "bytes": bytes.len() }],
    });
    for (key, value) in params.as_object().unwrap() {
        job["params"][key] = value.clone();
    }
    Job::computed(JobSpec::from_value(&job).unwrap(), BTreeMap::from([(blake3, bytes)]))
}

#[test]
fn the_climate_example_holds_in_either_format_and_any_scaling() {
    Job::example("climate.toml", |_| {}).assert_honest();
    Job::example("climate.toml", |spec| {
        let params = climate(spec);
        params.formats = vec![FileFormat::Npy, FileFormat::Netcdf];
        params.scalings = vec![ScalingName::Multiplied, ScalingName::Divided];
        params.standardise = true;
    })
    .assert_honest();
    Job::example("climate.toml", |spec| {
        climate(spec).center = false;
        climate(spec).scalings = vec![ScalingName::Divided];
    })
    .assert_honest();
}

#[test]
fn new_samples_that_are_projected_are_left_out_and_said_so() {
    let job = Job::example("climate.toml", |spec| climate(spec).project = vec!["climate-2.nc".into()]);
    job.assert_honest();
    let left_out: Vec<&str> = job.look(1).left_out.iter().map(|one| one.name).collect();
    assert_eq!(left_out, ["projection of new samples"]);
}

#[test]
fn analyses_of_wide_tall_and_nearly_flat_fields_hold() {
    for (samples, cells) in [(40, 90), (90, 40), (7, 2_100), (2_100, 7)] {
        for factor in [0.9, 0.3, 0.03, 1e-4] {
            for params in [json!({}), json!({ "center": false }), json!({ "standardise": true })] {
                falling(samples, cells, factor, params).assert_honest();
            }
        }
    }
}

#[test]
fn lies_about_the_numbers_of_modes_are_found() {
    let job = winters();
    let eigenvalue = job.number("modes.0.eigenvalue");
    let found = job.clone().failing(|job| job.set("modes.0.eigenvalue", eigenvalue * 1.000_000_1));
    assert!(found.contains(&"eigenvalues descend and none is negative"), "{found:?}");
    let fraction = job.number("modes.1.variance_fraction");
    let found = job.clone().failing(|job| job.set("modes.1.variance_fraction", fraction * 1.000_000_1));
    assert_eq!(found, ["explained variance"]);
    let found = job.clone().failing(|job| job.set("modes.2.north_error", 1.0));
    assert_eq!(found, ["North's errors and near-degenerate modes"]);
    let found = job.clone().failing(|job| job.numbers("near_degenerate.npy", |flags| flags[0] = 1.0));
    assert_eq!(found, ["North's errors and near-degenerate modes"]);
    // A total that all fractions follow.
    let found = job.clone().failing(|job| {
        let total = job.number("total_variance") * (1.0 + 1e-9);
        job.set("total_variance", total);
        let mut fractions = Vec::new();
        for mode in 0..6 {
            fractions.push(job.number(&format!("modes.{mode}.eigenvalue")) / total);
            job.set(&format!("modes.{mode}.variance_fraction"), fractions[mode]);
        }
        job.numbers("variance_fractions.npy", |numbers| numbers.copy_from_slice(&fractions));
    });
    assert_eq!(found, ["total variance of the field"]);
    let found = job.failing(|job| job.set("orthonormality_error", 1e-6));
    assert_eq!(found, ["EOFs are orthonormal"]);
}

#[test]
fn lies_about_maps_are_found() {
    let job = winters();
    let cells = 7 * 24;
    let found = job.clone().failing(|job| {
        job.numbers("eofs.npy", |eofs| {
            eofs[cells..2 * cells].iter_mut().for_each(|loading| *loading *= 1.000_001);
        });
    });
    assert!(found.contains(&"EOFs are orthonormal"), "{found:?}");
    // A single loading of a small mode.
    let found = job.clone().failing(|job| job.numbers("eofs.npy", |eofs| eofs[5 * cells + 60] += 1e-5));
    assert!(found.contains(&"EOFs are the anomalies regressed onto the PCs"), "{found:?}");
    let found = job.clone().failing(|job| {
        for (name, width) in [("eofs.npy", cells), ("eofs_multiplied.npy", cells)] {
            job.numbers(name, |eofs| eofs[..width].iter_mut().for_each(|loading| *loading = -*loading));
        }
        for name in ["pcs.npy", "pcs_multiplied.npy"] {
            job.numbers(name, |pcs| pcs.iter_mut().step_by(6).for_each(|score| *score = -*score));
        }
    });
    assert_eq!(found, ["largest loading of each EOF is positive"]);
    let found = job.clone().failing(|job| job.numbers("eofs_multiplied.npy", |eofs| eofs[70] *= 1.000_001));
    assert_eq!(found, ["scalings are of one set of modes"]);
    let found = job.clone().failing(|job| job.numbers("mean.npy", |means| means[100] += 1e-9));
    assert_eq!(found, ["means and factors of cells"]);
    let found = job.clone().failing(|job| job.numbers("factor.npy", |factors| factors[100] *= 1.01));
    assert_eq!(found, ["means and factors of cells"]);
    let missing = |job: &mut Job| {
        job.numbers("eofs.npy", |eofs| {
            let hole =
                eofs.iter().position(|loading| loading.is_nan()).expect("the example has missing cells");
            eofs[hole] = 0.0;
        });
    };
    let found = job.clone().failing(missing);
    assert!(found.contains(&"EOFs are orthonormal"), "{found:?}");
    let found = job.failing(|job| {
        job.numbers("reconstruction.npy", |all| all.iter_mut().for_each(|value| *value *= 1.000_001));
    });
    assert_eq!(found, ["reconstruction of chosen samples"]);
}

#[test]
fn lies_about_time_series_are_found() {
    let job = winters();
    let found = job.clone().failing(|job| {
        job.numbers("pcs.npy", |pcs| pcs.iter_mut().skip(3).step_by(6).for_each(|score| *score = -*score));
    });
    assert!(found.contains(&"PCs are the anomalies projected onto the EOFs"), "{found:?}");
    assert!(found.contains(&"PCs of chosen samples"), "{found:?}");
    // One score of one sample, wherever it is.
    let found = job.clone().failing(|job| job.numbers("pcs.npy", |pcs| pcs[41 * 6 + 2] += 1e-4));
    assert!(found.contains(&"PCs are the anomalies projected onto the EOFs"), "{found:?}");
    let found = job.failing(|job| {
        job.numbers("pcs.npy", |pcs| pcs.iter_mut().step_by(6).for_each(|score| *score *= 1.000_001));
    });
    assert!(found.contains(&"PCs are uncorrelated with the eigenvalues as variances"), "{found:?}");
}

/// A job with all but one of its modes, and whatever follows from them.
fn without_mode(mut job: Job, left_out: usize) -> Job {
    let (modes, cells, samples) = (6, 7 * 24, 80);
    let kept: Vec<usize> = (0..modes).filter(|mode| *mode != left_out).collect();
    for name in ["eigenvalues", "variance_fractions", "north_errors", "near_degenerate"] {
        let name = format!("{name}.npy");
        let mut numbers = Vec::new();
        job.numbers(&name, |all| numbers = kept.iter().map(|mode| all[*mode]).collect());
        job.outputs.insert(name, npy(&[5], &numbers));
    }
    for name in ["eofs.npy", "eofs_multiplied.npy"] {
        let mut numbers = Vec::new();
        job.numbers(name, |all| {
            numbers = kept.iter().flat_map(|mode| &all[mode * cells..][..cells]).copied().collect();
        });
        job.outputs.insert(name.to_owned(), npy(&[5, cells], &numbers));
    }
    for name in ["pcs.npy", "pcs_multiplied.npy"] {
        let mut numbers = Vec::new();
        job.numbers(name, |all| {
            numbers = (0..samples)
                .flat_map(|row| kept.iter().map(move |mode| row * modes + mode))
                .map(|at| all[at])
                .collect();
        });
        job.outputs.insert(name.to_owned(), npy(&[samples, 5], &numbers));
    }
    let begin = job.document.find("\"modes\":[").unwrap() + "\"modes\":[".len();
    let length = job.document[begin..].find(']').unwrap();
    let list = job.document[begin..][..length].to_owned();
    let all: Vec<&str> = list.split_inclusive('}').map(|mode| mode.trim_start_matches(',')).collect();
    let kept: Vec<&str> = kept.iter().map(|mode| all[*mode]).collect();
    job.document.replace_range(begin..begin + length, &kept.join(","));
    job
}

#[test]
fn a_mode_that_is_left_out_is_found() {
    let with = |modes: u64| {
        Job::example("climate.toml", |spec| {
            let params = climate(spec);
            (params.formats, params.reconstruct, params.modes) = (vec![FileFormat::Npy], Vec::new(), modes);
        })
    };
    // Fewer than were asked for, although there are more.
    let found = without_mode(with(6), 5).failing(|_| {});
    assert_eq!(found, ["number of modes"]);
    // As many as were asked for, but not the leading ones: every other check holds.
    let (six, five) = (with(6), with(5));
    for left_out in [0, 1] {
        let found = without_mode(six.clone(), left_out).failing(|job| job.manifest = five.manifest.clone());
        assert_eq!(found, ["no larger mode is left out"], "without mode {}", left_out + 1);
    }
    assert_eq!(without_mode(six, 5).failing(|job| job.manifest = five.manifest.clone()), [""; 0]);
}

#[test]
fn outputs_that_are_cut_or_other_ones_are_found() {
    let job = winters();
    let found = job.clone().failing(|job| job.outputs.get_mut("pcs.npy").unwrap().truncate(2_000));
    assert_eq!(found, ["arrays of the output"]);
    let found = job.clone().failing(|job| _ = job.outputs.insert("eofs.npy".into(), npy(&[3], &[0.0; 3])));
    assert_eq!(found, ["arrays of the output"]);
    let both = Job::example("climate.toml", |spec| {
        climate(spec).formats = vec![FileFormat::Npy, FileFormat::Netcdf];
    });
    let found = both.clone().failing(|job| job.numbers("pcs.npy", |pcs| pcs[0] += 1.0));
    assert_eq!(found, ["arrays of the output"]);
    let found = both.failing(|job| job.outputs.get_mut("eof.nc").unwrap()[40] ^= 0xff);
    assert_eq!(found, ["arrays of the output"]);
    let found = job.failing(|job| job.document = "{\"outputs\":[]}".into());
    assert_eq!(found, ["result document"]);
}

/// One row of the event-loss table with other cells.
fn change_row(job: &mut Job, line: usize, change: impl Fn(&mut Vec<String>)) {
    job.lines("event_losses.csv", |lines| {
        let mut cells: Vec<String> = lines[line].split(',').map(str::to_owned).collect();
        change(&mut cells);
        lines[line] = cells.join(",");
    });
}

fn scale(cell: &mut String, factor: f64) {
    *cell = (cell.parse::<f64>().unwrap() * factor).to_string();
}

#[test]
fn the_catastrophe_example_holds_and_lies_about_its_sums_are_found() {
    let job = Job::example("catastrophe.toml", |_| {});
    job.assert_honest();
    let lie = |path: &'static str, factor: f64| {
        let number = job.number(path);
        job.clone().failing(|job| job.set(path, number * factor))
    };
    assert_eq!(lie("average_annual_loss", 1.0 + 1e-9), ["average annual loss"]);
    assert_eq!(lie("average_annual_ground_up", 1.0 + 1e-9), ["average annual loss"]);
    assert_eq!(lie("standard_deviation", 1.0 + 1e-9), ["standard deviation of the annual loss"]);
    assert_eq!(lie("events_with_loss", 2.0), ["events with a loss and the largest"]);
    assert_eq!(lie("largest.wind_ms", 1.01), ["events with a loss and the largest"]);
    assert_eq!(lie("events", 2.0), ["event-loss table"]);
    assert_eq!(lie("inputs.value", 1.1), ["portfolio and catalogue"]);
    assert_eq!(lie("inputs.points", 2.0), ["portfolio and catalogue"]);
    assert_eq!(lie("simulated_average", 1.0 + 1e-9), ["exceedance curves drawn again"]);
    assert_eq!(lie("return_periods.3.occurrence_exact", 1.0 + 1e-9), ["return periods"]);
}

#[test]
fn catastrophe_jobs_that_cost_nothing_or_follow_one_function_hold() {
    let with = |change: fn(&mut tessera_protocol::spec::CatastropheParams)| {
        Job::example("catastrophe.toml", |spec| match &mut spec.params {
            Params::Staged(StagedParams::Catastrophe(params)) => {
                (params.samples, params.years) = (40, 1_000);
                change(params);
            }
            _ => panic!("the example is a catastrophe model"),
        })
    };
    with(|params| params.wind.least_ms = 150.0).assert_honest();
    with(|params| params.curves = None).assert_honest();
    with(|params| params.perturbation.position_km = 900.0).assert_honest();
}

#[test]
fn lies_in_the_tables_of_a_catastrophe_job_are_found() {
    let job = Job::example("catastrophe.toml", |_| {});
    let found = job.clone().failing(|job| change_row(job, 20, |cells| scale(&mut cells[5], 0.999)));
    assert!(found.contains(&"average annual loss"), "{found:?}");
    // Whichever events are computed again, they are among these.
    let found = job.clone().failing(|job| {
        (1..=495).for_each(|line| change_row(job, line, |cells| scale(&mut cells[7], 1.000_001)));
    });
    assert!(found.contains(&"events computed again"), "{found:?}");
    let found = job.clone().failing(|job| change_row(job, 20, |cells| scale(&mut cells[5], 10.0)));
    assert!(found.contains(&"losses within the values insured"), "{found:?}");
    let found = job.clone().failing(|job| change_row(job, 20, |cells| scale(&mut cells[6], 1e6)));
    assert!(found.contains(&"losses within the values insured"), "{found:?}");
    for (column, text) in [(1, "AL011992"), (3, "7"), (4, "0.01"), (0, "500"), (0, "1")] {
        let found = job.clone().failing(|job| change_row(job, 20, |cells| cells[column] = text.into()));
        assert_eq!(found, ["event-loss table"], "column {column}");
    }
    let found = job.clone().failing(|job| change_row(job, 20, |cells| cells[5] = "NaN".into()));
    assert_eq!(found, ["event-loss table"]);
    let found = job.clone().failing(|job| job.lines("event_losses.csv", |lines| drop(lines.remove(30))));
    assert!(found.contains(&"average annual loss"), "{found:?}");
    let found = job.clone().failing(|job| job.lines("exceedance.csv", |lines| lines.swap(10, 11)));
    assert_eq!(found, ["exceedance curves fall", "exceedance curves drawn again"]);
    let found = job.clone().failing(|job| {
        job.lines("exceedance.csv", |lines| {
            *lines.last_mut().unwrap() = lines[lines.len() - 2].replace('5', "4")
        });
    });
    assert!(found.contains(&"exceedance curves drawn again"), "{found:?}");
    let found = job.clone().failing(|job| job.lines("return_periods.csv", |lines| drop(lines.pop())));
    assert_eq!(found, ["return periods"]);
    for name in ["event_losses.parquet", "footprint.svg"] {
        let found = job.clone().failing(|job| job.outputs.get_mut(name).unwrap()[200] ^= 1);
        assert_eq!(found, ["tables and pictures made again"], "{name}");
    }
    let found = job.failing(|job| job.outputs.get_mut("exceedance.parquet").unwrap()[200] ^= 1);
    assert_eq!(found, ["exceedance curves drawn again"]);
}

#[test]
fn a_look_from_the_command_line_lists_its_checks_and_ends_with_one_where_one_fails() {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut job = Job::example("catastrophe.toml", |_| {});
    let honest = hub::replay(job.clone(), &[]);
    assert_eq!(honest.status.code(), Some(0), "{}", text(&honest.stderr));
    let shown = text(&honest.stdout);
    assert!(shown.contains(" holds in every check\n") && !shown.contains("FAILS"), "{shown}");
    assert!(
        shown.contains("  holds     event-loss table: 500 events, 495 of them hit the portfolio\n"),
        "{shown}"
    );
    let average = job.number("average_annual_loss");
    job.set("average_annual_loss", average * 0.9);
    let lie = hub::replay(job.clone(), &[]);
    assert_eq!(lie.status.code(), Some(1));
    assert!(text(&lie.stdout).contains(" FAILS 1 of 11 checks\n"), "{}", text(&lie.stdout));
    assert!(text(&lie.stdout).contains(&format!("            expected {average}, ground-up ")));
    assert!(
        text(&lie.stderr).contains("honest computation gives: average annual loss\n"),
        "{}",
        text(&lie.stderr)
    );
    let lie = hub::replay(job.clone(), &["--json"]);
    assert_eq!(lie.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&lie.stdout).unwrap();
    assert_eq!((&document["consistent"], &document["left_out"]), (&json!(false), &json!([])));
    let check = |name: &str| {
        let checks = document["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap().clone()
    };
    assert_eq!(check("average annual loss")["holds"], json!(false));
    assert_eq!(check("return periods")["holds"], json!(true));
    assert!(check("return periods")["found"].is_string() && check("return periods")["expected"].is_string());
    // Bytes that have not the digest of the document are none to look at.
    job.lines("exceedance.csv", |lines| lines.truncate(20));
    let other = hub::replay(job, &[]);
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("output exceedance.csv: "), "{}", text(&other.stderr));
}
