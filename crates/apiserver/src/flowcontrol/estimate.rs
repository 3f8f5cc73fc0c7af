//! How many seats a request takes: by what a list has to look through, by how many watchers a write has.

use super::work::{SeatSeconds, Work};
use crate::cache::list::parse_revision;
use crate::request::RequestInfo;
use crate::server::Server;
use std::time::Duration;

/// What one seat stands for, of a list's bytes; and the most bytes that a list from the cache holds at a time.
const BYTES_PER_SEAT: f64 = 100_000.0;
const LARGEST_CACHED: f64 = 1_000_000.0;
const MOST_LIST_SEATS: u32 = 100;
const MOST_WRITE_SEATS: u32 = 10;
const WATCHES_PER_SEAT: u32 = 10;
/// What a seat's share of watchers costs after a write. Upstream's servers need 5 ms for it; here an event is encoded once
/// for all of them, and hardly more than copied for each.
const EVENT: Duration = Duration::from_micros(100);
/// Objects whose size tells that of all.
const SAMPLE: usize = 8;

/// The seats of a list, or of a watch that begins with one.
pub(super) fn list(server: &Server, info: &RequestInfo, most: u32) -> Work {
    let most = at_most(most, MOST_LIST_SEATS);
    let Ok(options) = info.query.list_options() else { return Work::seats(most) };
    let version = options.resource_version.as_str();
    if info.verb == "watch" {
        let initial = options.send_initial_events == Some(true) || matches!(version, "" | "0");
        if !initial {
            return Work::ONE;
        }
    }
    if !info.name.is_empty() {
        return Work::ONE;
    }
    // Another server's: it costs next to nothing here.
    let Some(resource) = server.registry.resources.get(&info.group, &info.version, &info.resource) else {
        return Work::ONE;
    };
    if resource.prefix.is_empty() || parse_revision(version).is_err() {
        return Work::ONE;
    }
    let snapshot = server.registry.store.snapshot(&resource.prefix);
    let count = snapshot.entries.len();
    let sample: Vec<usize> = snapshot.entries.values().take(SAMPLE).map(|entry| entry.value.len()).collect();
    let mean = sample.iter().sum::<usize>() as f64 / sample.len().max(1) as f64;
    let limit = usize::try_from(options.limit).ok().filter(|limit| *limit > 0).unwrap_or(count);
    // Everything is in the cache here.
    let bytes = (count.min(limit) as f64 * mean).min(LARGEST_CACHED);
    Work::seats(((bytes / BYTES_PER_SEAT).ceil() as u32).clamp(1, most))
}

/// The seats of a write, which are kept for as long as its watchers hear of it.
pub(super) fn write(info: &RequestInfo, watches: u32, most: u32) -> Work {
    // Tokens are no objects: nobody watches them.
    let token = info.resource == "serviceaccounts" && info.subresource == "token";
    if token || watches < WATCHES_PER_SEAT {
        return Work::ONE;
    }
    let seats = watches.div_ceil(WATCHES_PER_SEAT);
    let work = SeatSeconds::of(f64::from(seats), EVENT);
    let last = seats.min(at_most(most, MOST_WRITE_SEATS));
    let extra = work.per_seat(f64::from(last));
    // What is over before a timer could tell is not waited for.
    match extra < Duration::from_millis(1) {
        true => Work::ONE,
        false => Work { initial: 1, last, extra },
    }
}

fn at_most(level: u32, all: u32) -> u32 {
    if level == 0 { all } else { level.min(all) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn writes() {
        let check = |uri: &str, watches, most, expected: (u32, u32, u64)| {
            let info = RequestInfo::parse(&Method::POST, &uri.parse().unwrap());
            let work = write(&info, watches, most);
            assert_eq!((work.initial, work.last, work.extra.as_micros() as u64), expected);
        };
        check("/api/v1/namespaces/a/pods", 9, 0, (1, 0, 0));
        check("/api/v1/namespaces/a/pods", 100, 0, (1, 0, 0));
        check("/api/v1/namespaces/a/pods", 10_000, 0, (1, 10, 10_000));
        check("/api/v1/namespaces/a/pods", 10_000, 4, (1, 4, 25_000));
        check("/api/v1/namespaces/a/serviceaccounts/b/token", 10_000, 4, (1, 0, 0));
    }
}
