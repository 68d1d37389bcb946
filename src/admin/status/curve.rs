//! How far the first sync was when: a curve of a bounded number of points.

use std::time::Duration;

/// Points that are kept: more than a phone shows pixels for.
const POINTS_MAX: usize = 240;
/// Between two points at first; doubled each time the curve is full.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Shares by time, in even steps.
#[derive(Clone, Debug)]
pub struct Curve {
    points: Vec<(Duration, f64)>,
    pause: Duration,
}

impl Default for Curve {
    fn default() -> Curve {
        Curve {
            points: Vec::new(),
            pause: FIRST_PAUSE,
        }
    }
}

impl Curve {
    /// Takes what is known now, if enough time has gone by since the last point.
    pub fn add(&mut self, at: Duration, share: f64) {
        let is_due = match self.points.last() {
            Some((last, _)) => at >= *last + self.pause,
            None => true,
        };
        if !is_due {
            return;
        }
        if self.points.len() == POINTS_MAX {
            let mut is_kept = false;
            self.points.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.pause *= 2;
        }
        self.points.push((at, share));
    }

    /// Seconds since the process began, and the share that was done.
    pub fn points(&self) -> Vec<(f64, f64)> {
        let rounded = |value: f64, steps: f64| (value * steps).round() / steps;
        self.points
            .iter()
            .map(|(at, share)| (rounded(at.as_secs_f64(), 10.0), rounded(*share, 1e4)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sync_has_no_more_points_than_a_short_one_and_keeps_its_shape() {
        let mut curve = Curve::default();
        for second in 0..100_000u64 {
            curve.add(Duration::from_secs(second), second as f64 / 100_000.0);
        }
        let points = curve.points();
        assert!(points.len() <= POINTS_MAX && points.len() > POINTS_MAX / 2 - 1);
        assert_eq!(points[0], (0.0, 0.0));
        assert!(points.last().unwrap().0 > 99_000.0);
        let steps: Vec<f64> = points.windows(2).map(|two| two[1].0 - two[0].0).collect();
        assert!(steps.iter().all(|step| *step == steps[0]), "{steps:?}");
        assert!(points.is_sorted());
    }

    #[test]
    fn points_that_come_too_early_are_left_out() {
        let mut curve = Curve::default();
        for millis in [0, 400, 900, 1000, 1500, 2100] {
            curve.add(Duration::from_millis(millis), 0.5);
        }
        assert_eq!(curve.points().len(), 3);
    }
}
