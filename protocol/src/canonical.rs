//! Canonical JSON (RFC 8785): one value, one text, so that a digest of the text names the value.
//!
//! Covers what this project's documents hold: object keys are ASCII, so sorting by bytes is sorting
//! by UTF-16 units; integers stay within ±(2^53 − 1), where the number format of ECMAScript is the
//! plain decimal one.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::Serialize;
use serde_json::Value;

/// Why a value has no canonical form.
#[derive(Debug)]
pub enum CanonicalError {
    /// Serde could not represent it as JSON (a non-string key, a non-finite number).
    NotJson(serde_json::Error),
    /// An integer that an IEEE double does not carry exactly.
    IntegerTooLarge,
}

impl fmt::Display for CanonicalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CanonicalError::NotJson(error) => write!(f, "cannot be written as JSON: {error}"),
            CanonicalError::IntegerTooLarge => {
                f.write_str("holds an integer beyond 2^53 - 1, which canonical JSON cannot carry")
            }
        }
    }
}

impl core::error::Error for CanonicalError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            CanonicalError::NotJson(error) => Some(error),
            CanonicalError::IntegerTooLarge => None,
        }
    }
}

/// The canonical bytes of a value. *Source*: RFC 8785.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(value).map_err(CanonicalError::NotJson)?;
    let mut text = String::new();
    write_value(&value, &mut text)?;
    Ok(text.into_bytes())
}

fn write_value(value: &Value, text: &mut String) -> Result<(), CanonicalError> {
    match value {
        Value::Number(number) => write_number(number, text)?,
        Value::Array(items) => {
            text.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                write_value(item, text)?;
            }
            text.push(']');
        }
        Value::Object(members) => {
            text.push('{');
            // Sorted here, since a dependency may switch `preserve_order` on for everyone.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            for (position, (key, member)) in sorted.into_iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                write_scalar(&Value::String(key.clone()), text)?;
                text.push(':');
                write_value(member, text)?;
            }
            text.push('}');
        }
        scalar => write_scalar(scalar, text)?,
    }
    Ok(())
}

fn write_scalar(value: &Value, text: &mut String) -> Result<(), CanonicalError> {
    text.push_str(&serde_json::to_string(value).map_err(CanonicalError::NotJson)?);
    Ok(())
}

fn write_number(number: &serde_json::Number, text: &mut String) -> Result<(), CanonicalError> {
    if let Some(integer) = number.as_i128() {
        if integer.unsigned_abs() > u128::from(crate::limits::SEED_MAX) {
            return Err(CanonicalError::IntegerTooLarge);
        }
        text.push_str(&integer.to_string());
    } else if let Some(float) = number.as_f64() {
        text.push_str(ryu_js::Buffer::new().format(float));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    #[expect(clippy::excessive_precision, reason = "the digits are the example's")]
    fn the_example_of_rfc_8785_comes_out_as_printed_there() {
        // Section 3.2.2 and 3.2.3, with the numbers array as floats.
        let value = json!({
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u{20ac}$\u{000F}\u{000a}A'\u{0042}\u{0022}\u{005c}\\\"\u{002f}",
            "literals": [null, true, false]
        });
        let text = String::from_utf8(to_vec(&value).unwrap()).unwrap();
        assert_eq!(
            text,
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
    }

    #[test]
    fn whole_floats_and_integers_of_the_same_value_have_one_form() {
        assert_eq!(to_vec(&json!([1.0, 100.0, -0.0])).unwrap(), to_vec(&json!([1, 100, 0])).unwrap());
    }

    #[test]
    fn an_integer_that_a_double_would_change_is_refused() {
        assert!(matches!(to_vec(&json!(u64::MAX)), Err(CanonicalError::IntegerTooLarge)));
    }
}
