//! Impersonation: acting as another user, where authorized.
//!
//! The modes of constrained impersonation (KEP-5284) are asked first: they grant acting as one kind of user, for some
//! verbs on some resources. Then comes the old way, the verb `impersonate`, which grants everything the user may do.

use super::unescape;
use crate::authz::{Attributes, Decision};
use crate::server::{Call, Server};
use crate::user::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, MASTERS, NODES, User};
use apimachinery::field::Path;
use apimachinery::gvk::GroupResource;
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::validation::{is_dns1123_label, is_dns1123_subdomain, is_domain_prefixed_path};
use component::metrics::{CounterVec, HistogramVec, Opts, Registry, Stability, exponential_buckets};
use http::HeaderMap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Instant;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// From how many checks on one constrained mode asks for the wildcard first.
const MANY: usize = 4;
/// Of how many it is remembered how they impersonated last.
const REMEMBERED: usize = 10_000;

/// The user that the request's `Impersonate-*` headers ask for, if the user who makes it may act so. The headers are
/// taken away: nothing behind this station shall behave differently.
pub async fn requested(server: &Server, call: &mut Call) -> Result<Option<User>, Status> {
    let Some(wanted) = wanted(&call.parts.headers)? else { return Ok(None) };
    let names: Vec<_> =
        call.parts.headers.keys().filter(|k| k.as_str().starts_with("impersonate-")).cloned().collect();
    names.into_iter().for_each(|name| drop(call.parts.headers.remove(name)));
    let state = &server.rooms.impersonation;
    let start = Instant::now();
    let mut first = None;
    for mode in state.modes(server, &call.user.name) {
        if !mode.applies(&wanted, &call.user) {
            continue;
        }
        match mode.check(server, &wanted, call).await {
            Ok(user) => {
                if let Some(record) = crate::context::record() {
                    let constraint = match mode {
                        Mode::Legacy => String::new(),
                        constrained => format!("impersonate:{}", constrained.name()),
                    };
                    record.impersonated(&user, &constraint);
                }
                state.succeeded(&call.user.name, mode);
                state.attempted(mode.label(), "allowed", start);
                return Ok(Some(user));
            }
            Err(status) => first = first.or(Some(status)),
        }
    }
    state.attempted("", "denied", start);
    Err(first.unwrap_or_else(|| Status::internal_error("all impersonation modes failed")))
}

/// In which mode somebody succeeded last: it is asked first next time, so that the old way costs what it always did.
#[derive(Default)]
pub struct Impersonation {
    last: Mutex<HashMap<String, Mode>>,
    metrics: Option<Metrics>,
}

/// Upstream's metrics of impersonation.
struct Metrics {
    attempts: CounterVec,
    attempt_seconds: HistogramVec,
    checks: CounterVec,
    check_seconds: HistogramVec,
}

impl Impersonation {
    pub fn new(registry: &Registry) -> Self {
        let name = |what: &str| format!("apiserver_impersonation_{what}");
        let labels = &["mode", "decision"];
        let counter = |what: &str, help: &str| {
            registry.counter_vec(Opts { name: &name(what), help, stability: Stability::Alpha }, labels)
        };
        let buckets = exponential_buckets(0.001, 2.0, 15);
        let seconds = |what: &str, help: &str| {
            let opts = Opts { name: &name(what), help, stability: Stability::Alpha };
            registry.histogram_vec(opts, labels, &buckets)
        };
        let metrics = Metrics {
            attempts: counter(
                "attempts_total",
                "Total number of impersonation attempts split by mode and decision.",
            ),
            attempt_seconds: seconds(
                "attempts_duration_seconds",
                "Latency of impersonation attempts in seconds split by mode and decision.",
            ),
            checks: counter(
                "authorization_attempts_total",
                "Total number of authorization checks made by the impersonation handler split by mode and decision.",
            ),
            check_seconds: seconds(
                "authorization_attempts_duration_seconds",
                "Latency of authorization checks made by the impersonation handler in seconds split by mode and decision.",
            ),
        };
        Impersonation { last: Mutex::default(), metrics: Some(metrics) }
    }

    /// The modes, in the order in which somebody's wish is looked at.
    fn modes(&self, server: &Server, requestor: &str) -> Vec<Mode> {
        if !(server.registry.gates)("ConstrainedImpersonation") {
            return vec![Mode::Legacy];
        }
        let mut modes = vec![
            Mode::AssociatedNode,
            Mode::ArbitraryNode,
            Mode::ServiceAccount,
            Mode::UserInfo,
            Mode::Legacy,
        ];
        if let Some(last) = self.last.lock().get(requestor) {
            modes.sort_by_key(|mode| mode != last);
        }
        modes
    }

