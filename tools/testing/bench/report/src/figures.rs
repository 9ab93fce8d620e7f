// SPDX-License-Identifier: GPL-2.0

//! How figures are written, in the Markdown and in the pictures alike.

use crate::statistics::Difference;
use crate::statistics::Ratio;
use crate::statistics::Summary;

/// What stands where nothing was measured.
pub const NOTHING: &str = "–";

/// A number with three digits that mean something.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// A difference, with a sign if there is one.
pub fn signed(value: f64) -> String {
    format!("{}{}", sign(value), number(value.abs()))
}

/// A difference, with what it may be by chance.
pub fn difference(difference: Difference) -> String {
    format!(
        "{} ({} to {})",
        signed(difference.estimate),
        signed(difference.lowest),
        signed(difference.highest)
    )
}

/// How much more something is, of which `part` is 1 for twice as much.
pub fn percent(part: f64) -> String {
    format!("{}{:.1} %", sign(part), 100.0 * part.abs())
}

/// Microseconds, written as milliseconds.
pub fn milliseconds(microseconds: f64) -> String {
    number(microseconds / 1000.0)
}

/// A median with the least and the most, each written by `write`.
pub fn summary(summary: Summary, write: fn(f64) -> String) -> String {
    format!(
        "{} ({})",
        write(summary.median),
        range(write(summary.least), write(summary.most))
    )
}

/// Counts of all the rounds: one number if it is the same in each.
pub fn counts(counts: &[u64]) -> String {
    match (counts.iter().min(), counts.iter().max()) {
        (Some(least), Some(most)) if least == most => least.to_string(),
        (Some(least), Some(most)) => range(least.to_string(), most.to_string()),
        _ => NOTHING.to_owned(),
    }
}

/// A ratio with its spread.
pub fn ratio(ratio: Ratio, decimals: usize) -> String {
    let write = |value: f64| format!("{value:.decimals$}");
    format!(
        "{} ({})",
        write(ratio.of_medians),
        range(write(ratio.lowest), write(ratio.highest))
    )
}

fn sign(value: f64) -> &'static str {
    match value {
        0.0 => "",
        ..0.0 => "−",
        _ => "+",
    }
}

fn range(least: String, most: String) -> String {
    format!("{least}–{most}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        assert_eq!(number(12345.6), "12346");
        assert_eq!(number(12.345), "12.3");
        assert_eq!(number(1.2345), "1.23");
        assert_eq!(number(0.0123), "0.012");
        assert_eq!(number(0.0), "0");
        assert_eq!(signed(-1.5), "−1.50");
        assert_eq!(signed(1.5), "+1.50");
        assert_eq!(percent(0.0314), "+3.1 %");
        let of_two = Difference::of(&[1.0, 2.0], &[3.0, 1.0]).expect("two rounds");
        assert_eq!(difference(of_two), "−0.500 (−2.00 to +1.00)");
        assert_eq!(milliseconds(230_000.0), "230");
    }

    #[test]
    fn counts_of_rounds() {
        assert_eq!(counts(&[8, 8, 8]), "8");
        assert_eq!(counts(&[8, 3, 5]), "3–8");
        assert_eq!(counts(&[]), NOTHING);
    }
}
