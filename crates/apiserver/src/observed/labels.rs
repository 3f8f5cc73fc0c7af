//! What tells requests from others that are counted apart.

use crate::request::RequestInfo;
use http::request::Parts;

const COMPONENT: &str = "apiserver";
const CONNECTS: [&str; 5] = ["log", "exec", "portforward", "attach", "proxy"];

/// What tells a request's row from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Labels<'a> {
    pub verb: &'static str,
    pub dry_run: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    pub scope: &'static str,
    component: &'static str,
}

impl<'a> Labels<'a> {
    /// The row of a request; none for what is served by nobody here.
    pub(super) fn of(parts: &Parts, info: &'a RequestInfo, known: bool) -> Option<Self> {
        let empty = Labels {
            verb: "",
            dry_run: "",
            group: "",
            version: "",
            resource: "",
            subresource: "",
            scope: "",
            component: "",
        };
        if !info.is_resource {
            // Those that upstream counts; paths from outside must not make rows.
            let subresource = match info.path.strip_prefix("/openapi/v3") {
                Some("") => "openapi/v3",
                Some(group) if group.starts_with('/') => "openapi/v3/",
                _ => ["/healthz", "/livez", "/readyz"].into_iter().find(|path| *path == info.path)?,
            };
            return Some(Labels { verb: "GET", subresource, ..empty });
        }
        if !known {
            return None;
        }
        let connect = CONNECTS.contains(&info.subresource.as_str());
        let apply = || {
            let media = parts.headers.get(http::header::CONTENT_TYPE);
            media.is_some_and(|media| media == "application/apply-patch+yaml")
        };
        let verb = match info.verb.as_str() {
            _ if connect => "CONNECT",
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" => "POST",
            "update" => "PUT",
            "patch" if apply() => "APPLY",
            "patch" => "PATCH",
            "delete" | "deletecollection" => "DELETE",
            _ => "other",
        };
        let dry_run = match info.query.get("dryRun") {
            None => "",
            Some("All") => "All",
            Some(_) => "invalid",
        };
        Some(Labels {
            verb,
            dry_run,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            scope: route_scope(info),
            component: COMPONENT,
        })
    }

    pub(super) fn list(&self) -> [&'a str; 8] {
        [
            self.verb,
            self.dry_run,
            self.group,
            self.version,
            self.resource,
            self.subresource,
            self.scope,
            self.component,
        ]
    }
}

/// How much a request is about.
pub(super) fn scope(info: &RequestInfo) -> &'static str {
    match (info.name.as_str(), info.namespace.as_str()) {
        ("", _) if info.verb == "create" => "resource",
        ("", "") => "cluster",
        ("", _) => "namespace",
        _ => "resource",
    }
}

/// How much a request's path is about: a list's selector may name an object, its path does not.
fn route_scope(info: &RequestInfo) -> &'static str {
    match (info.verb.as_str(), info.namespace.as_str()) {
        ("list" | "watch", "") => "cluster",
        ("list" | "watch", _) => "namespace",
        _ => scope(info),
    }
}

/// What the sizes of bodies call a verb whose requests have one.
pub(super) fn body_verb(verb: &str, scope: &str) -> Option<&'static str> {
    Some(match verb {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" | "APPLY" => "patch",
        "DELETE" if scope == "resource" => "delete",
        "DELETE" => "delete_collection",
        _ => return None,
    })
}
