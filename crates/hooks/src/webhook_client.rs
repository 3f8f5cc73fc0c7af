//! How a webhook is reached (`clientConfig`): validation shared by all kinds that name webhooks.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation;
use apimachinery::value::Value;

const FORM: &str = "; desired format: https://host[/path]";

/// All that is wrong with a webhook's URL.
pub(super) fn validate_url(path: &Path, url: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("", url.strip_prefix("//").unwrap_or_default()),
    };
    if url.chars().any(char::is_control) {
        let why = format!(
            "url must be a valid URL: parse {url:?}: net/url: invalid control character in URL{FORM}"
        );
        errors.push(Error::required(path, why));
        return errors;
    }
    if scheme != "https" {
        errors.push(Error::invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}")));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if host.is_empty() {
        errors.push(Error::invalid(path, host, format!("host must be specified{FORM}")));
    }
    if let Some(user) = user {
        errors.push(Error::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(Error::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(Error::invalid(path, query, "query parameters are not permitted in the URL"));
    }
    errors
}

/// All that is wrong with a webhook's Service reference.
pub(super) fn validate_service(at: &Path, service: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["name", "namespace"] {
        if service[key].as_str().unwrap_or_default().is_empty() {
            errors.push(Error::required(&at.child(key), ""));
        }
    }
    let port = service["port"].as_i64().unwrap_or(443);
    let problems = validation::is_valid_port_num(port);
    if !problems.is_empty() {
        let why = format!("port is not valid: {}", problems.join(", "));
        errors.push(Error::invalid(&at.child("port"), port, why));
    }
    let Some(path) = service["path"].as_str().filter(|p| !matches!(*p, "" | "/")) else { return errors };
    let at = at.child("path");
    if path == "//" {
        errors.push(Error::invalid(&at, path, "segment[0] may not be empty"));
        return errors;
    }
    if !path.starts_with('/') {
        errors.push(Error::invalid(&at, path, "must start with a '/'"));
    }
    let mut chars = path.chars();
    chars.next();
    let rest = chars.as_str();
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(Error::invalid(&at, path, format!("segment[{i}] may not be empty")));
            continue;
        }
        for problem in validation::is_dns1123_subdomain(step) {
            errors.push(Error::invalid(&at, path, format!("segment[{i}]: {problem}")));
        }
    }
    errors
}
