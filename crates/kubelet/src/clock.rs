//! The wall clock, in the two shapes the kubelet uses it in.

use apimachinery::time::Time;
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the epoch, as the CRI counts.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// The second, as the API counts.
pub(crate) fn time() -> Time {
    Time::from_unix(now().div_euclid(1_000_000_000))
}
