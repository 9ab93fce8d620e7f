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

/// How much more one measurement is than another, round for round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The most likely difference.
    pub estimate: f64,
    /// The difference is between this
    pub lowest: f64,
    /// and this, with a probability of 95 % if there are enough rounds, which are six.
    pub highest: f64,
}

impl Difference {
    /// The difference of `minuends` and `subtrahends`; none without any.
    ///
    /// That is the estimator of Hodges and Lehmann and the interval that belongs to it, of the
    /// signed-rank test of Wilcoxon. One round that was disturbed neither moves nor widens them by
    /// much, and nothing is assumed of how figures are distributed.
    pub fn of(minuends: &[f64], subtrahends: &[f64]) -> Option<Self> {
        let of_rounds: Vec<f64> = minuends
            .iter()
            .zip(subtrahends)
            .map(|(a, b)| a - b)
            .collect();
        // The mean of each two of them, and of each with itself.
        let mut means: Vec<f64> = of_rounds
            .iter()
            .enumerate()
            .flat_map(|(i, a)| of_rounds[i..].iter().map(move |b| (a + b) / 2.0))
            .collect();
        means.sort_by(f64::total_cmp);

        // How many means of each end are left out: the sum of ranks that is exceeded with a
        // probability of 97.5 %, which is nearly normally distributed.
        let n = of_rounds.len() as f64;
        let deviation = (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt();
        // CAST: The number is rounded down, or to 0 if it is negative.
        let left_out = (n * (n + 1.0) / 4.0 - 1.96 * deviation) as usize;
        Some(Difference {
            estimate: Summary::of(means.iter().copied())?.median,
            lowest: *means.get(left_out)?,
            highest: *means.get(means.len().checked_sub(1 + left_out)?)?,
        })
    }

    /// Whether the one is more than the other: not just in some rounds.
    pub fn is_more(&self) -> bool {
        self.lowest > 0.0
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
    fn difference_of_rounds() {
        // 28 means, of which two at each end are left out: tables of the test say so for 7.
        let minuends = [3.0, 5.0, 2.0, 4.0, 1.0, 6.0, 100.0];
        let difference = Difference::of(&minuends, &[0.0; 7]).expect("seven rounds");
        assert_eq!(difference.estimate, 4.0);
        assert_eq!(difference.lowest, 2.0);
        // (100 + 3) / 2 is the fifth highest.
        assert_eq!(difference.highest, 52.5);
        assert!(difference.is_more());
        let other_way = Difference::of(&[0.0; 7], &minuends).expect("seven rounds");
        assert_eq!(other_way.highest, -2.0);
        assert!(!other_way.is_more());
    }

    #[test]
    fn difference_of_few_rounds() {
        let difference = Difference::of(&[1.0, 2.0], &[3.0, 1.0]).expect("two rounds");
        assert_eq!(difference.lowest, -2.0);
        assert_eq!(difference.highest, 1.0);
        assert!(!difference.is_more());
        assert_eq!(Difference::of(&[], &[]), None);
    }

    #[test]
    fn nothing_to_divide_by() {
        assert_eq!(Ratio::of(&[1.0, 1.0], &[0.0, 1.0]), None);
    }
}
