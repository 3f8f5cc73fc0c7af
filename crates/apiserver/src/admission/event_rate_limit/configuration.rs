//! The plugin's configuration: which limits there are.

use crate::admission::roster::Fault;
use crate::strict::{self, Shape};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::value::Value;

/// What shares a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

const KINDS: [Kind; 4] = [Kind::Namespace, Kind::Server, Kind::SourceAndObject, Kind::User];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Server => "Server",
            Kind::Namespace => "Namespace",
            Kind::User => "User",
            Kind::SourceAndObject => "SourceAndObject",
        }
    }
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admission) struct Limit {
    pub(super) kind: Kind,
    /// Events per second.
    pub(super) qps: u32,
    /// How many at once, at most.
    pub(super) burst: u32,
    /// How many buckets are remembered.
    pub(super) kept: usize,
}

const KNOWN: [(&str, &str); 1] = [("eventratelimit.admission.k8s.io/v1alpha1", "Configuration")];
const DEFAULT_KEPT: usize = 4096;

/// The limits of a configuration, of which there must be one.
pub(in crate::admission) fn read(text: Option<&str>) -> Result<Vec<Limit>, Fault> {
    let value = match text {
        Some(text) => strict::load_known(text, &KNOWN, &Shape::Any)?,
        None => Value::Null,
    };
    let path = Path::new("limits");
    let mut errors = ErrorList::default();
    let limits = value["limits"].as_array().map_or(&[][..], Vec::as_slice);
    if limits.is_empty() {
        let shown = if value["limits"].is_array() { "[]" } else { "null" };
        errors.push(Error::invalid(&path, BadValue::verbatim(shown), "must not be empty"));
    }
    let read: Vec<_> =
        limits.iter().enumerate().filter_map(|(at, of)| limit(of, &path.index(at), &mut errors)).collect();
    errors.aggregate().map_or(Ok(read), |why| Err(Fault::Configuration(why)))
}

fn limit(value: &Value, path: &Path, errors: &mut ErrorList) -> Option<Limit> {
    let name = value["type"].as_str().unwrap_or_default();
    let kind = KINDS.into_iter().find(|kind| kind.name() == name);
    if kind.is_none() {
        errors.push(Error::not_supported(&path.child("type"), name, &KINDS.map(Kind::name)));
    }
    let number = |member: &str| value[member].as_i64().unwrap_or_default();
    let (burst, qps, kept) = (number("burst"), number("qps"), number("cacheSize"));
    for (member, number) in [("burst", burst), ("qps", qps)] {
        if number <= 0 {
            errors.push(Error::invalid(&path.child(member), BadValue::json(&number), "must be positive"));
        }
    }
    if kept < 0 && kind != Some(Kind::Server) {
        let path = path.child("cacheSize");
        errors.push(Error::invalid(&path, BadValue::json(&kept), "must not be negative"));
    }
    let kept = usize::try_from(kept).ok().filter(|kept| *kept > 0).unwrap_or(DEFAULT_KEPT);
    Some(Limit { kind: kind?, qps: u32::try_from(qps).ok()?, burst: u32::try_from(burst).ok()?, kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(limits: &str) -> Result<Vec<Limit>, String> {
        let head = "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\n";
        read(Some(&format!("{head}limits: {limits}"))).map_err(|fault| match fault {
            Fault::Configuration(why) | Fault::Initialization(why) => why,
        })
    }

    #[test]
    fn what_a_configuration_may_say() {
        let read =
            configured("[{type: User, qps: 3, burst: 10}, {type: Server, qps: 1, burst: 1, cacheSize: 7}]");
        let user = Limit { kind: Kind::User, qps: 3, burst: 10, kept: 4096 };
        assert_eq!(read, Ok(vec![user, Limit { kind: Kind::Server, qps: 1, burst: 1, kept: 7 }]));
        let refused = |limits: &str| configured(limits).unwrap_err();
        assert_eq!(refused("[]"), "limits: Invalid value: []: must not be empty");
        assert_eq!(
            refused("[{type: Nobody, qps: 1, burst: 1}]"),
            "limits[0].type: Unsupported value: \"Nobody\": supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\""
        );
        assert_eq!(
            refused("[{type: User, cacheSize: -1}]"),
            "[limits[0].burst: Invalid value: 0: must be positive, limits[0].qps: Invalid value: 0: must be positive, limits[0].cacheSize: Invalid value: -1: must not be negative]"
        );
    }
}
