//! Reads a request's address once: verb, group, version, resource, namespace, name, subresource (upstream's RequestInfo).

use http::Method;

pub use apimachinery::meta::query::Query;

/// A path segment without its escapes.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'%' => {
                let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
                if let Some(byte) = hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
                    out.push(byte);
                    i += 3;
                    continue;
                }
                out.push(b'%');
            }
            byte => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a request asks for.
#[derive(Debug, Clone, Default)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the lower-case method for
    /// what is no resource.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource (`/api/v1/nodes/a/proxy/stats` has `["stats"]`).
    pub rest: Vec<String>,
    /// `/api/v1/watch/…`, the deprecated form of a watch.
    pub watches_by_path: bool,
    pub query: Query,
}

impl RequestInfo {
    /// Reads method and address. Anything is accepted; what makes no sense is not a resource request, or names a
    /// resource that does not exist.
    pub fn parse(method: &Method, uri: &http::Uri) -> Self {
        let query = Query::parse(uri.query().unwrap_or_default());
        let path = uri.path().to_owned();
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let mut info =
            RequestInfo { path, query, verb: method.as_str().to_ascii_lowercase(), ..Default::default() };
        let mut rest: &[String] = match parts.first().map(String::as_str) {
            Some("api") if parts.len() >= 3 => {
                info.version = parts[1].clone();
                &parts[2..]
            }
            Some("apis") if parts.len() >= 4 => {
                info.group = parts[1].clone();
                info.version = parts[2].clone();
                &parts[3..]
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        let mut watched = false;
        if rest.len() > 1 && rest[0] == "watch" {
            // The deprecated form of a watch.
            watched = true;
            info.watches_by_path = true;
            rest = &rest[1..];
        }
        if rest.first().is_some_and(|p| p == "namespaces")
            && let Some(namespace) = rest.get(1)
        {
            info.namespace = namespace.clone();
            // `namespaces/x/status` and `…/finalize` are the namespace's own subresources.
            if rest.len() > 2 && !matches!(rest[2].as_str(), "status" | "finalize") {
                rest = &rest[2..];
            }
        }
        info.resource = rest.first().cloned().unwrap_or_default();
        info.name = rest.get(1).cloned().unwrap_or_default();
        info.subresource = rest.get(2).cloned().unwrap_or_default();
        info.rest = rest.get(3..).map(<[String]>::to_vec).unwrap_or_default();
        let collection = info.name.is_empty();
        if info.verb == "get" && (watched || info.query.flag("watch") && info.subresource.is_empty()) {
            info.verb = "watch".into();
            if collection {
                info.name = info.selected_name();
            }
        } else if info.verb == "get" && collection {
            info.verb = "list".into();
            // A list of one name is authorized as that name.
            info.name = info.selected_name();
        } else if info.verb == "delete" && collection {
            info.verb = "deletecollection".into();
        }
        info
    }

    /// A selector that authorizers may look at: where many objects are concerned, and not in the deprecated form of a
    /// watch, which does not select everywhere.
    pub(crate) fn selector(&self, parameter: &str) -> &str {
        let selects = matches!(self.verb.as_str(), "list" | "watch" | "deletecollection");
        match selects && !self.watches_by_path {
            true => self.query.get(parameter).unwrap_or_default(),
            false => "",
        }
    }

    fn selected_name(&self) -> String {
        let selector = self.query.get("fieldSelector").unwrap_or_default();
        let name = selector.split(',').find_map(|term| {
            let rest = term.strip_prefix("metadata.name=")?;
            Some(rest.strip_prefix('=').unwrap_or(rest))
        });
        name.unwrap_or_default().to_owned()
    }

    /// Whether it may take as long as it likes (upstream's BasicLongRunningRequestCheck).
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb.as_str(), "watch" | "proxy")
            || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }

    /// The resource with its subresource, as rows and rules name it.
    pub fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, uri: &str, expected: &str) {
        let i = RequestInfo::parse(&method, &uri.parse().unwrap());
        let got = format!(
            "{} {} {}/{} ns={} {} {} {}",
            i.is_resource, i.verb, i.group, i.version, i.namespace, i.resource, i.name, i.subresource
        );
        assert_eq!(got, expected, "{uri}");
    }

    #[test]
    fn addresses() {
        check(Method::GET, "/api/v1/pods", "true list /v1 ns= pods  ");
        check(Method::GET, "/api/v1/namespaces/a/pods/b", "true get /v1 ns=a pods b ");
        check(Method::GET, "/api/v1/namespaces/a/pods?watch=1", "true watch /v1 ns=a pods  ");
        check(Method::GET, "/api/v1/watch/namespaces/a/pods", "true watch /v1 ns=a pods  ");
        check(Method::GET, "/api/v1/namespaces/a", "true get /v1 ns=a namespaces a ");
        check(Method::PUT, "/api/v1/namespaces/a/finalize", "true update /v1 ns=a namespaces a finalize");
        check(
            Method::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            "true deletecollection apps/v1 ns=a deployments  ",
        );
        check(Method::POST, "/api/v1/namespaces/a/pods/b/exec?command=x", "true create /v1 ns=a pods b exec");
        check(Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx", "true list /v1 ns= pods x ");
        check(Method::GET, "/apis/apps", "false get / ns=   ");
        check(Method::GET, "/healthz", "false get / ns=   ");
    }
}
