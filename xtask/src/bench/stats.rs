//! Medians and spreads: pure functions over what was measured.

use serde::{Deserialize, Serialize};

/// The middle and the edges of several measurements of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    /// Half of the measurements lie between the quartiles.
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) count: usize,
}

impl Spread {
    /// `None` of nothing; what is no number is left out by nobody, so it is a defect of the caller.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Self {
            median: quantile(&sorted, 0.5),
            lower: quantile(&sorted, 0.25),
            upper: quantile(&sorted, 0.75),
            min,
            max,
            count: sorted.len(),
        })
    }

    /// How far the middle half reaches, in parts of the median.
    pub(super) fn width(&self) -> f64 {
        (self.upper - self.lower) / self.median
    }
}

/// The value below which this part of the sorted values lies; between two of them, a straight line.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (place - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_not_the_mean() {
        let spread = Spread::of([3.0, 1.0, 100.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max, spread.count), (3.0, 1.0, 100.0, 3));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5, "between two, halfway");
    }

    #[test]
    fn quartiles_hold_the_middle_half() {
        let spread = Spread::of((1..=9).map(f64::from)).unwrap();
        assert_eq!((spread.lower, spread.median, spread.upper), (3.0, 5.0, 7.0));
        assert_eq!(spread.width(), 0.8);
    }

    #[test]
    fn of_one_it_is_that_one_and_of_none_nothing() {
        let spread = Spread::of([7.0]).unwrap();
        assert_eq!((spread.lower, spread.median, spread.upper, spread.width()), (7.0, 7.0, 7.0, 0.0));
        assert_eq!(Spread::of([]), None);
    }
}
