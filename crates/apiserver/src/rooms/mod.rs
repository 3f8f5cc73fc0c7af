//! The exceptions: what is asked of some resources only, one file each.

mod backend;
mod binding;
pub mod component_status;
mod eviction;
mod kubelet;
mod links;
mod log;
mod proxy;
pub mod reviews;
mod scale;
mod stream_counts;
pub mod token;

pub(crate) use backend::kubelet_get;
pub use kubelet::Translation;
pub use log::Counts as LogCounts;
pub use stream_counts::Counts as StreamCounts;

use crate::admission::{Attributes, Operation};
use crate::authn::token_keys::Signer;
use crate::authn::tokens::Tokens;
use crate::body::Answer;
use crate::registry::WriteContext;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;
use std::sync::Arc;

/// What the rooms need beside the server.
#[derive(Clone, Default)]
pub struct Rooms {
    /// By which of a node's addresses its kubelet is reached, the first that it has; upstream's order if there are none.
    pub kubelet_address_types: Vec<String>,
    /// Signs service-account tokens.
    pub issuer: Option<Arc<Issuer>>,
    /// Says whose tokens are, for TokenReview.
    pub tokens: Option<Arc<Tokens>>,
    /// What becomes of requests' authorization, counted.
    pub authorization: Option<Arc<crate::authz::AuthorizationMetrics>>,
    /// How users impersonated others lately.
    pub impersonation: Arc<crate::authn::impersonation::Impersonation>,
    /// How the API server shows itself to kubelets.
    pub kubelet_tls: Option<KubeletTls>,
    /// Other servers' APIs.
    pub aggregation: Option<Arc<crate::aggregation::Aggregation>>,
    /// The parts of the control plane.
    pub components: Arc<[component_status::Component]>,
    /// What nodes and pods use.
    pub metrics: Option<Arc<crate::metrics_api::MetricsApi>>,
    /// For backends behind `https:` proxies, whose certificates nobody vouches for.
    pub insecure_tls: Option<Arc<rustls::ClientConfig>>,
    /// How fast connections go that are handed through to nodes, pods and services; as fast as they can, if this is zero.
    pub bytes_per_second: u64,
    /// Which way connections to nodes, pods and services go.
    pub egress: Arc<crate::egress::Egress>,
    /// How logs are asked for.
    pub log_counts: LogCounts,
    /// How connections to kubelets are handed on.
    pub stream_counts: StreamCounts,
    /// Who understands clients of exec and attach.
    pub translation: Translation,
}

/// How the API server speaks to kubelets.
#[derive(Debug, Clone)]
pub struct KubeletTls {
    /// With those that its authorities vouch for.
    pub checked: Arc<rustls::ClientConfig>,
    /// With any of them, where who asks for a log wants that.
    pub unchecked: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rooms").finish_non_exhaustive()
    }
}

/// Who issues service-account tokens, and for whom by default.
pub struct Issuer {
    pub name: String,
    pub audiences: Vec<String>,
    pub signer: Signer,
    /// The longest life of a token; longer ones that are asked for get this.
    pub longest: Option<std::time::Duration>,
    /// How long tokens live that pods mount, if that is longer than they were asked for.
    pub extends: Option<std::time::Duration>,
}

/// The request as admission sees it: a create, of a pod's subresource or of a resource of its own.
fn creation<'a>(
    server: &'a Server,
    resource: &'a Arc<Served>,
    call: &'a Call,
    name: &'a str,
    object: &'a mut Value,
    dry_run: bool,
) -> Attributes<'a> {
    Attributes {
        operation: Operation::Create,
        verb: &call.info.verb,
        user: &call.user,
        resource,
        namespace: &call.info.namespace,
        name,
        subresource: &call.info.subresource,
        object: Some(object),
        old: None,
        dry_run,
        registry: &server.registry,
    }
}

impl Server {
    /// Asks admission about a connection.
    async fn connect(&self, resource: &Arc<Served>, call: &Call) -> Result<(), Status> {
        let info = &call.info;
        let kind = resource.subresources.get(&info.subresource).map_or("", |row| row.kind.as_ref());
        let mut options = json!({"kind": kind, "apiVersion": "v1"});
        for flag in ["stdin", "stdout", "stderr", "tty"] {
            if info.query.flag(flag) {
                options[flag] = true.into();
            }
        }
        if let Some(container) = info.query.get("container") {
            options["container"] = container.into();
        }
        let command: Vec<&str> = info.query.all("command").collect();
        if !command.is_empty() {
            options["command"] = command.into();
        }
        let ports: Vec<i64> = info.query.all("ports").filter_map(|p| p.parse().ok()).collect();
        if !ports.is_empty() {
            options["ports"] = ports.into();
        }
        if info.subresource == "proxy" {
            options["path"] = info.rest.join("/").into();
        }
        let context = WriteContext {
            user: &call.user,
            verb: &info.verb,
            resource,
            namespace: &info.namespace,
            subresource: &info.subresource,
            dry_run: false,
            field_manager: "".into(),
            ownership: Default::default(),
            side: None,
        };
        self.registry.connect(&context, &info.name, options).await
    }

    /// Hands a request to the room of its resource.
    pub(crate) async fn room(self: &Arc<Self>, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let info = &call.info;
        let create = info.verb == "create";
        match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
            ("authentication.k8s.io" | "authorization.k8s.io", _, "") if create => {
                reviews::create(self, resource, call).await
            }
            ("", "componentstatuses", "") => component_status::serve(self, resource, call).await,
            ("", "serviceaccounts", "token") if create => token::create(self, resource, call).await,
            ("", "pods", "binding") | ("", "bindings", "") if create => {
                binding::create(self, resource, call).await
            }
            ("", "pods", "eviction") if create => eviction::create(self, resource, call).await,
            ("", "pods", "log") => log::serve(self, resource, call).await,
            ("", "pods", "exec" | "attach" | "portforward") => {
                self.connect(resource, &call).await?;
                kubelet::serve(self, resource, call).await
            }
            ("", "pods" | "services" | "nodes", "proxy") => {
                self.connect(resource, &call).await?;
                proxy::proxy(self, resource, call).await
            }
            (_, _, "scale") => scale::serve(self, resource, call).await,
            _ => Err(Status::method_not_supported(&resource.group_resource(), &call.info.verb)),
        }
    }
}
