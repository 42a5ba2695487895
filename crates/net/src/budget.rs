//! How fast new conversations may begin.

use std::time::Instant;

/// New conversations a second, in the long run.
const RATE: f64 = 200.0;
/// How many at once.
pub(crate) const BURST: f64 = 500.0;

/// A token bucket.
#[derive(Debug)]
pub(crate) struct Budget {
    tokens: f64,
    at: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: BURST, at: now }
    }

    /// Whether one more may begin.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * RATE;
        self.tokens = (self.tokens + gained).min(BURST);
        self.at = now;
        let ok = self.tokens >= 1.0;
        if ok {
            self.tokens -= 1.0;
        }
        ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn burst_then_rate() {
        let start = Instant::now();
        let mut b = Budget::new(start);
        assert_eq!((0..1000).filter(|_| b.take(start)).count(), BURST as usize);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| b.take(later)).count(), RATE as usize);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| b.take(much_later)).count(), BURST as usize);
        assert!(!b.take(start), "time does not go back");
    }
}
