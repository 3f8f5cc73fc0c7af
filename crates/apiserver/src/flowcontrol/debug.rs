//! `/debug/api_priority_and_fairness/*`: levels, queues and waiting requests, in tables.

use super::Flow;
use super::level::{About, Level};
use super::work::Work;
use crate::request::Query;
use apimachinery::time::MicroTime;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Rows with a tab after each comma, the columns aligned as Go's tabwriter does.
fn table(rows: Vec<Vec<String>>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells =
            rows.iter().filter(|row| row.len() > column + 1).map(|row| row[column].chars().count() + 2);
        cells.max().unwrap_or_default().max(8)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            match column + 1 < row.len() {
                true => out += &format!("{:<width$}", format!("{cell},"), width = widths[column]),
                false => out += cell,
            }
        }
        out.push('\n');
    }
    out
}

fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Flow {
    /// The table that is asked for, if there is one of that name.
    pub(crate) fn dump(&self, name: &str, query: &Query) -> Option<String> {
        match name {
            "dump_priority_levels" => Some(self.levels()),
            "dump_queues" => Some(self.queues()),
            "dump_requests" => {
                Some(self.requests(query.get("includeRequestDetails").is_some_and(|v| !v.is_empty())))
            }
            _ => None,
        }
    }

    fn levels(&self) -> String {
        let mut rows = vec![head(&[
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ])];
        for (name, held) in &self.config().levels {
            let level = &held.level;
            let (active, waiting) = level.show(|shown| {
                let active = shown.queues().iter().filter(|queue| !queue.waiting.is_empty()).count();
                (active, shown.waiting())
            });
            let counts = &level.counts;
            let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed).to_string();
            rows.push(vec![
                name.clone(),
                active.to_string(),
                level.is_idle().to_string(),
                held.quiescing.to_string(),
                waiting.to_string(),
                level.executing.load(Ordering::Relaxed).to_string(),
                read(&counts.dispatched),
                read(&counts.rejected),
                "0".into(),
                read(&counts.canceled),
            ]);
        }
        table(rows)
    }

    fn queues(&self) -> String {
        let mut rows = vec![head(&[
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ])];
        for (name, held) in &self.config().levels {
            held.level.show(|shown| {
                for (i, queue) in shown.queues().into_iter().enumerate() {
                    rows.push(vec![
                        name.clone(),
                        i.to_string(),
                        queue.waiting.len().to_string(),
                        queue.executing.to_string(),
                        queue.seats.to_string(),
                        queue.next_r,
                        queue.initial_seats.to_string(),
                        queue.max_seats.to_string(),
                        queue.work,
                    ]);
                }
            });
        }
        table(rows)
    }

    fn requests(&self, details: bool) -> String {
        let mut names = head(&[
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
            "FinalSeats",
            "AdditionalLatency",
            "StartTime",
        ]);
        if details {
            names.extend(head(&[
                "UserName",
                "Verb",
                "APIPath",
                "Namespace",
                "Name",
                "APIVersion",
                "Resource",
                "SubResource",
            ]));
        }
        let mut rows = vec![names];
        for held in self.config().levels.values() {
            let level = &held.level;
            level.show(|shown| {
                for (queue, shown) in shown.queues().into_iter().enumerate() {
                    for (index, (about, arrived, work)) in shown.waiting.into_iter().enumerate() {
                        rows.push(self.request(level, (queue, index), about, arrived, work, details));
                    }
                }
            });
        }
        table(rows)
    }

    fn request(
        &self,
        level: &Level,
        (queue, index): (usize, usize),
        about: &About,
        arrived: Duration,
        work: Work,
        details: bool,
    ) -> Vec<String> {
        let since = self.clock.monotonic().saturating_sub(arrived);
        let at = MicroTime::from(self.clock.now()).unix_micros() - since.as_micros() as i64;
        let mut row = vec![
            level.name.clone(),
            about.schema.clone(),
            queue.to_string(),
            index.to_string(),
            about.distinguisher.clone(),
            MicroTime::from_unix_micros(at).to_string(),
            work.initial.to_string(),
            work.last.to_string(),
            format!("{:?}", work.extra),
            "0001-01-01T00:00:00Z".into(),
        ];
        if details {
            let more = [
                &about.user,
                &about.verb,
                &about.path,
                &about.namespace,
                &about.name,
                &about.api_version,
                &about.resource,
                &about.subresource,
            ];
            row.extend(more.into_iter().cloned());
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::clock::SystemClock;
    use component::metrics::Registry;
    use expect_test::expect;
    use std::sync::Arc;

    #[test]
    fn tables() {
        let clock = Arc::new(SystemClock::default());
        let flow = Flow::new(600, Duration::from_secs(60), &Registry::new(), clock);
        let dump = |name: &str| flow.dump(name, &Query::parse("includeRequestDetails=1")).unwrap();
        expect![[r#"
            PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests, RejectedRequests, TimedoutRequests, CancelledRequests
            catch-all,         0,            true,   false,       0,               0,                 0,                  0,                0,                0
            exempt,            0,            true,   false,       0,               0,                 0,                  0,                0,                0
        "#]].assert_eq(&dump("dump_priority_levels"));
        expect![[r#"
            PriorityLevelName, FlowSchemaName, QueueIndex, RequestIndexInQueue, FlowDistingsher, ArriveTime, InitialSeats, FinalSeats, AdditionalLatency, StartTime, UserName, Verb,   APIPath, Namespace, Name,   APIVersion, Resource, SubResource
        "#]].assert_eq(&dump("dump_requests"));
        assert!(flow.dump("dump_nothing", &Query::parse("")).is_none());
    }
}
