// SPDX-License-Identifier: GPL-2.0

//! The axes of the pictures. All begin with 0, so that lengths can be compared, and know what is
//! written where.

use std::ops::Range;

use plotters::coord::ranged1d::KeyPointHint;
use plotters::coord::ranged1d::NoDefaultFormatting;
use plotters::coord::ranged1d::Ranged;
use plotters::coord::ranged1d::ValueFormatter;

/// How many steps an axis of times has at most.
const STEPS: u64 = 7;

/// An axis from 0 to some end.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    end: f64,
    labels: Vec<(f64, String)>,
}

impl Axis {
    /// An axis for times up to `most` microseconds, with labels in milliseconds: in steps of 1, 2
    /// or 5 of some unit, and ending with one of them.
    pub fn of_times(most: f64) -> Self {
        let mut unit = 1;
        let mut factors = [2, 5, 10].iter().cycle();
        let mut step = 1;
        while most > (STEPS * step) as f64 {
            let factor = *factors.next().unwrap_or(&10);
            step = unit * factor;
            if factor == 10 {
                unit = step;
            }
        }
        let decimals = match step {
            1000.. => 0,
            100.. => 1,
            10.. => 2,
            _ => 3,
        };
        let steps = ((most / step as f64).ceil() as u64).max(1);
        let labels = (0..=steps).map(|i| {
            let microseconds = (i * step) as f64;
            let milliseconds = microseconds / 1000.0;
            (microseconds, format!("{milliseconds:.decimals$}"))
        });
        Axis {
            end: (steps * step) as f64,
            labels: labels.collect(),
        }
    }

    /// An axis for `numbers`, with a label at each of them that is at least `distance`, a part of
    /// the whole axis, from the label before it.
    pub fn of_numbers(numbers: impl IntoIterator<Item = f64>, distance: f64) -> Self {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        // A little room behind the last one.
        let end = 1.03 * numbers.last().copied().unwrap_or(0.0).max(1.0);
        let mut labels: Vec<(f64, String)> = Vec::new();
        for number in numbers {
            let before = labels.last().map(|(before, _)| *before);
            if before.is_none_or(|before| number - before >= distance * end) {
                labels.push((number, format!("{number}")));
            }
        }
        Axis { end, labels }
    }

    /// What is written where.
    pub fn labels(&self) -> &[(f64, String)] {
        &self.labels
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (value / self.end * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.labels.iter().map(|(value, _)| *value).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..self.end
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let label = self.labels.iter().find(|(labelled, _)| labelled == value);
        label.map(|(_, label)| label.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.labels()
            .iter()
            .map(|(_, label)| label.as_str())
            .collect()
    }

    #[test]
    fn times() {
        let axis = Axis::of_times(1_100_000.0);
        assert_eq!(axis.range(), 0.0..1_200_000.0);
        assert_eq!(
            labels(&axis),
            ["0", "200", "400", "600", "800", "1000", "1200"]
        );
        let axis = Axis::of_times(2_900.0);
        assert_eq!(
            labels(&axis),
            ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0"]
        );
        assert_eq!(Axis::of_times(0.0).range(), 0.0..1.0);
    }

    #[test]
    fn numbers() {
        let axis = Axis::of_numbers([8.0, 1.0, 2.0, 8.0], 0.0);
        assert_eq!(labels(&axis), ["1", "2", "8"]);
        // There is no room for the 2.
        let axis = Axis::of_numbers([1.0, 2.0, 32.0, 64.0], 0.1);
        assert_eq!(labels(&axis), ["1", "32", "64"]);
    }

    #[test]
    fn pixels() {
        let axis = Axis::of_times(100_000.0);
        assert_eq!(axis.map(&0.0, (50, 850)), 50);
        assert_eq!(axis.map(&50_000.0, (50, 850)), 450);
        // The other way round, as for heights.
        assert_eq!(axis.map(&25_000.0, (400, 0)), 300);
    }
}
