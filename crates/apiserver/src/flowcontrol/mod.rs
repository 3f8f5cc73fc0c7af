//! API priority and fairness: the server's seats are shared among priority levels, and a level's among the flows of its
//! requests, so that nobody who floods the server drowns others.
//!
//! [`matching`] says which schema a request is of, [`estimate`] how many seats it takes, [`level`] gives them to it, now or
//! when [`queues`] say that it is its turn; [`share`] says how many each level has. [`config`] is what objects come to,
//! [`controller`] follows them, [`defaults`] are those that every cluster has.

mod config;
pub mod controller;
mod debug;
pub(crate) mod defaults;
mod demand;
mod dropped;
mod estimate;
mod level;
mod matching;
pub mod max_in_flight;
mod metrics;
mod queues;
mod share;
mod shuffle;
mod watches;
mod work;

pub(crate) use level::Ticket;
pub(crate) use watches::Counted;

use crate::body::{self, Answer};
use crate::request::RequestInfo;
use crate::server::Server;
use crate::user::User;
use apimachinery::clock::Clock;
use apimachinery::status::Status;
use component::metrics::Registry;
use config::{Config, Schema};
use http::{HeaderName, HeaderValue, StatusCode, header};
use level::{About, Kind, Request};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use watches::Watches;
use work::Work;

/// The longest time that a request waits in a queue, and the part of its time that it may.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const PART_TO_WAIT: u32 = 4;

/// See the module.
pub struct Flow {
    config: RwLock<Arc<Config>>,
    /// The seats of the whole server.
    total: u32,
    patience: Duration,
    watches: Arc<Watches>,
    metrics: metrics::Metrics,
    clock: Arc<dyn Clock>,
    /// Objects have changed.
    changed: Notify,
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow").field("total", &self.total).finish_non_exhaustive()
    }
}

/// A request that may be served: what it holds until it is, and how it was classified.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub ticket: Ticket,
    pub class: Class,
    /// A watch, counted.
    pub watch: Option<Counted>,
}

/// The objects that classified a request, by UID: their names might tell clients what they need not know.
#[derive(Debug)]
pub(crate) struct Class {
    schema: HeaderValue,
    level: HeaderValue,
}

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

impl Class {
    fn of(schema: &Schema) -> Self {
        let value = |uid: &str| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
        Class { schema: value(&schema.schema.metadata.uid), level: value(&schema.level.object.metadata.uid) }
    }

    /// Tells the client.
    pub(crate) fn tell(self, answer: &mut Answer) {
        answer.headers_mut().insert(LEVEL_UID, self.level);
        answer.headers_mut().insert(SCHEMA_UID, self.schema);
    }
}

impl Flow {
    /// `total` is the number of seats, `request_timeout` the time that a request has at most.
    pub fn new(total: u32, request_timeout: Duration, registry: &Registry, clock: Arc<dyn Clock>) -> Self {
        let metrics = metrics::Metrics::new(registry, &clock);
        let config = Config::default().digest(total, Vec::new(), Vec::new(), &metrics, &clock);
        Flow {
            config: RwLock::new(Arc::new(config)),
            total,
            patience: (request_timeout / PART_TO_WAIT).min(LONGEST_WAIT),
            watches: Arc::default(),
            metrics,
            clock,
            changed: Notify::new(),
        }
    }

    fn config(&self) -> Arc<Config> {
        self.config.read().clone()
    }

    /// Waits until a request may be served, or refuses it. `timeout` is the client's own.
    pub(crate) async fn admit(
        &self,
        server: &Server,
        user: &User,
        info: &RequestInfo,
        timeout: Option<Duration>,
    ) -> Result<Admitted, Answer> {
        let config = self.config();
        let Some(schema) = config.schema(user, info) else {
            return Err(body::status(&Status::internal_error("no flow schema is for this request")));
        };
        let class = Class::of(schema);
        let level = &schema.level.level;
        let is_watch = info.verb == "watch";
        let work = self.estimate(server, schema, info);
        let waits = || {
            let method = schema.schema.spec.distinguisher_method.as_ref().map(|method| method.type_.as_str());
            let distinguisher = match method {
                Some("ByUser") => user.name.as_str(),
                Some("ByNamespace") => info.namespace.as_str(),
                _ => "",
            };
            let hash = shuffle::hash(&schema.schema.metadata.name, distinguisher);
            (hash, about(schema, distinguisher, user, info))
        };
        let patience = timeout.map_or(self.patience, |t| (t / PART_TO_WAIT).min(LONGEST_WAIT));
        let among = self.metrics.requests(!matches!(info.verb.as_str(), "get" | "list" | "watch"));
        let request = Request { pair: &schema.pair, work, is_watch, among };
        match level.start(request, patience, waits).await {
            Ok(ticket) => {
                let watch = is_watch.then(|| self.watches.count(info)).flatten();
                Ok(Admitted { ticket, class, watch })
            }
            Err(_) => {
                let second = self.clock.now().as_second();
                let mut answer = too_many(level.dropped.note(second));
                class.tell(&mut answer);
                Err(answer)
            }
        }
    }

    fn estimate(&self, server: &Server, schema: &Schema, info: &RequestInfo) -> Work {
        let level = &schema.level.level;
        let most = level.max_seats.load(Ordering::Relaxed);
        match info.verb.as_str() {
            "list" | "watch" if info.is_resource => estimate::list(server, info, most),
            "create" | "update" | "patch" | "delete" if info.is_resource => {
                if *level.kind.lock() == Kind::Exempt {
                    return Work::ONE;
                }
                let watches = self.watches.interested(info);
                schema.pair.watch_count.observe(f64::from(watches));
                estimate::write(info, watches, most)
            }
            _ => Work::ONE,
        }
    }
}

fn about(schema: &Schema, distinguisher: &str, user: &User, info: &RequestInfo) -> About {
    let api_version = match info.group.as_str() {
        "" => info.version.clone(),
        group => format!("{group}/{}", info.version),
    };
    About {
        schema: schema.schema.metadata.name.clone(),
        distinguisher: distinguisher.to_owned(),
        user: user.name.clone(),
        verb: info.verb.clone(),
        path: info.path.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        api_version,
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
    }
}

/// The answer to who is one too many.
pub(crate) fn too_many(retry_after: i64) -> Answer {
    let mut answer =
        body::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
    answer
}
