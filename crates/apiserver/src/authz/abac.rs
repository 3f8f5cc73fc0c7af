//! ABAC: a file of policies, one JSON object a line, that allow what they match (`--authorization-policy-file`).

use super::{Attributes, Authorizer, Decision, Rules};
use crate::user::{ALL_AUTHENTICATED, User};
use api::rbac::v1::PolicyRule;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use serde::Deserialize;
use std::path::Path;

const API_VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";

/// What one line allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

/// The policies of a file, which is read once.
#[derive(Debug)]
pub struct Abac(Vec<Policy>);

impl Abac {
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("open {}: {e}", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, path: &str) -> Result<Self, String> {
        let mut policies = Vec::new();
        let mut unversioned = false;
        for (at, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let policy = policy(line, &mut unversioned);
            policies
                .push(policy.map_err(|e| {
                    format!("error reading policy file {path}, line {}: {line}: {e}", at + 1)
                })?);
        }
        if unversioned {
            tracing::warn!(
                "Policy file {path} contained unversioned rules. See docs/admin/authorization.md#abac-mode for ABAC file format details."
            );
        }
        Ok(Abac(policies))
    }
}

fn policy(line: &str, unversioned: &mut bool) -> Result<Policy, String> {
    let value: Value = serde_json::from_str(line)
        .map_err(|e| format!("couldn't get version/kind; json parse error: {e}"))?;
    let read = |value: Value| apimachinery::value::from_value::<Policy>(value).map_err(|e| e.to_string());
    if value["apiVersion"] == API_VERSION && value["kind"] == "Policy" {
        let mut policy = match value.get("spec") {
            None | Some(Value::Null) => Policy::default(),
            Some(spec) => read(spec.clone())?,
        };
        // Everybody means everybody with a name.
        if policy.user == "*" || policy.group == "*" {
            policy.group = ALL_AUTHENTICATED.into();
            policy.user.clear();
        }
        return Ok(policy);
    }
    *unversioned = true;
    let mut policy = read(value)?;
    (policy.api_group, policy.non_resource_path) = ("*".into(), String::new());
    // In the first version, what is left out matches everything.
    let nobody = policy.user.is_empty() && policy.group.is_empty();
    if nobody || policy.user == "*" || policy.group == "*" {
        policy.group = ALL_AUTHENTICATED.into();
        policy.user.clear();
    }
    if policy.namespace.is_empty() && policy.resource.is_empty() {
        policy.non_resource_path = "*".into();
    }
    for part in [&mut policy.namespace, &mut policy.resource] {
        if part.is_empty() {
            *part = "*".into();
        }
    }
    Ok(policy)
}

impl Policy {
    /// Whether the policy is about a user: it names one, or a group, and whatever it names must fit.
    fn concerns(&self, user: &User) -> bool {
        let by_name = self.user.is_empty() || self.user == "*" || self.user == user.name;
        let by_group = self.group.is_empty() || self.group == "*" || user.in_group(&self.group);
        let names_anybody = !self.user.is_empty() || !self.group.is_empty();
        names_anybody && by_name && by_group
    }

    fn matches(&self, a: &Attributes<'_>) -> bool {
        let is = |policy: &str, asked: &str| policy == "*" || policy == asked;
        if !self.concerns(a.user) || self.readonly && !matches!(a.verb, "get" | "list" | "watch") {
            return false;
        }
        if a.is_resource {
            return is(&self.namespace, a.namespace)
                && is(&self.resource, a.resource)
                && is(&self.api_group, a.group);
        }
        let path = &self.non_resource_path;
        is(path, a.path) || path.ends_with('*') && a.path.starts_with(path.trim_end_matches('*'))
    }
}

