//! Numbers as people read them.

/// Most digits behind the point.
const DECIMALS_MAX: i32 = 8;
/// Significant digits of a number whose error is unknown.
const DIGITS_WITHOUT_ERROR: i32 = 6;

/// Digits behind the point that a standard error leaves meaningful: two significant digits of the error.
pub(super) fn decimals(value: f64, standard_error: Option<f64>) -> usize {
    let (scale, digits) = match standard_error {
        Some(error) if error.is_finite() && error > 0.0 => (error, 2),
        _ => (value.abs(), DIGITS_WITHOUT_ERROR),
    };
    if !scale.is_finite() || scale <= 0.0 {
        return 2;
    }
    // An error of 0.0996 rounds up to 0.10, whose first digit is one place further left.
    let exponent = scale.log10().floor() as i32;
    let rounded = (scale / 10f64.powi(exponent - digits + 1)).round();
    let exponent = exponent + i32::from(rounded >= 10f64.powi(digits));
    (digits - 1 - exponent).clamp(0, DECIMALS_MAX) as usize
}

/// A number with `decimals` digits behind the point and its thousands set apart.
pub(super) fn fixed(value: Option<f64>, decimals: usize) -> String {
    match value {
        Some(value) if value.is_finite() => grouped_text(&format!("{value:.decimals$}")),
        _ => "n/a".to_owned(),
    }
}

/// A count with its thousands set apart: `1,000,000`.
pub fn grouped(count: u64) -> String {
    grouped_text(&count.to_string())
}

fn grouped_text(text: &str) -> String {
    let (sign, text) = match text.strip_prefix('-') {
        // A value that rounds to nothing has no sign.
        Some(rest) if rest.chars().all(|c| c == '0' || c == '.') => ("", rest),
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (whole, fraction) = text.find('.').map_or((text, ""), |point| text.split_at(point));
    let mut grouped = String::from(sign);
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// Pads numbers so that their points stand under each other.
pub(super) fn aligned(numbers: &[String]) -> Vec<String> {
    let behind = |text: &String| text.find('.').map_or(0, |point| text.len() - point);
    let before = |text: &String| text.find('.').unwrap_or(text.len());
    let (left, right) =
        (numbers.iter().map(before).max().unwrap_or(0), numbers.iter().map(behind).max().unwrap_or(0));
    let pad = |text: &String| {
        format!("{:left$}{text}{:right$}", "", "", left = left - before(text), right = right - behind(text))
    };
    numbers.iter().map(pad).collect()
}

/// A span of time in the two largest units that say something.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{}.{:02} s", seconds, ms % 1000 / 10),
        10..60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_leaves_two_digits_of_itself() {
        let shown = |value: f64, error: f64| fixed(Some(value), decimals(value, Some(error)));
        assert_eq!(shown(10.450583572, 0.0147), "10.451");
        assert_eq!(shown(10.450583572, 0.00996), "10.451");
        assert_eq!(shown(10.450583572, 0.0095), "10.4506");
        assert_eq!(shown(-1_234_567.891, 12.3), "-1,234,568");
        assert_eq!(shown(-0.0001, 0.1), "0.00");
        assert_eq!(fixed(Some(3.25), decimals(3.25, None)), "3.25000");
        assert_eq!(fixed(None, 2), "n/a");
        assert_eq!(fixed(Some(f64::NAN), 2), "n/a");
    }

    #[test]
    fn points_stand_under_each_other() {
        let numbers = ["1.25", "1,000", "-3.1", "n/a"].map(str::to_owned);
        assert_eq!(aligned(&numbers), ["    1.25", "1,000   ", "   -3.1 ", "  n/a   "]);
    }

    #[test]
    fn time_is_told_in_fitting_units() {
        let told = [1_234, 12_340, 61_000, 3_660_000, 90_000_000].map(duration);
        assert_eq!(told, ["1.23 s", "12.3 s", "1 min 01 s", "1 h 01 min", "1 d 01 h"]);
    }
}
