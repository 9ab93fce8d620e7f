// SPDX-License-Identifier: GPL-2.0

//! What several rounds of one measurement come to.
//!
//! A median with the least and the most beside it: rounds are few, and one of them that was
//! disturbed should neither move the result nor be hidden.

/// The rounds of one measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Summary {
    /// Summarises `values`; none if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted.get(middle.checked_sub(1)?)? + sorted[middle]) / 2.0
        };
        Some(Summary {
            median,
            least: *sorted.first()?,
            most: *sorted.last()?,
        })
    }

    /// How far the rounds are apart.
    pub fn spread(&self) -> f64 {
        self.most - self.least
    }
}

/// How many times one measurement is another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The ratio of the medians.
    pub of_medians: f64,
    /// The lowest of the ratios that rounds of the same number have.
    pub lowest: f64,
    /// The highest of them.
    pub highest: f64,
}

impl Ratio {
    /// The ratio of `numerators` to `denominators`; none where there is nothing to divide, or by.
    pub fn of(numerators: &[f64], denominators: &[f64]) -> Option<Self> {
        if denominators.contains(&0.0) {
            return None;
        }
        let of_rounds = Summary::of(numerators.iter().zip(denominators).map(|(a, b)| a / b))?;
        let numerator = Summary::of(numerators.iter().copied())?;
        let denominator = Summary::of(denominators.iter().copied())?;
        Some(Ratio {
            of_medians: numerator.median / denominator.median,
            lowest: of_rounds.least,
            highest: of_rounds.most,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_number_of_rounds() {
        let summary = Summary::of([30.0, 10.0, 1000.0]).expect("three values");
        assert_eq!(summary.median, 30.0);
        assert_eq!(summary.least, 10.0);
        assert_eq!(summary.most, 1000.0);
        assert_eq!(summary.spread(), 990.0);
    }

    #[test]
    fn even_number_of_rounds() {
        let summary = Summary::of([4.0, 1.0, 3.0, 2.0]).expect("four values");
        assert_eq!(summary.median, 2.5);
    }

    #[test]
    fn one_round() {
        let summary = Summary::of([7.0]).expect("one value");
        assert_eq!(summary.median, 7.0);
        assert_eq!(summary.spread(), 0.0);
    }

    #[test]
    fn no_round() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Ratio::of(&[], &[]), None);
        assert_eq!(Ratio::of(&[1.0], &[]), None);
    }

    #[test]
    fn the_ratio_is_of_medians_and_its_spread_of_rounds() {
        // Medians 20 and 4; the rounds in their order: 10 / 5, 20 / 4, 90 / 3.
        let ratio = Ratio::of(&[10.0, 20.0, 90.0], &[5.0, 4.0, 3.0]).expect("three rounds");
        assert_eq!(ratio.of_medians, 5.0);
        assert_eq!(ratio.lowest, 2.0);
        assert_eq!(ratio.highest, 30.0);
    }

    #[test]
    fn the_ratio_of_medians_may_be_outside_its_spread() {
        // Medians 2 and 2, but every round has another ratio than 1.
        let ratio = Ratio::of(&[1.0, 2.0, 3.0], &[2.0, 1.0, 2.5]).expect("three rounds");
        assert_eq!(ratio.of_medians, 1.0);
        assert_eq!(ratio.lowest, 0.5);
        assert_eq!(ratio.highest, 2.0);
    }

    #[test]
    fn nothing_to_divide_by() {
        assert_eq!(Ratio::of(&[1.0, 1.0], &[0.0, 1.0]), None);
    }
}
