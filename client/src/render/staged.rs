//! The result document of a job that went through stages, as text.
//!
//! Owns nothing but the form: what a document holds besides its files is shown as it is named there.

use serde::Deserialize;
use serde_json::{Map, Value};
use tessera_protocol::product::Output;

use super::number::grouped;
use super::{Style, columns, facts};

/// What the result document of such a job says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct StagedResult {
    workload: String,
    /// Its files.
    pub outputs: Vec<Output>,
    #[serde(flatten)]
    said: Map<String, Value>,
}

/// Rows of a list that are shown; the files hold all.
const ROWS_MAX: usize = 20;
/// Fields that say which row of a list it is.
const FIRST: [&str; 3] = ["mode", "name", "years"];
/// Counts from here on are written in groups of three digits: below, they may be years.
const GROUPED_MIN: u64 = 10_000;
/// Significant digits of a number.
const DIGITS: usize = 6;

impl StagedResult {
    /// Reads a result document; nothing where it is of another kind of workload.
    pub fn read(document: &[u8]) -> Option<StagedResult> {
        serde_json::from_slice(document).ok()
    }

    /// As text: facts first, then a table for each list, then the files.
    pub fn text(&self, style: Style) -> String {
        let title = match self.workload.as_str() {
            "climate_pca" => "Climate PCA",
            "catastrophe" => "Catastrophe model",
            "video" => "Video",
            other => other,
        };
        let mut known = Vec::new();
        let mut tables = String::new();
        self.said.iter().for_each(|(name, value)| tell(name, value, style, &mut known, &mut tables));
        let known: Vec<(&str, String)> =
            known.iter().map(|(name, value): &(String, String)| (name.as_str(), value.clone())).collect();
        let files = self.outputs.iter().map(|output| {
            let digest = output.blake3.to_string();
            vec![
                output.name.clone(),
                output.media_type.clone(),
                digest[..16].to_owned(),
                grouped(output.bytes),
            ]
        });
        let files = columns(&["file", "type", "blake3", "bytes"], 3, files.collect());
        format!("{}\n{}{tables}\n{}\n{files}", style.heading(title), facts(&known), style.heading("Files"))
    }
}

fn tell(name: &str, value: &Value, style: Style, known: &mut Vec<(String, String)>, tables: &mut String) {
    let words = name.replace('_', " ");
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                tell(&format!("{words} {field}"), value, style, known, tables);
            }
        }
        Value::Array(rows) if rows.iter().all(Value::is_object) && !rows.is_empty() => {
            let mut keys: Vec<&str> =
                rows[0].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
            // What says which row it is comes first; a canonical document has its fields by their names.
            keys.sort_by_key(|key| !FIRST.contains(key));
            let header: Vec<String> = keys.iter().map(|key| key.replace('_', " ")).collect();
            let header: Vec<&str> = header.iter().map(String::as_str).collect();
            let cells = rows
                .iter()
                .take(ROWS_MAX)
                .map(|row| keys.iter().map(|key| plain(row.get(*key).unwrap_or(&Value::Null))).collect());
            *tables += &format!("\n{}\n{}", style.heading(&words), columns(&header, 1, cells.collect()));
            if rows.len() > ROWS_MAX {
                *tables += &format!("  and {} more\n", rows.len() - ROWS_MAX);
            }
        }
        other => known.push((words, plain(other))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "n/a".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(count), _) if count < GROUPED_MIN => count.to_string(),
            (Some(count), _) => grouped(count),
            (None, Some(value)) => short(value),
            (None, None) => number.to_string(),
        },
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A number with a few significant digits, in the form that is easier to read.
fn short(value: f64) -> String {
    let magnitude = value.abs();
    if value != 0.0 && !(1e-4..1e15).contains(&magnitude) {
        return format!("{value:.*e}", DIGITS - 1);
    }
    if magnitude >= GROUPED_MIN as f64 && magnitude < 1e15 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", grouped(magnitude.round() as u64));
    }
    let whole = if magnitude >= 1.0 { magnitude.log10() as usize + 1 } else { 1 };
    let text = format!("{value:.*}", DIGITS.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_protocol::id::Digest;

    #[test]
    fn facts_come_first_then_lists_then_files() {
        let digest = Digest::of(b"x");
        let document = format!(
            r#"{{"workload":"climate_pca","times":65,"total_variance":1234.5678901,"loss":98822427.25,
            "modes":[{{"fraction":0.25,"mode":1}},{{"fraction":1e-9,"mode":2}}],
            "outputs":[{{"name":"pca.nc","media_type":"application/x-netcdf","bytes":4096,"blake3":"{digest}","parts":[]}}]}}"#
        );
        let text = StagedResult::read(document.as_bytes()).unwrap().text(Style::default());
        let expected = [
            "Climate PCA",
            "loss            98,822,427",
            "times           65",
            "total variance  1234.57",
            "mode    fraction",
            "0.25",
            "1.00000e-9",
            "pca.nc",
            "4,096",
        ];
        let mut rest = text.as_str();
        for part in expected {
            let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is not in its place in:\n{text}"));
            rest = &rest[at + part.len()..];
        }
        assert_eq!(StagedResult::read(br#"{"workload":"monte_carlo","model":"pi"}"#), None);
    }
}
