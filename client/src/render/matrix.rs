//! The result document of a matrix job as text.

use serde::Deserialize;
use tessera_protocol::id::Digest;

use super::number::grouped;
use super::{Style, facts};

/// What the result document of a matrix job says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MatrixResult {
    workload: String,
    dtype: String,
    shape: [u64; 2],
    terms: u64,
    #[serde(default)]
    triangle: Option<String>,
    /// The file.
    pub output: MatrixOutput,
}

/// The file that holds a matrix job's result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MatrixOutput {
    /// What it is called.
    pub name: String,
    /// BLAKE3 of its bytes.
    pub blake3: Digest,
    /// Its length.
    pub bytes: u64,
}

impl MatrixResult {
    /// Reads a result document; nothing where it is of another workload.
    pub fn read(document: &[u8]) -> Option<MatrixResult> {
        let result: MatrixResult = serde_json::from_slice(document).ok()?;
        matches!(result.workload.as_str(), "gemm" | "syrk").then_some(result)
    }

    /// Floating-point operations of the definition: two for each term of each element that is computed.
    fn operations(&self) -> f64 {
        let [rows, cols] = self.shape.map(|side| side as f64);
        let elements = if self.triangle.is_some() { rows * (rows + 1.0) / 2.0 } else { rows * cols };
        2.0 * elements * self.terms as f64
    }

    /// As text. `elapsed_ms` is how long it took.
    pub fn text(&self, style: Style, elapsed_ms: Option<u64>) -> String {
        let [rows, cols] = self.shape.map(grouped);
        let mut matrix = format!("{rows} x {cols} {}", self.dtype);
        if let Some(triangle) = &self.triangle {
            matrix += &format!(", {triangle} triangle");
        }
        let title = if self.workload == "syrk" { "Symmetric rank-k update" } else { "Matrix product" };
        let mut known = vec![("matrix", matrix), ("terms", format!("{} to an element", grouped(self.terms)))];
        if let Some(ms) = elapsed_ms.filter(|ms| *ms > 0) {
            let rate = self.operations() / (ms as f64 * 1e6);
            // Of a small product it says only how long everything else took.
            if rate >= 0.1 {
                known.push(("rate", format!("{rate:.1} GFLOP/s from submission to result")));
            }
        }
        let output = &self.output;
        known.push(("file", format!("{}, {} bytes", output.name, grouped(output.bytes))));
        known.push(("blake3", output.blake3.to_string()));
        format!("{}\n{}", style.heading(title), facts(&known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_told_by_its_shape_its_rate_and_its_file() {
        let digest = Digest::of(b"c");
        let document = format!(
            r#"{{"dtype":"f64","output":{{"blake3":"{digest}","bytes":16000128,"name":"c.npy"}},"shape":[1000,2000],"terms":500,"workload":"gemm"}}"#
        );
        let result = MatrixResult::read(document.as_bytes()).unwrap();
        assert_eq!(
            result.text(Style::default(), Some(100)),
            format!(
                "Matrix product\nmatrix  1,000 x 2,000 f64\nterms   500 to an element\nrate    20.0 GFLOP/s from submission to \
                 result\nfile    c.npy, 16,000,128 bytes\nblake3  {digest}\n"
            )
        );
        assert_eq!(MatrixResult::read(br#"{"workload":"monte_carlo","model":"pi"}"#), None);
    }
}
