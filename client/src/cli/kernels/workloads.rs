//! The jobs that `tessera kernels matrix` computes in every way.
//!
//! Small, since one of the ways is an interpreter, and together they touch every kernel.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tessera_client::compute::{ComputeError, Inputs, NoInputs};
use tessera_kernels::matrix::Matrix;
use tessera_protocol::id::Digest;
use tessera_protocol::spec::{Dtype, JobSpec, Manifest, SpecError};

/// A job and the three sizes of shard that it is cut into.
pub(super) struct Workload {
    pub(super) name: &'static str,
    spec: Value,
    sizes: [Value; 3],
    pub(super) files: Files,
}

/// Input files of built-in jobs.
#[derive(Default)]
pub(super) struct Files(Vec<(Digest, Bytes)>);

impl Inputs for Files {
    fn matrix(&self, input: Digest) -> Result<Arc<Matrix>, ComputeError> {
        NoInputs.matrix(input)
    }

    fn file(&self, input: Digest) -> Result<Bytes, ComputeError> {
        match self.0.iter().find(|(digest, _)| *digest == input) {
            Some((_, bytes)) => Ok(bytes.clone()),
            None => NoInputs.file(input),
        }
    }
}

impl Workload {
    pub(super) fn is_video(&self) -> bool {
        self.spec["workload"] == "video"
    }

    /// The job with one of its sizes, and what that size is called.
    pub(super) fn sized(&self, size: usize) -> Result<(Manifest, String), SpecError> {
        let mut spec = self.spec.clone();
        let size = &self.sizes[size];
        match spec["workload"].as_str() {
            // A segment is a shard.
            Some("video") => {}
            Some("gemm" | "syrk") => spec["params"]["tile"] = size.clone(),
            _ => spec["params"]["shard_size"] = size.clone(),
        }
        let words = match size {
            Value::Array(sides) => sides.iter().map(Value::to_string).collect::<Vec<_>>().join("x"),
            size => size.to_string(),
        };
        Ok((JobSpec::from_value(&spec)?.check()?, words))
    }
}

fn paths(name: &'static str, params: Value) -> Workload {
    let spec = json!({ "name": name, "workload": "monte_carlo", "seed": 20_261_121, "params": params });
    let sizes = [json!(500), json!(1_024), json!(4_000)];
    Workload { name, spec, sizes, files: Files::default() }
}

fn product(name: &'static str, workload: &str, params: Value, sizes: [Value; 3]) -> Workload {
    let spec = json!({ "name": name, "workload": workload, "seed": 20_261_121, "params": params });
    Workload { name, spec, sizes, files: Files::default() }
}

/// A job that goes through stages and reads these files.
fn staged(
    name: &'static str,
    workload: &str,
    params: Value,
    files: &[(&str, Vec<u8>)],
    sizes: [Value; 3],
) -> Workload {
    let digests: Vec<Digest> = files.iter().map(|(_, bytes)| Digest::of(bytes)).collect();
    let inputs: Vec<Value> = files
        .iter()
        .zip(&digests)
        .map(|((name, bytes), digest)| json!({ "name": name, "blake3": digest, "bytes": bytes.len() }))
        .collect();
    let spec =
        json!({ "name": name, "workload": workload, "seed": 20_261_121, "params": params, "inputs": inputs });
    let bytes = files.iter().map(|(_, bytes)| Bytes::from(bytes.clone()));
    Workload { name, spec, sizes, files: Files(digests.into_iter().zip(bytes).collect()) }
}

/// A field of a few waves and some noise, as `.npy`: more cells than times, or fewer.
fn field(times: u64, cells: u64) -> Vec<u8> {
    let mut bytes = tessera_planners::npy_header(times, cells, Dtype::F64);
    let mut noise = 1u64;
    for time in 0..times {
        for cell in 0..cells {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let waves = (time * cell % 17) as f64 - 8.0 + ((time * time + cell) % 5) as f64;
            let value = waves + (noise >> 40) as f64 / (1u64 << 24) as f64;
            bytes.extend(value.to_le_bytes());
        }
    }
    bytes
}

/// A hurricane of four points, in NOAA's format.
const TRACK: &str = "\
AL011992,             ANDREW,      4,
19920824, 0000,  , HU, 25.5N,  78.5W, 125,  930,
19920824, 0600,  , HU, 25.4N,  79.3W, 130,  937,
19920824, 1200,  , HU, 25.6N,  81.2W, 110,  951,
19920824, 1800,  , HU, 25.8N,  83.1W, 115,  947,
";

