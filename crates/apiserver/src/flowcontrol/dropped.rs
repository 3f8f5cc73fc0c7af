//! When refused clients are to come back: the more are refused, the later (upstream's dropped requests tracker).

use parking_lot::Mutex;

/// In seconds.
const LATEST: i64 = 32;

/// The refusals of one priority level.
#[derive(Debug, Default)]
pub(super) struct Dropped(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Refusals by second.
    history: Vec<(i64, i64)>,
    current: (i64, i64),
    retry_after: i64,
    raised: i64,
}

impl Default for State {
    fn default() -> Self {
        State { history: Vec::new(), current: (0, 0), retry_after: 1, raised: 0 }
    }
}

impl Dropped {
    /// A request is refused in this second; when it may be tried again.
    pub(super) fn note(&self, second: i64) -> i64 {
        let mut state = self.0.lock();
        if state.current.0 == second {
            state.current.1 += 1;
            return state.retry_after;
        }
        let (before, count) = std::mem::replace(&mut state.current, (second, 1));
        state.history.push((before, count));
        let kept = (2 * state.retry_after).min(LATEST);
        let recent = state.history.partition_point(|(at, _)| before - at > kept);
        state.history.drain(..recent);
        state.adjust(second);
        state.retry_after
    }
}

impl State {
    fn adjust(&mut self, now: i64) {
        let after = self.retry_after;
        let recent = self.history.iter().filter(|(at, _)| now - at <= after && *at < now);
        let dropped: i64 = recent.map(|(_, count)| count).sum();
        if now - self.raised >= after && dropped >= 3 * after {
            self.retry_after = (after * 2).min(LATEST);
            self.raised = now;
        } else if dropped < after && after > 1 {
            self.retry_after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_are_refused_the_later_they_come_back() {
        let dropped = Dropped::default();
        let second = |second: i64, count: i64| (0..count).map(|_| dropped.note(second)).last().unwrap();
        let storm: Vec<_> = (100..110).map(|at| second(at, 50)).collect();
        assert_eq!(storm, [1, 2, 2, 4, 4, 4, 4, 8, 8, 8]);
        let calm: Vec<_> = (130..136).map(|at| second(at, 1)).collect();
        assert_eq!(calm, [7, 6, 5, 4, 4, 4]);
    }
}