impl Authorizer for Abac {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        let decision = if self.0.iter().any(|policy| policy.matches(attributes)) {
            Decision::Allow { reason: String::new() }
        } else {
            Decision::NoOpinion { reason: "No policy matched.".into() }
        };
        Box::pin(std::future::ready(decision))
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let here = |policy: &&Policy| {
            policy.concerns(user) && (policy.namespace == "*" || policy.namespace == namespace)
        };
        let rules = self.0.iter().filter(here).flat_map(|policy| {
            let verbs: Vec<String> = match policy.readonly {
                true => ["get", "list", "watch"].map(str::to_owned).to_vec(),
                false => vec!["*".into()],
            };
            let resources = (!policy.resource.is_empty()).then(|| PolicyRule {
                verbs: verbs.clone(),
                api_groups: vec![policy.api_group.clone()],
                resources: vec![policy.resource.clone()],
                ..Default::default()
            });
            let paths = (!policy.non_resource_path.is_empty()).then(|| PolicyRule {
                verbs: verbs.clone(),
                non_resource_urls: vec![policy.non_resource_path.clone()],
                ..Default::default()
            });
            [resources, paths].into_iter().flatten()
        });
        Rules { rules: rules.collect(), ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use futures::FutureExt as _;

    /// A policy file, and of each question `user[,group…] verb namespace|- group/resource|/path` whether it is allowed.
    fn check(file: &str, questions: &str, expected: Expect) {
        let abac = match Abac::parse(file, "f") {
            Ok(abac) => abac,
            Err(error) => return expected.assert_eq(&error),
        };
        let answers = questions.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [who, verb, namespace, what] = words.as_slice() else { panic!("{line}") };
            let mut names = who.split(',');
            let user = User::new(names.next().unwrap(), &names.collect::<Vec<_>>());
            let (group, resource) = what.split_once('/').unwrap();
            let is_resource = *namespace != "/";
            let attributes = Attributes {
                user: &user,
                verb,
                is_resource,
                group: if is_resource { group } else { "" },
                version: "v1",
                resource: if is_resource { resource } else { "" },
                subresource: "",
                namespace: if matches!(*namespace, "-" | "/") { "" } else { namespace },
                name: "",
                path: if is_resource { "" } else { what },
                label_selector: "",
                field_selector: "",
            };
            let decision = abac.authorize(&attributes).now_or_never().unwrap();
            format!("{line}: {}\n", matches!(decision, Decision::Allow { .. }))
        });
        expected.assert_eq(&answers.collect::<String>());
    }

    #[test]
    fn policies_allow_what_they_match() {
        let v1beta1 = |spec: &str| {
            format!("{{\"apiVersion\":\"{API_VERSION}\",\"kind\":\"Policy\",\"spec\":{spec}}}\n")
        };
        let file = [
            "# who may what\n\n".to_owned(),
            v1beta1(r#"{"user":"alice","namespace":"a","resource":"*","apiGroup":"*"}"#),
            v1beta1(r#"{"user":"bob","namespace":"*","resource":"pods","readonly":true}"#),
            v1beta1(r#"{"group":"*","nonResourcePath":"/api*","readonly":true}"#),
            v1beta1(r#"{"user":"carol","group":"admins","namespace":"*","resource":"*","apiGroup":"*"}"#),
            v1beta1(r#"{"namespace":"*","resource":"*","apiGroup":"*"}"#),
        ]
        .concat();
        check(
            &file,
            "
            alice create a apps/deployments
            alice create b apps/deployments
            alice get - /nodes
            bob list - /pods
            bob create a /pods
            bob get a metrics.k8s.io/pods
            dave,system:authenticated get / /api/v1
            dave,system:authenticated post / /api/v1
            dave get / /api/v1
            carol delete - /nodes
            carol,admins delete - /nodes
            eve,admins get - /nodes",
            expect![[r#"
                alice create a apps/deployments: true
                alice create b apps/deployments: false
                alice get - /nodes: false
                bob list - /pods: true
                bob create a /pods: false
                bob get a metrics.k8s.io/pods: false
                dave,system:authenticated get / /api/v1: true
                dave,system:authenticated post / /api/v1: false
                dave get / /api/v1: false
                carol delete - /nodes: false
                carol,admins delete - /nodes: true
                eve,admins get - /nodes: false
            "#]],
        );
    }

    #[test]
    fn lines_without_a_version() {
        check(
            "{\"user\":\"alice\",\"resource\":\"pods\"}\n{\"user\":\"bob\"}\n{\"readonly\":true,\"namespace\":\"open\"}",
            "
            alice create a /pods
            alice create a /secrets
            alice get / /healthz
            bob delete - apps/deployments
            bob post / /healthz
            x,system:authenticated get open /secrets
            x get open /secrets",
            expect![[r#"
                alice create a /pods: true
                alice create a /secrets: false
                alice get / /healthz: false
                bob delete - apps/deployments: true
                bob post / /healthz: true
                x,system:authenticated get open /secrets: true
                x get open /secrets: false
            "#]],
        );
        check(
            "{}\nno",
            "",
            expect![
                "error reading policy file f, line 2: no: couldn't get version/kind; json parse error: expected ident at line 1 column 2"
            ],
        );
    }
}
