//! `etcd_request*`, `apiserver_*_list_*` and the waits of reads: what the store is asked for, by resource. The names are
//! upstream's, whichever engine the store has. A resource's rows are looked up once; then all is atomic additions.

use component::metrics::{Counter, CounterVec, Histogram, HistogramVec, Opts, Registry, Stability};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

const DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
const WAITS: [f64; 13] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];

/// What the store is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Get,
    List,
    Create,
    Update,
    Delete,
}

impl Operation {
    const ALL: usize = 5;

    fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::List => "list",
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }
}

/// Where the objects of a list come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The newest state, which is kept in memory.
    Cache,
    /// The history of the store.
    Storage,
}

/// The metrics of all resources.
pub struct Families {
    requests: CounterVec,
    errors: CounterVec,
    seconds: HistogramVec,
    cache: ListFamilies,
    storage: ListFamilies,
    waits: HistogramVec,
    consistent: CounterVec,
}

impl std::fmt::Debug for Families {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Families").finish_non_exhaustive()
    }
}

struct ListFamilies {
    lists: CounterVec,
    fetched: CounterVec,
    evaluated: Option<CounterVec>,
    returned: CounterVec,
    /// The value of the label `index`, where there is one.
    index: Option<&'static str>,
}

fn alpha<'a>(name: &'a str, help: &'a str) -> Opts<'a> {
    Opts { name, help, stability: Stability::Alpha }
}

impl Families {
    /// Adds them to a registry.
    pub fn new(registry: &Registry) -> Self {
        const OPERATION: [&str; 3] = ["operation", "group", "resource"];
        const RESOURCE: [&str; 2] = ["group", "resource"];
        const INDEXED: [&str; 3] = ["group", "resource", "index"];
        let counter = |name, help, labels: &[&str]| registry.counter_vec(alpha(name, help), labels);
        Families {
            requests: counter(
                "etcd_requests_total",
                "Etcd request counts for each operation and object type.",
                &OPERATION,
            ),
            errors: counter(
                "etcd_request_errors_total",
                "Etcd failed request counts for each operation and object type.",
                &OPERATION,
            ),
            seconds: registry.histogram_vec(
                alpha(
                    "etcd_request_duration_seconds",
                    "Etcd request latency in seconds for each operation and object type.",
                ),
                &OPERATION,
                &DURATIONS,
            ),
            cache: ListFamilies {
                lists: counter(
                    "apiserver_cache_list_total",
                    "Number of LIST requests served from watch cache",
                    &INDEXED,
                ),
                fetched: counter(
                    "apiserver_cache_list_fetched_objects_total",
                    "Number of objects read from watch cache in the course of serving a LIST request",
                    &INDEXED,
                ),
                evaluated: None,
                returned: counter(
                    "apiserver_cache_list_returned_objects_total",
                    "Number of objects returned for a LIST request from watch cache",
                    &RESOURCE,
                ),
                index: Some(""),
            },
            storage: ListFamilies {
                lists: counter(
                    "apiserver_storage_list_total",
                    "Number of LIST requests served from storage",
                    &RESOURCE,
                ),
                fetched: counter(
                    "apiserver_storage_list_fetched_objects_total",
                    "Number of objects read from storage in the course of serving a LIST request",
                    &RESOURCE,
                ),
                evaluated: Some(counter(
                    "apiserver_storage_list_evaluated_objects_total",
                    "Number of objects tested in the course of serving a LIST request from storage",
                    &RESOURCE,
                )),
                returned: counter(
                    "apiserver_storage_list_returned_objects_total",
                    "Number of objects returned for a LIST request from storage",
                    &RESOURCE,
                ),
                index: None,
            },
            waits: registry.histogram_vec(
                alpha(
                    "apiserver_watch_cache_read_wait_seconds",
                    "Histogram of time spent waiting for a watch cache to become fresh.",
                ),
                &RESOURCE,
                &WAITS,
            ),
            consistent: counter(
                "apiserver_watch_cache_consistent_read_total",
                "Counter for consistent reads from cache.",
                &["group", "resource", "success", "fallback"],
            ),
        }
    }
}

/// The metrics of one resource.
pub struct Measures {
    families: Arc<Families>,
    group: String,
    resource: String,
    requests: [OnceLock<Requests>; Operation::ALL],
    lists: [OnceLock<Lists>; 2],
    waits: OnceLock<Histogram>,
    consistent: [OnceLock<Counter>; 2],
}

struct Requests {
    all: Counter,
    failed: Counter,
    seconds: Histogram,
}

struct Lists {
    all: Counter,
    fetched: Counter,
    evaluated: Option<Counter>,
    returned: Counter,
}

impl std::fmt::Debug for Measures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Measures({} {})", self.group, self.resource)
    }
}

impl Measures {
    pub fn new(families: Arc<Families>, group: &str, resource: &str) -> Self {
        Measures {
            families,
            group: group.to_owned(),
            resource: resource.to_owned(),
            requests: Default::default(),
            lists: Default::default(),
            waits: OnceLock::new(),
            consistent: Default::default(),
        }
    }

    fn labels(&self) -> [&str; 2] {
        [&self.group, &self.resource]
    }

    /// The store was asked, and has answered.
    pub(crate) fn asked(&self, operation: Operation, began: Instant, failed: bool) {
        let row = self.requests[operation as usize].get_or_init(|| {
            let labels = [operation.name(), &self.group, &self.resource];
            let families = &self.families;
            Requests {
                all: families.requests.with(&labels),
                failed: families.errors.with(&labels),
                seconds: families.seconds.with(&labels),
            }
        });
        row.all.inc();
        row.seconds.observe_since(began);
        if failed {
            row.failed.inc();
        }
        // Upstream's names; what is deleted has none.
        let name = match operation {
            Operation::Get => "cacher.Get",
            Operation::List => "List(recursive=true) etcd3",
            Operation::Create => "Create etcd3",
            Operation::Update => "GuaranteedUpdate etcd3",
            Operation::Delete => return,
        };
        crate::spans::stored(name, began, self.labels());
    }

    /// A list was made: of so many objects that were looked at, so many were returned.
    pub(crate) fn listed(&self, origin: Origin, seen: usize, returned: usize) {
        let row = self.lists[origin as usize].get_or_init(|| {
            let families = match origin {
                Origin::Cache => &self.families.cache,
                Origin::Storage => &self.families.storage,
            };
            let mut labels = self.labels().to_vec();
            let returned = families.returned.with(&labels);
            let evaluated = families.evaluated.as_ref().map(|evaluated| evaluated.with(&labels));
            labels.extend(families.index);
            let (all, fetched) = (families.lists.with(&labels), families.fetched.with(&labels));
            Lists { all, fetched, evaluated, returned }
        });
        row.all.inc();
        row.fetched.add(seen as u64);
        if let Some(evaluated) = &row.evaluated {
            evaluated.add(seen as u64);
        }
        row.returned.add(returned as u64);
    }

    /// A read waited until what it wants to see was there.
    pub(crate) fn waited(&self, began: Instant) {
        self.waits.get_or_init(|| self.families.waits.with(&self.labels())).observe_since(began);
    }

    /// A read of what is newest was made, or could not be.
    pub(crate) fn consistent(&self, success: bool) {
        let row = self.consistent[usize::from(success)].get_or_init(|| {
            let [group, resource] = self.labels();
            let success = if success { "true" } else { "false" };
            self.families.consistent.with(&[group, resource, success, "false"])
        });
        row.inc();
    }
}
