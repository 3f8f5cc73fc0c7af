//! The audit policy (`--audit-policy-file`): which requests are recorded, and how much of them. The first rule that
//! matches a request decides; what no rule matches is not recorded.

use super::event::{Level, Stage};
use crate::authz::Attributes;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::validation::is_dns1123_subdomain;
use apimachinery::value::Value;
use schema::decode::{self, FieldValidation};
use serde::Deserialize;

/// How a request is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// A policy, checked.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Vec<(PolicyRule, Rule)>,
    default: Rule,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    rules: Vec<PolicyRule>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PolicyRule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];
const STAGES: [Stage; 4] =
    [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

/// Members that are absent are absent, members that are null too.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

impl Policy {
    /// Reads a policy, YAML or JSON; an error says what is wrong with it, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let decoded = decode::free_yaml(text, FieldValidation::Ignore)
            .map_err(|error| format!("failed decoding: {error}"))?;
        let mut value = decoded.value;
        let member = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (member("apiVersion"), member("kind"));
        if kind.is_empty() {
            return Err("failed decoding: Object 'Kind' is missing".into());
        }
        if (api_version.as_str(), kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            return Err(format!("unknown group version field {group}/{version}, Kind={kind} in policy"));
        }
        without_nulls(&mut value);
        let document: Document =
            apimachinery::value::from_value(value).map_err(|error| format!("failed decoding: {error}"))?;
        let errors = validate(&document);
        if let Some(why) = errors.aggregate() {
            return Err(why);
        }
        if document.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".into());
        }
        let stages = |lists: [&[String]; 2]| -> Vec<Stage> {
            STAGES.into_iter().filter(|s| lists.iter().any(|l| l.iter().any(|n| n == s.as_str()))).collect()
        };
        let rules = document.rules.iter().map(|rule| {
            let way = Rule {
                level: level(&rule.level).unwrap_or_default(),
                omit_stages: stages([&document.omit_stages, &rule.omit_stages]),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(document.omit_managed_fields),
            };
            (rule.clone(), way)
        });
        Ok(Policy {
            rules: rules.collect(),
            default: Rule {
                level: Level::None,
                omit_stages: stages([&document.omit_stages, &[]]),
                omit_managed_fields: document.omit_managed_fields,
            },
        })
    }

    /// How a request is recorded; of one that nobody is known to make, `user` says nothing.
    pub fn evaluate(&self, request: &Attributes<'_>, known: bool) -> &Rule {
        let found = self.rules.iter().find(|(rule, _)| rule.matches(request, known));
        found.map_or(&self.default, |(_, way)| way)
    }
}

fn level(text: &str) -> Option<Level> {
    [Level::None, Level::Metadata, Level::Request, Level::RequestResponse]
        .into_iter()
        .find(|level| level.as_str() == text)
}

fn validate(document: &Document) -> ErrorList {
    let mut errors = ErrorList::default();
    stages(&document.omit_stages, &Path::new("omitStages"), &mut errors);
    for (i, rule) in document.rules.iter().enumerate() {
        let path = Path::new("rules").index(i);
        let at = path.child("level");
        if rule.level.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if level(&rule.level).is_none() {
            errors.push(Error::not_supported(&at, rule.level.as_str(), &LEVELS));
        }
        let urls = path.child("nonResourceURLs");
        for (i, url) in rule.non_resource_urls.iter().enumerate() {
            if url == "*" {
                continue;
            }
            let at = urls.index(i);
            if !url.starts_with('/') {
                let why = "non-resource URL rules must begin with a '/' character";
                errors.push(Error::invalid(&at, url.as_str(), why));
            }
            if url.char_indices().any(|(at, c)| c == '*' && at + 1 < url.len()) {
                let why = "non-resource URL wildcards '*' must be the final character of the rule";
                errors.push(Error::invalid(&at, url.as_str(), why));
            }
        }
        let resources = path.child("resources");
        for group in &rule.resources {
            if !matches!(group.group.as_str(), "" | "*") {
                let why = is_dns1123_subdomain(&group.group);
                if !why.is_empty() {
                    errors.push(Error::invalid(
                        &resources.child("group"),
                        group.group.as_str(),
                        why.join(","),
                    ));
                }
            }
            if !group.resource_names.is_empty() && group.resources.is_empty() {
                let why = "using resourceNames requires at least one resource";
                errors.push(Error::invalid(
                    &resources.child("resourceNames"),
                    strings(&group.resource_names),
                    why,
                ));
            }
        }
        stages(&rule.omit_stages, &path.child("omitStages"), &mut errors);
        let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        if !rule.non_resource_urls.is_empty() && of_resources {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&urls, strings(&rule.non_resource_urls), why));
        }
    }
    errors
}

fn strings(all: &[String]) -> BadValue {
    BadValue::json(all)
}

fn stages(given: &[String], path: &Path, errors: &mut ErrorList) {
    for (i, stage) in given.iter().enumerate() {
        if !STAGES.iter().any(|s| s.as_str() == stage) {
            let all = STAGES.map(Stage::as_str).join(",");
            errors.push(Error::invalid(&path.index(i), stage.as_str(), format!("allowed stages are {all}")));
        }
    }
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|one| one == text)
}

