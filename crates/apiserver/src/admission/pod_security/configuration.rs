//! The plugin's configuration: what namespaces without labels ask, and who is exempt.

use super::policy::{LEVELS, Level, LevelVersion, Policy, VERSIONS, Version};
use crate::admission::Attributes;
use crate::admission::roster::Fault;
use crate::strict::{self, Shape};
use apimachinery::field::{Error, ErrorList, Path, aggregate};
use apimachinery::validation::{is_dns1123_label, is_dns1123_subdomain};
use apimachinery::value::Value;
use serde::Deserialize;
use std::collections::BTreeSet;

/// See the module. The default asks for nothing, and nobody is exempt.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::admission) struct Configuration {
    pub(super) defaults: Policy,
    exemptions: Exemptions,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

/// Why a request is judged by nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exemption {
    Namespace,
    User,
    RuntimeClass,
}

impl Exemption {
    /// As the audit log has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Exemption::Namespace => "namespace",
            Exemption::User => "user",
            Exemption::RuntimeClass => "runtimeClass",
        }
    }
}

const KNOWN: [(&str, &str); 3] = [
    ("pod-security.admission.config.k8s.io/v1", "PodSecurityConfiguration"),
    ("pod-security.admission.config.k8s.io/v1beta1", "PodSecurityConfiguration"),
    ("pod-security.admission.config.k8s.io/v1alpha1", "PodSecurityConfiguration"),
];

const SHAPE: Shape = Shape::Object(&[
    ("apiVersion", Shape::Any),
    ("kind", Shape::Any),
    (
        "defaults",
        Shape::Object(&[
            ("enforce", Shape::Any),
            ("enforce-version", Shape::Any),
            ("audit", Shape::Any),
            ("audit-version", Shape::Any),
            ("warn", Shape::Any),
            ("warn-version", Shape::Any),
        ]),
    ),
    (
        "exemptions",
        Shape::Object(&[
            ("usernames", Shape::Any),
            ("namespaces", Shape::Any),
            ("runtimeClasses", Shape::Any),
        ]),
    ),
]);

impl Configuration {
    /// The configuration of a text; the default where there is none.
    pub(in crate::admission) fn read(text: Option<&str>) -> Result<Self, Fault> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Configuration::default()) };
        let mut value = strict::load_known(text, &KNOWN, &SHAPE)?;
        let exemptions = Option::<Exemptions>::deserialize(value["exemptions"].take());
        let exemptions = exemptions.map_err(|error| error.to_string())?.unwrap_or_default();
        let failed = |what: &str, why: String| Fault::Initialization(format!("PodSecurity {what}: {why}"));
        let defaults = defaults(&value["defaults"]).map_err(|why| failed("configuration error", why))?;
        match exemptions.errors().aggregate() {
            Some(why) => Err(failed("invalid", why)),
            None => Ok(Configuration { defaults, exemptions }),
        }
    }

    pub(super) fn exempts_namespace(&self, namespace: &str) -> bool {
        self.exemptions.namespaces.iter().any(|name| name == namespace)
    }

    /// Whether a request is exempt by where it goes or whose it is.
    pub(super) fn of_request(&self, a: &Attributes<'_>) -> Option<Exemption> {
        if self.exempts_namespace(a.namespace) {
            return Some(Exemption::Namespace);
        }
        self.exemptions.usernames.contains(&a.user.name).then_some(Exemption::User)
    }

    /// Whether a pod is exempt by its runtime class.
    pub(super) fn of_spec(&self, spec: &Value) -> Option<Exemption> {
        let class = spec["runtimeClassName"].as_str()?;
        self.exemptions.runtime_classes.iter().any(|name| name == class).then_some(Exemption::RuntimeClass)
    }
}

/// What is asked where labels are silent, or all that is wrong with it.
fn defaults(value: &Value) -> Result<Policy, String> {
    let mut errors = Vec::new();
    let text = |name: &str, default: &'static str| match value[name].as_str().unwrap_or_default() {
        "" => default.to_owned(),
        text => text.to_owned(),
    };
    let mut at = |mode: &str| {
        let level = Level::parse(&text(mode, "privileged"));
        if level.is_none() {
            errors.push(format!("{mode}: {LEVELS}"));
        }
        let name = format!("{mode}-version");
        let version = Version::parse(&text(&name, "latest"));
        if version.is_none() {
            errors.push(format!("{name}: {VERSIONS}"));
        }
        LevelVersion { level: level.unwrap_or_default(), version: version.unwrap_or_default() }
    };
    let policy = Policy { enforce: at("enforce"), audit: at("audit"), warn: at("warn") };
    aggregate(errors).map_or(Ok(policy), Err)
}

impl Exemptions {
    fn errors(&self) -> ErrorList {
        let mut errors = ErrorList::default();
        let label = |name: &str| is_dns1123_label(name).join(", ");
        let subdomain = |name: &str| is_dns1123_subdomain(name).join(", ");
        let user =
            |name: &str| if name.is_empty() { "username must not be empty".into() } else { String::new() };
        names("namespaces", &self.namespaces, label, &mut errors);
        names("runtimeClasses", &self.runtime_classes, subdomain, &mut errors);
        names("usernames", &self.usernames, user, &mut errors);
        errors
    }
}

/// Names that must be none twice and each hold by itself; `wrong` says what is wrong with one.
fn names(member: &'static str, names: &[String], wrong: impl Fn(&str) -> String, errors: &mut ErrorList) {
    let path = Path::new("exemptions").child(member);
    let mut seen = BTreeSet::new();
    for (at, name) in names.iter().enumerate() {
        let wrong = wrong(name);
        if !wrong.is_empty() {
            errors.push(Error::invalid(&path.index(at), name, wrong));
        } else if !seen.insert(name) {
            errors.push(Error::duplicate(&path.index(at), name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(members: &str) -> Result<Configuration, Fault> {
        let head = "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n";
        Configuration::read(Some(&format!("{head}{members}")))
    }

    #[test]
    fn what_is_not_said_is_privileged() {
        let read = read("defaults: {enforce: baseline, audit-version: v1.20}").unwrap();
        let told = |at: LevelVersion| at.to_string();
        assert_eq!(told(read.defaults.enforce), "baseline:latest");
        assert_eq!(told(read.defaults.audit), "privileged:v1.20");
        assert_eq!(told(read.defaults.warn), "privileged:latest");
        assert_eq!(Configuration::read(None), Ok(Configuration::default()));
    }

    #[test]
    fn upstreams_words_for_what_is_wrong() {
        let refused = |members: &str| match read(members).unwrap_err() {
            Fault::Configuration(why) => format!("read: {why}"),
            Fault::Initialization(why) => why,
        };
        assert_eq!(
            refused("defaults: {enforce: strict, warn-version: '1.2'}"),
            "PodSecurity configuration error: [enforce: must be one of privileged, baseline, restricted, warn-version: must be \"latest\" or \"v1.x\"]"
        );
        assert_eq!(
            refused("exemptions: {namespaces: [a, B, a], usernames: ['']}"),
            "PodSecurity invalid: [exemptions.namespaces[1]: Invalid value: \"B\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?'), exemptions.namespaces[2]: Duplicate value: \"a\", exemptions.usernames[0]: Invalid value: \"\": username must not be empty]"
        );
        assert_eq!(refused("users: []"), "read: strict decoding error: unknown field \"users\"");
    }
}