/// Houses along a coast.
fn portfolio() -> Vec<u8> {
    let mut text = "lat,lon,value,class,deductible,limit\n".to_owned();
    for house in 0..40 {
        let (lat, lon) = (25.2 + f64::from(house) * 0.02, -80.1 - f64::from(house % 7) * 0.05);
        text += &format!("{lat:.2},{lon:.2},{}00000,wood,1000,250000\n", 1 + house % 4);
    }
    text.into_bytes()
}

/// Two seconds of moving squares: an AVI file of pictures that no codec has touched.
fn clip() -> Vec<u8> {
    const SIDE: u32 = 64;
    const FRAMES: u32 = 48;
    const RATE: u32 = 24;
    const PICTURE_BYTES: u32 = SIDE * SIDE * 3 / 2;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let chunk = |name: &[u8; 4], bytes: Vec<u8>| [&name[..], &words(&[bytes.len() as u32]), &bytes].concat();
    let list = |name: &[u8; 4], chunks: &[Vec<u8>]| chunk(b"LIST", [&name[..], &chunks.concat()].concat());
    let picture = |frame: u32| {
        let inside = |at: u32| (frame..frame + 16).contains(&at);
        let luma = |at: u32| if inside(at % SIDE) && inside(at / SIDE) { 200 } else { (at % SIDE) as u8 };
        let chroma = std::iter::repeat_n(100 + frame as u8, (SIDE * SIDE / 2) as usize);
        (0..SIDE * SIDE).map(luma).chain(chroma).collect::<Vec<u8>>()
    };
    // Whole file; one stream; the stream's rate; its pictures, 12 bits a pixel; the pictures; where each begins.
    let mut main = words(&[1_000_000 / RATE, 0, 0, 0x10, FRAMES, 0, 1, PICTURE_BYTES, SIDE, SIDE]);
    main.extend([0; 16]);
    let mut stream =
        [&b"vidsI420"[..], &words(&[0, 0, 0, 1, RATE, 0, FRAMES, PICTURE_BYTES, u32::MAX, 0])].concat();
    stream.extend([0; 8]);
    let mut format = words(&[40, SIDE, SIDE, 1 | 12 << 16]);
    format.extend([&b"I420"[..], &words(&[PICTURE_BYTES, 0, 0, 0, 0])].concat());
    let stream = list(b"strl", &[chunk(b"strh", stream), chunk(b"strf", format)]);
    let pictures: Vec<Vec<u8>> = (0..FRAMES).map(|frame| chunk(b"00db", picture(frame))).collect();
    let entry =
        |frame: u32| [&b"00db"[..], &words(&[0x10, 4 + frame * (8 + PICTURE_BYTES), PICTURE_BYTES])].concat();
    let index = (0..FRAMES).flat_map(entry).collect();
    let parts =
        [list(b"hdrl", &[chunk(b"avih", main), stream]), list(b"movi", &pictures), chunk(b"idx1", index)];
    chunk(b"RIFF", [&b"AVI "[..], &parts.concat()].concat())
}