impl PolicyRule {
    fn matches(&self, request: &Attributes<'_>, known: bool) -> bool {
        let is_one_of = |users: &[String]| known && has(users, &request.user.name);
        let is_in_one_of =
            |groups: &[String]| known && request.user.groups.iter().any(|group| has(groups, group));
        if !self.users.is_empty() && !is_one_of(&self.users) {
            return false;
        }
        if !self.user_groups.is_empty() && !is_in_one_of(&self.user_groups) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, request.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return self.matches_resource(request);
        }
        if !self.non_resource_urls.is_empty() {
            let path = request.path;
            return !request.is_resource && self.non_resource_urls.iter().any(|spec| covers(spec, path));
        }
        true
    }

    fn matches_resource(&self, request: &Attributes<'_>) -> bool {
        if !request.is_resource {
            return false;
        }
        // What is in no namespace is in the empty one.
        if !self.namespaces.is_empty() && !has(&self.namespaces, request.namespace) {
            return false;
        }
        self.resources.is_empty() || self.resources.iter().any(|group| group.matches(request))
    }
}

fn covers(spec: &str, path: &str) -> bool {
    spec == "*" || spec == path || spec.ends_with('*') && path.starts_with(spec.trim_end_matches('*'))
}

impl GroupResources {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        if self.group != request.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !has(&self.resource_names, request.name) {
            return false;
        }
        let (resource, subresource) = (request.resource, request.subresource);
        self.resources.iter().any(|one| {
            let whole = match (one.split_once('/'), subresource) {
                (None, "") => one == resource,
                (Some((main, sub)), _) if !subresource.is_empty() => main == resource && sub == subresource,
                _ => false,
            };
            whole
                || one == "*"
                || !subresource.is_empty() && one.strip_prefix("*/") == Some(subresource)
                || one.strip_suffix("/*") == Some(resource)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestInfo;
    use crate::user::User;
    use expect_test::{Expect, expect};
    use http::Method;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
  resources: [{group: '', resources: [endpoints, services]}]
- level: None
  nonResourceURLs: ['/healthz*', /version]
- level: Request
  resources: [{group: '', resources: ['pods/*', '*/scale'], resourceNames: [a]}]
  omitManagedFields: false
- level: Metadata
  namespaces: ['']
  userGroups: [ops]
- level: RequestResponse
  resources: [{group: apps}]
  omitStages: [Panic]
";

    fn check(user: &User, method: Method, uri: &str, expected: Expect) {
        let policy = Policy::parse(POLICY).unwrap();
        let info = RequestInfo::parse(&method, &uri.parse().unwrap());
        let rule = policy.evaluate(&Attributes::of(user, &info), true);
        let omitted = rule.omit_stages.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(",");
        expected.assert_eq(&format!("{} {omitted} {}", rule.level.as_str(), rule.omit_managed_fields));
    }

    #[test]
    fn the_first_rule_that_matches() {
        let (jo, ops) = (User::new("jo", &[]), User::new("o", &["ops"]));
        let proxy = User::new("system:kube-proxy", &[]);
        check(&proxy, Method::GET, "/api/v1/services?watch=1", expect!["None RequestReceived true"]);
        check(&ops, Method::GET, "/api/v1/nodes/n", expect!["Metadata RequestReceived true"]);
        check(&jo, Method::GET, "/api/v1/nodes/n", expect!["None RequestReceived true"]);
        check(&ops, Method::GET, "/healthz/ping", expect!["None RequestReceived true"]);
        check(&jo, Method::GET, "/api/v1/namespaces/x/pods/a/log", expect!["Request RequestReceived false"]);
        check(&jo, Method::GET, "/api/v1/namespaces/x/pods/a", expect!["Request RequestReceived false"]);
        check(&jo, Method::GET, "/api/v1/namespaces/x/pods/b/log", expect!["None RequestReceived true"]);
        check(
            &jo,
            Method::PUT,
            "/apis/apps/v1/namespaces/x/deployments/d/status",
            expect!["RequestResponse RequestReceived,Panic true"],
        );
    }

    #[test]
    fn what_is_no_policy() {
        let check = |text: &str, expected: Expect| expected.assert_eq(&Policy::parse(text).unwrap_err());
        check(
            "apiVersion: audit.k8s.io/v2\nkind: Policy",
            expect!["unknown group version field audit.k8s.io/v2, Kind=Policy in policy"],
        );
        check("rules: []", expect!["failed decoding: Object 'Kind' is missing"]);
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        check(&format!("{head}rules: []"), expect!["loaded illegal policy with 0 rules"]);
        let wrong = "omitStages: [x]
rules:
- {level: All, nonResourceURLs: [a, '/*/b'], namespaces: [z]}
- {resources: [{group: apps/v1, resourceNames: [x]}]}";
        check(
            &format!("{head}{wrong}"),
            expect![[
                r#"[omitStages[0]: Invalid value: "x": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic, rules[0].level: Unsupported value: "All": supported values: "None", "Metadata", "Request", "RequestResponse", rules[0].nonResourceURLs[0]: Invalid value: "a": non-resource URL rules must begin with a '/' character, rules[0].nonResourceURLs[1]: Invalid value: "/*/b": non-resource URL wildcards '*' must be the final character of the rule, rules[0].nonResourceURLs: Invalid value: ["a","/*/b"]: rules cannot apply to both regular resources and non-resource URLs, rules[1].level: Required value, rules[1].resources.group: Invalid value: "apps/v1": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), rules[1].resources.resourceNames: Invalid value: ["x"]: using resourceNames requires at least one resource]"#
            ]],
        );
    }
}