    fn succeeded(&self, requestor: &str, mode: Mode) {
        let mut last = self.last.lock();
        if last.get(requestor) == Some(&mode) {
            return;
        }
        // It only saves time: when there are too many, all are forgotten.
        if last.len() >= REMEMBERED {
            last.clear();
        }
        last.insert(requestor.to_owned(), mode);
    }

    fn attempted(&self, mode: &str, decision: &str, start: Instant) {
        if let Some(metrics) = &self.metrics {
            metrics.attempts.with(&[mode, decision]).inc();
            metrics.attempt_seconds.with(&[mode, decision]).observe_since(start);
        }
    }

    /// Asks the authorizers, and counts it.
    async fn require(&self, server: &Server, mode: Mode, attributes: &Attributes<'_>) -> Result<(), Status> {
        let start = Instant::now();
        let mut decision = server.decide(attributes).await;
        if let (Mode::Legacy, Decision::Error { reason, .. }) = (mode, &decision) {
            // Of old, what went wrong is not told.
            decision = Decision::NoOpinion { reason: reason.clone() };
        }
        let result = attributes.judge(decision);
        if let Some(metrics) = &self.metrics {
            let labels = [mode.label(), if result.is_ok() { "allowed" } else { "denied" }];
            metrics.checks.with(&labels).inc();
            metrics.check_seconds.with(&labels).observe_since(start);
        }
        result
    }
}

/// What the headers say, nothing added.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    if !headers.keys().any(|k| k.as_str().starts_with("impersonate-")) {
        return Ok(None);
    }
    let first = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut user = User { name: first(USER), uid: first(UID), ..Default::default() };
    user.groups =
        headers.get_all(GROUP).into_iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            user.extra.entry(unescape(key)).or_default().push(value.to_owned());
        }
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if only_name(&user) {
        return Ok(None);
    }
    Err(Status::bad_request(format!("requested {} without impersonating a user name", go_syntax(&user))))
}

/// The user as Go's `%#v` prints it, which is what the API answers.
fn go_syntax(user: &User) -> String {
    let list = |values: &[String]| match values {
        [] => "[]string(nil)".to_owned(),
        some => format!("[]string{{{}}}", some.iter().map(|v| quote(v)).collect::<Vec<_>>().join(", ")),
    };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let members: Vec<_> = user.extra.iter().map(|(k, v)| format!("{}:{}", quote(k), list(v))).collect();
        format!("map[string][]string{{{}}}", members.join(", "))
    };
    format!(
        "&user.DefaultInfo{{Name:{}, UID:{}, Groups:{}, Extra:{extra}}}",
        quote(&user.name),
        quote(&user.uid),
        list(&user.groups)
    )
}

fn only_name(user: &User) -> bool {
    user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty()
}

fn node_of(name: &str) -> Option<&str> {
    name.strip_prefix("system:node:").filter(|n| is_dns1123_subdomain(n).is_empty())
}

/// Namespace and name of the service account that a user name means.
pub(super) fn service_account_of(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let valid = is_dns1123_label(namespace).is_empty() && is_dns1123_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A service account acts as the node its token was issued on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    /// As metrics name it.
    fn label(self) -> &'static str {
        match self {
            Mode::Legacy => "legacy",
            mode => mode.name(),
        }
    }

    fn applies(self, wanted: &User, requestor: &User) -> bool {
        let node = node_of(&wanted.name);
        let account = service_account_of(&wanted.name);
        match self {
            Mode::AssociatedNode => {
                let own = requestor.extra.get("authentication.kubernetes.io/node-name").map(Vec::as_slice);
                let is_account = service_account_of(&requestor.name).is_some();
                only_name(wanted)
                    && is_account
                    && matches!((node, own), (Some(node), Some([own])) if node == own)
            }
            Mode::ArbitraryNode => only_name(wanted) && node.is_some(),
            Mode::ServiceAccount => only_name(wanted) && account.is_some(),
            Mode::UserInfo => node.is_none() && account.is_none(),
            Mode::Legacy => true,
        }
    }

    async fn check(self, server: &Server, wanted: &User, call: &Call) -> Result<User, Status> {
        let constrained = self != Mode::Legacy;
        let agent;
        let requestor = match self {
            Mode::AssociatedNode => {
                agent = node_agent(&call.user);
                &agent
            }
            _ => &call.user,
        };
        if constrained {
            let verb = format!("impersonate-on:{}:{}", self.name(), call.info.verb);
            let on = Attributes { verb: &verb, ..Attributes::of(requestor, &call.info) };
            server.rooms.impersonation.require(server, self, &on).await?;
        }
        let verb = if constrained { format!("impersonate:{}", self.name()) } else { "impersonate".into() };
        let ask = Ask { server, requestor, mode: self, verb: &verb };
        let users = if constrained { AUTHENTICATION } else { "" };
        let mut user = wanted.clone();
        match (node_of(&wanted.name), service_account_of(&wanted.name)) {
            (Some(node), _) if constrained => {
                user.groups = vec![NODES.into()];
                let node = if self == Mode::AssociatedNode { "*" } else { node };
                ask.about(users, "nodes", "", "", node).await?;
            }
            (_, Some((namespace, name))) => {
                if wanted.groups.is_empty() {
                    user.groups = super::service_account::groups(namespace);
                }
                ask.about(users, "serviceaccounts", "", namespace, name).await?;
            }
            _ => ask.about(users, "users", "", "", &wanted.name).await?,
        }
        if !wanted.uid.is_empty() {
            ask.about(AUTHENTICATION, "uids", "", "", &wanted.uid).await?;
        }
        ask.groups(users, &wanted.groups, constrained).await?;
        ask.extra(wanted, constrained).await?;
        let implied = if user.name == ANONYMOUS { ALL_UNAUTHENTICATED } else { ALL_AUTHENTICATED };
        if !user.in_group(ALL_UNAUTHENTICATED) && !user.in_group(implied) {
            user.groups.push(implied.into());
        }
        Ok(user)
    }
}

