//! The aggregation layer: every group version has an APIService; those that name a Service are other servers', which are
//! looked after here and to which their requests are handed on.
//!
//! [`controller`] keeps the objects and their conditions, [`local`] says what the server's own are, [`openapi`] what others
//! publish, [`proxy`] hands requests on.

pub mod controller;
mod local;
mod measures;
mod openapi;
mod proxy;

use crate::outbound::{Outbound, Roots, Target};
use apimachinery::value::Value;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A group version that another server serves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Remote {
    namespace: String,
    service: String,
    port: u16,
    bundle: String,
    insecure: bool,
    /// Whether it could be reached lately.
    pub available: bool,
    /// The resources it told of, as aggregated discovery has them; kept while it cannot be asked.
    pub resources: Value,
    /// Its OpenAPI.
    pub published: openapi::Published,
    /// Of its group, and in it of its version: whose definitions keep their names.
    pub priority: (i64, i64),
}

impl Remote {
    fn of(spec: &Value) -> Option<Self> {
        let service = spec.get("service").filter(|s| s.is_object())?;
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Some(Remote {
            namespace: text(service, "namespace"),
            service: text(service, "name"),
            port: service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
            bundle: text(spec, "caBundle"),
            insecure: spec["insecureSkipTLSVerify"] == true,
            available: false,
            resources: Value::Null,
            published: Default::default(),
            priority: (0, 0),
        })
    }

    /// What this process answers although it keeps no such objects.
    fn local(resources: Value) -> Self {
        Remote {
            namespace: String::new(),
            service: String::new(),
            port: 0,
            bundle: String::new(),
            insecure: false,
            available: true,
            resources,
            published: Default::default(),
            priority: (0, 0),
        }
    }

    /// Whether both mean the same server.
    fn is_same(&self, other: &Remote) -> bool {
        (&self.namespace, &self.service, self.port, &self.bundle, self.insecure)
            == (&other.namespace, &other.service, other.port, &other.bundle, other.insecure)
    }
}

/// Group and version.
pub(crate) type GroupVersion = (String, String);

/// What other servers serve, and how they are reached.
pub struct Aggregation {
    outbound: Arc<Outbound>,
    remotes: RwLock<BTreeMap<GroupVersion, Remote>>,
    redirects: Redirects,
}

/// What becomes of an answer that sends the client elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    /// The client does not get it: it might take its credentials there.
    Rejected,
    Forwarded,
}

impl std::fmt::Debug for Aggregation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.remotes.read().iter()).finish()
    }
}

impl Aggregation {
    /// `outbound` shows the front proxy's certificate.
    pub fn new(outbound: Arc<Outbound>, redirects: Redirects) -> Self {
        Aggregation { outbound, remotes: RwLock::default(), redirects }
    }

    fn remote(&self, group: &str, version: &str) -> Option<Remote> {
        self.remotes.read().get(&(group.to_owned(), version.to_owned())).cloned()
    }

    /// The other server whose document of OpenAPI v3 this is: of its own group version, or whoever has it.
    fn publisher(&self, key: &str) -> Option<Remote> {
        let remotes = self.remotes.read();
        let publishes = |remote: &&Remote| remote.published.v3.contains_key(key);
        let (group, version) = key.strip_prefix("apis/")?.split_once('/').unwrap_or_default();
        let own = remotes.get(&(group.to_owned(), version.to_owned())).filter(publishes);
        own.or_else(|| remotes.values().find(publishes)).cloned()
    }

    pub(crate) fn remotes(&self) -> Vec<(GroupVersion, Remote)> {
        self.remotes.read().iter().map(|(gv, remote)| (gv.clone(), remote.clone())).collect()
    }

    fn target(&self, remote: &Remote) -> Result<Target, String> {
        let roots = if remote.insecure { Roots::Anyone } else { Roots::Bundle(&remote.bundle) };
        self.outbound.service_target(&remote.namespace, &remote.service, remote.port, roots)
    }
}
