//! Without priority and fairness: so many requests that read and so many that write are served at a time, no more
//! (`--max-requests-inflight`, `--max-mutating-requests-inflight`).

use crate::request::RequestInfo;
use crate::user::{MASTERS, User};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The limits; zero is none.
#[derive(Debug, Clone, Default)]
pub struct MaxInFlight {
    reads: Arc<Count>,
    writes: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    limit: u32,
    now: AtomicU32,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Count>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl MaxInFlight {
    pub fn new(reads: u32, writes: u32) -> Self {
        let count = |limit| Arc::new(Count { limit, now: AtomicU32::new(0) });
        MaxInFlight { reads: count(reads), writes: count(writes) }
    }

    /// Counts a request; nothing when there are too many. Those of `system:masters` always get an answer.
    pub(crate) fn begin(&self, user: &User, info: &RequestInfo) -> Option<InFlight> {
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch");
        let count = if reads { &self.reads } else { &self.writes };
        let before = count.now.fetch_add(1, Ordering::Relaxed);
        let counted = InFlight(count.clone());
        let fits = count.limit == 0 || before < count.limit;
        (fits || user.in_group(MASTERS)).then_some(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn reads_and_writes_are_counted_apart() {
        let max = MaxInFlight::new(1, 1);
        let begin = |user: &User, method: Method| {
            let info = RequestInfo::parse(&method, &"/api/v1/namespaces/a/pods".parse().unwrap());
            max.begin(user, &info)
        };
        let (jo, master) = (User::new("jo", &[]), User::new("m", &[MASTERS]));
        let held = begin(&jo, Method::GET);
        assert!(held.is_some() && begin(&jo, Method::GET).is_none());
        assert!(begin(&jo, Method::POST).is_some());
        assert!(begin(&master, Method::GET).is_some());
        drop(held);
        assert!(begin(&jo, Method::GET).is_some());
    }
}