/// Asks whether the requestor may act so; a refusal is the authorizer's own.
struct Ask<'a> {
    server: &'a Server,
    requestor: &'a User,
    mode: Mode,
    verb: &'a str,
}

/// A service account on a node as authorizers see it: which node that is has been looked at already, and is not theirs
/// to decide by.
fn node_agent(user: &User) -> User {
    let keys = user.extra.keys().cloned().collect();
    let extra = [("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)].into();
    User { extra, ..user.clone() }
}

impl Ask<'_> {
    fn attributes<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        let about = Attributes::about(self.requestor, self.verb, (group, "v1", resource));
        Attributes { subresource, namespace, name, ..about }
    }

    async fn about(
        &self,
        group: &str,
        resource: &str,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        let attributes = self.attributes(group, resource, subresource, namespace, name);
        self.server.rooms.impersonation.require(self.server, self.mode, &attributes).await
    }

    fn refuse(&self, group: &str, resource: &str, name: &str, why: &str) -> Status {
        let text = self.attributes(group, resource, "", "", name).refusal();
        Status::forbidden(
            &GroupResource::new(group.to_owned(), resource.to_owned()),
            name,
            format!("{text}: {why}"),
        )
    }

    async fn groups(&self, group: &str, wanted: &[String], constrained: bool) -> Result<(), Status> {
        if constrained {
            if wanted.iter().any(String::is_empty) {
                return Err(self.refuse(
                    group,
                    "groups",
                    "",
                    "impersonating the empty string group is not allowed",
                ));
            }
            if wanted.iter().any(|g| g == MASTERS) {
                let why = "impersonating the system:masters group is not allowed";
                return Err(self.refuse(group, "groups", MASTERS, why));
            }
            if wanted.len() >= MANY && self.about(group, "groups", "", "", "*").await.is_ok() {
                return Ok(());
            }
        }
        for name in wanted {
            self.about(group, "groups", "", "", name).await?;
        }
        Ok(())
    }

    async fn extra(&self, wanted: &User, constrained: bool) -> Result<(), Status> {
        if constrained {
            if let Err(why) = valid_extra(wanted) {
                return Err(self.refuse(AUTHENTICATION, "userextras", "", &why));
            }
            let values: usize = wanted.extra.values().map(Vec::len).sum();
            let many = wanted.extra.len() >= MANY || values >= MANY;
            if many && self.about(AUTHENTICATION, "userextras", "*", "", "*").await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in &wanted.extra {
            for value in values {
                self.about(AUTHENTICATION, "userextras", key, "", value).await?;
            }
        }
        Ok(())
    }
}

fn valid_extra(user: &User) -> Result<(), String> {
    for (key, values) in &user.extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".into());
        }
        if let Some(why) = is_domain_prefixed_path(&Path::new("extra").child("key"), key).aggregate() {
            return Err(format!("impersonating an invalid key in extra is not allowed: {why}"));
        }
        if *key != key.to_lowercase() {
            return Err(format!("impersonating a non-lowercase key in extra is not allowed: {}", quote(key)));
        }
        if values.is_empty() {
            return Err("impersonating empty values in extra is not allowed".into());
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".into());
        }
    }
    Ok(())
}
