//! What the parameters of a matrix job may be. Sizes are bounded before anything is allocated for them.

use alloc::format;
use alloc::string::ToString;

use super::Findings;
use crate::limits;
use crate::spec::{Dtype, GemmParams, Input, MatrixSpec, SyrkParams};

impl Findings {
    pub(super) fn gemm(&mut self, params: &GemmParams, inputs: &[Input]) {
        self.scalar("params.alpha", params.alpha, params.dtype);
        self.scalar("params.beta", params.beta, params.dtype);
        let [m, k] = shape(&params.a, params.transpose_a);
        let [k_of_b, n] = shape(&params.b, params.transpose_b);
        self.matrix("params.a", &params.a, params.dtype, inputs);
        self.matrix("params.b", &params.b, params.dtype, inputs);
        if k != k_of_b {
            let allowed = format!("op(A) has {k} columns and op(B) {k_of_b} rows: they must be equal");
            self.add("params.b", &format!("{} x {}", params.b.rows, params.b.cols), &allowed);
        }
        self.output([m, n], params.dtype);
        self.addend(params.beta, params.c.as_ref(), [m, n], params.dtype, inputs);
        if let Some([rows, cols]) = params.tile {
            self.tile("params.tile[0]", rows);
            self.tile("params.tile[1]", cols);
            self.shards(cut(m, rows) * cut(n, cols), k, params.k_panel);
        }
        self.panel(params.k_panel);
    }

    pub(super) fn syrk(&mut self, params: &SyrkParams, inputs: &[Input]) {
        self.scalar("params.alpha", params.alpha, params.dtype);
        self.scalar("params.beta", params.beta, params.dtype);
        let [n, k] = shape(&params.a, params.transpose);
        self.matrix("params.a", &params.a, params.dtype, inputs);
        self.output([n, n], params.dtype);
        self.addend(params.beta, params.c.as_ref(), [n, n], params.dtype, inputs);
        if let Some(tile) = params.tile {
            self.tile("params.tile", tile);
            let down = cut(n, tile);
            self.shards(down * (down + 1) / 2, k, params.k_panel);
        }
        self.panel(params.k_panel);
    }

    fn scalar(&mut self, field: &str, value: f64, dtype: Dtype) {
        let most = match dtype {
            Dtype::F32 => f64::from(f32::MAX),
            Dtype::F64 => f64::MAX,
        };
        self.magnitude(field, value, most);
    }

    fn matrix(&mut self, field: &str, matrix: &MatrixSpec, dtype: Dtype, inputs: &[Input]) {
        self.integer(&format!("{field}.rows"), matrix.rows, 1, limits::MATRIX_SIDE_MAX);
        self.integer(&format!("{field}.cols"), matrix.cols, 1, limits::MATRIX_SIDE_MAX);
        let bytes = u128::from(matrix.rows) * u128::from(matrix.cols) * u128::from(dtype.bytes());
        if bytes > u128::from(limits::MATRIX_BYTES_MAX) {
            let allowed = format!("a matrix may have at most {} bytes", limits::MATRIX_BYTES_MAX);
            self.add(field, &format!("{} x {} {}", matrix.rows, matrix.cols, dtype.word()), &allowed);
        }
        match (&matrix.input, matrix.random) {
            (Some(_), Some(_)) => self.add(field, "", "must have `input` or `random`, not both"),
            (None, None) => self.add(
                field,
                "",
                "must say where it comes from: `input = \"file.npy\"`, or `random = \"uniform\"` with rows and cols",
            ),
            (None, Some(_)) => {}
            (Some(name), None) => self.matrix_file(field, name, bytes, inputs),
        }
    }

    fn matrix_file(&mut self, field: &str, name: &str, bytes: u128, inputs: &[Input]) {
        match inputs.iter().find(|input| input.name == name) {
            None => self.add(
                &format!("{field}.input"),
                &format!("{name:?}"),
                "must be the name of an entry of `inputs`",
            ),
            // A header, and no more than the longest that the format has.
            Some(input) if !(bytes + 10..=bytes + (1 << 16)).contains(&u128::from(input.bytes)) => {
                let allowed =
                    format!("{name:?} has {} bytes, which is no .npy file of this shape", input.bytes);
                self.add(field, &format!("{bytes} bytes of elements"), &allowed);
            }
            Some(_) => {}
        }
    }

    fn output(&mut self, [rows, cols]: [u64; 2], dtype: Dtype) {
        let bytes = u128::from(rows) * u128::from(cols) * u128::from(dtype.bytes());
        if bytes > u128::from(limits::MATRIX_BYTES_MAX) {
            let allowed = format!("the result may have at most {} bytes", limits::MATRIX_BYTES_MAX);
            self.add("params", &format!("a result of {rows} x {cols} {}", dtype.word()), &allowed);
        }
    }