/// All of them.
pub(super) fn all() -> Vec<Workload> {
    let option = |id: &str, kind: &str, more: Value| {
        let mut option = json!({ "id": id, "underlying": "ACME", "kind": kind, "spot": 100, "strike": 105,
            "rate": 0.05, "dividend": 0.01, "volatility": 0.2, "expiry": 1 });
        for (field, value) in more.as_object().into_iter().flatten() {
            option[field] = value.clone();
        }
        option
    };
    let book = json!([
        option("call", "european_call", json!({})),
        option("put", "european_put", json!({ "underlying": "BETA", "quantity": -2 })),
        option("asian", "asian_call", json!({ "fixings": [0.25, 0.5, 0.75, 1.0] })),
        option("asian put", "asian_put", json!({ "fixings": [0.5, 1.0] })),
        option("digital", "digital_call", json!({ "payout": 10 })),
        option("digital put", "digital_put", json!({ "payout": 10, "underlying": "BETA" })),
        option("watched", "down_and_out_call", json!({ "barrier": 90, "monitoring": [0.25, 0.5, 1.0] })),
        option("bridged", "down_and_out_put", json!({ "barrier": 80, "monitoring": "continuous" })),
    ]);
    let basket = json!([
        { "id": "basket", "kind": "basket_call", "strike": 95, "rate": 0.04, "expiry": 1,
            "basket": [{ "underlying": "ACME", "weight": 0.5 }, { "underlying": "BETA", "weight": 0.5 }] },
        { "id": "spread", "kind": "basket_put", "strike": 5, "rate": 0.04, "expiry": 0.5,
            "basket": [{ "underlying": "ACME", "weight": 1 }, { "underlying": "BETA", "weight": -1 }] },
    ]);
    let american = option("american", "american_put", json!({ "exercise": 8 }));
    let heston = |scheme: &str| {
        let mut book = json!([
            option("call", "european_call", json!({})),
            option("asian", "asian_put", json!({ "fixings": [0.5, 1.0] })),
        ]);
        for option in book.as_array_mut().into_iter().flatten() {
            option.as_object_mut().and_then(|option| option.remove("volatility"));
        }
        let variance = json!({ "v0": 0.04, "kappa": 1.5, "theta": 0.05, "xi": 0.5, "rho": -0.7 });
        json!({ "model": "heston", "paths": 4_000, "book": book, "heston": { "ACME": variance }, "scheme": scheme,
            "steps_per_year": 12 })
    };
    let uniform = |rows: u64, cols: u64| json!({ "random": "uniform", "rows": rows, "cols": cols });
    let tiles = [json!([16, 16]), json!([48, 32]), json!([128, 128])];
    vec![
        paths("pi", json!({ "model": "pi", "paths": 10_000 })),
        paths("options, geometric Brownian motion", json!({ "model": "gbm", "paths": 4_000, "book": book })),
        paths(
            "options, exact quantiles",
            json!({ "model": "gbm", "paths": 4_000, "book": book, "quantiles": "exact" }),
        ),
        paths(
            "options, stopped early",
            json!({ "model": "gbm", "paths": 200_000, "book": book,
                "stop": { "standard_error": 0.15, "min_paths": 4_096 } }),
        ),
        paths(
            "options, antithetic, controlled, with Greeks",
            json!({ "model": "gbm", "paths": 4_000, "antithetic": true, "control_variate": true, "greeks": true,
                "book": book }),
        ),
        paths(
            "basket of correlated underlyings",
            json!({ "model": "gbm", "paths": 4_000, "book": basket,
                "underlyings": { "ACME": { "spot": 100, "volatility": 0.2 },
                    "BETA": { "spot": 90, "volatility": 0.3, "dividend": 0.01 } },
                "correlations": [{ "a": "ACME", "b": "BETA", "rho": 0.6 }] }),
        ),
        paths("Heston, quadratic-exponential", heston("qe")),
        paths("Heston, full truncation", heston("full_truncation")),
        paths(
            "American put",
            json!({ "model": "gbm", "paths": 4_000, "training_paths": 2_048, "book": [american] }),
        ),
        product(
            "gemm f64",
            "gemm",
            json!({ "dtype": "f64", "a": uniform(67, 53), "b": uniform(53, 71) }),
            tiles.clone(),
        ),
        product(
            "gemm f32, transposed, panels, alpha and beta",
            "gemm",
            json!({ "dtype": "f32", "alpha": 1.25, "beta": -0.5, "a": uniform(60, 65), "b": uniform(70, 60),
                "c": uniform(65, 70), "transpose_a": true, "transpose_b": true, "k_panel": 17 }),
            tiles,
        ),
        product(
            "syrk f64, lower",
            "syrk",
            json!({ "dtype": "f64", "a": uniform(75, 40), "k_panel": 16 }),
            [json!(16), json!(32), json!(128)],
        ),
        staged(
            "climate PCA, more cells than times",
            "climate_pca",
            json!({ "field": ["field"], "modes": 4, "reconstruct": [1] }),
            &[("field", field(9, 5_000))],
            [json!(1), json!(2), json!(5)],
        ),
        staged(
            "climate PCA, more times than cells",
            "climate_pca",
            json!({ "field": ["field"], "modes": 3, "standardise": true }),
            &[("field", field(5_000, 7))],
            [json!(1), json!(2), json!(5)],
        ),
        staged(
            "catastrophe model",
            "catastrophe",
            json!({ "tracks": { "input": "tracks" }, "exposure": "houses", "samples": 24, "years": 500,
                "return_periods": [10, 100] }),
            &[("tracks", TRACK.into()), ("houses", portfolio())],
            [json!(1), json!(7), json!(24)],
        ),
        video(),
    ]
}

/// Encoded with the build of this machine; where there is none, no path has the kernel.
fn video() -> Workload {
    let build = tessera_media::Encoder::find().map_or_else(|_| "0".repeat(16), |encoder| encoder.build());
    let params = json!({ "input": "clip", "encoder": build, "keyframe_interval": 12, "preset": "veryfast" });
    staged("video", "video", params, &[("clip", clip())], [json!(1), json!(1), json!(1)])
}
