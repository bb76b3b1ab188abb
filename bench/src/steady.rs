//! Decides when a warm-up has lasted long enough.
//!
//! Some contenders learn while they run: slipring tries for some rings' lengths how to hand lines back, a branch predictor
//! and a virtual processor need their time as well. So a warm-up goes on, a probe of fixed length at a time, until the last
//! probes took the same time, and a run shows the same state however short it is.

/// The length of a probe in seconds.
pub const PROBE: f64 = 0.02;
/// The number of probes in a row that must agree.
const AGREE: usize = 3;
/// The ratio of the slowest to the fastest probe up to which they agree.
const APART: f64 = 1.05;
/// The most probes. On a machine that never becomes steady, the run is as it is.
const MOST: usize = 10;

/// The warm-up so far.
#[derive(Debug, Default)]
pub struct Steady {
    /// The figures of the probes: rates or times.
    figures: Vec<f64>,
}

impl Steady {
    /// Adds a probe's figure, and returns `true` if the warm-up is over.
    pub fn reached(&mut self, figure: f64) -> bool {
        self.figures.push(figure);
        let Some(last) = self.figures.last_chunk::<AGREE>() else {
            return false;
        };
        let least = last.iter().copied().fold(f64::INFINITY, f64::min);
        let most = last.iter().copied().fold(0.0, f64::max);
        most <= APART * least || self.figures.len() >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of probes that a warm-up makes of these.
    fn probes(figures: impl IntoIterator<Item = f64>) -> Option<usize> {
        let mut steady = Steady::default();
        let over = figures.into_iter().position(|f| steady.reached(f));
        over.map(|last| last + 1)
    }

    #[test]
    fn it_ends_when_three_agree() {
        assert_eq!(probes([10.0, 10.2, 10.1, 10.0]), Some(3));
        assert_eq!(probes([10.0, 8.0, 5.0, 5.1, 5.2, 5.2]), Some(5));
        assert_eq!(probes([10.0, 10.0]), None);
    }

    #[test]
    fn it_ends_on_a_restless_machine() {
        let restless = (0..100).map(|n| f64::from(1 + n % 2));
        assert_eq!(probes(restless), Some(MOST));
    }
}