    fn addend(&mut self, beta: f64, c: Option<&MatrixSpec>, shape: [u64; 2], dtype: Dtype, inputs: &[Input]) {
        match c {
            None if beta != 0.0 => self.add("params.c", "", "missing: beta is not zero"),
            None => {}
            Some(_) if beta == 0.0 => self.add("params.c", "given", "must be absent where beta is zero"),
            Some(c) => {
                self.matrix("params.c", c, dtype, inputs);
                if [c.rows, c.cols] != shape {
                    let allowed = format!("must be {} x {}, as the product", shape[0], shape[1]);
                    self.add("params.c", &format!("{} x {}", c.rows, c.cols), &allowed);
                }
            }
        }
    }

    fn tile(&mut self, field: &str, side: u64) {
        self.integer(field, side, limits::TILE_SIDE_MIN, limits::TILE_SIDE_MAX);
    }

    /// Where the client names tiles there may be too many of them.
    fn shards(&mut self, tiles: u128, k: u64, k_panel: Option<u64>) {
        let shards = tiles.saturating_mul(cut(k, k_panel.unwrap_or(k)));
        if shards > u128::from(limits::SHARDS_MAX) {
            let allowed = format!(
                "a job has at most {} shards, one for each panel of a tile: take larger tiles or panels",
                limits::SHARDS_MAX
            );
            self.add("params.tile", &format!("{shards} shards"), &allowed);
        }
    }

    fn panel(&mut self, k_panel: Option<u64>) {
        if let Some(terms) = k_panel
            && terms < limits::K_PANEL_MIN
        {
            let allowed = format!("must be at least {}", limits::K_PANEL_MIN);
            self.add("params.k_panel", &terms.to_string(), &allowed);
        }
    }
}

/// How many parts there are; the part may be wrong yet.
fn cut(length: u64, part: u64) -> u128 {
    u128::from(length.div_ceil(part.max(1)))
}

fn shape(matrix: &MatrixSpec, transposed: bool) -> [u64; 2] {
    if transposed { [matrix.cols, matrix.rows] } else { [matrix.rows, matrix.cols] }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use serde_json::{Value, json};

    use crate::spec::JobSpec;

    fn refusal(workload: &str, params: Value) -> String {
        let job = json!({ "name": "p", "workload": workload, "params": params });
        let spec = JobSpec::from_json(job.to_string().as_bytes()).unwrap();
        spec.check().err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn random(rows: u64, cols: u64) -> Value {
        json!({ "random": "uniform", "rows": rows, "cols": cols })
    }

    #[test]
    fn a_product_may_be_larger_than_any_memory_but_not_than_a_file() {
        let square = |side, dtype| {
            let params = json!({ "dtype": dtype, "a": random(side, side), "b": random(side, side) });
            refusal("gemm", params)
        };
        assert_eq!(square(40_000, "f64"), "");
        assert_eq!(square(46_340, "f64"), "");
        assert_eq!(square(65_000, "f32"), "");
        let refused = square(46_341, "f64");
        assert!(
            refused.contains("params.a = 46341 x 46341 f64: a matrix may have at most 17179803648"),
            "{refused}"
        );
        assert!(refused.contains("a result of 46341 x 46341 f64: the result may have at most"), "{refused}");
        let small_operands = json!({ "dtype": "f64", "a": random(60_000, 10), "b": random(10, 60_000) });
        assert!(refusal("gemm", small_operands).contains("params = a result of 60000 x 60000"));
        let long = json!({ "dtype": "f64", "a": random(1 << 18, 1), "b": random(1, 1) });
        assert!(refusal("gemm", long).contains("params.a.rows = 262144: must be from 1 to 131072"));
    }

    #[test]
    fn a_cut_into_more_shards_than_a_job_may_have_says_so() {
        let side = 40_000;
        let gemm = |tile: [u64; 2], k_panel: u64| {
            let (a, b) = (random(side, side), random(side, side));
            refusal("gemm", json!({ "dtype": "f64", "a": a, "b": b, "tile": tile, "k_panel": k_panel }))
        };
        assert_eq!(gemm([64, 64], 40_000), "");
        let refused = gemm([16, 16], 16);
        assert!(
            refused.starts_with("params.tile = 15625000000 shards: a job has at most 1000000000"),
            "{refused}"
        );
        let syrk = |k_panel: u64| {
            refusal(
                "syrk",
                json!({ "dtype": "f64", "a": random(side, side), "tile": 32, "k_panel": k_panel }),
            )
        };
        // Half of the tiles: 781,875 of them.
        assert_eq!(syrk(40), "");
        assert!(syrk(20).contains("1563750000 shards"), "{}", syrk(20));
    }
}
