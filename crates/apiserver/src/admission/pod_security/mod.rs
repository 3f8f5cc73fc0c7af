//! PodSecurity: the Pod Security Standards, as a namespace's labels ask: what violates the enforced level is refused, what
//! violates the warned one is told to the client, what violates the audited one to the audit log.

mod checks;
mod configuration;
mod measures;
mod policy;

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use crate::audit::event::Level;
use apimachinery::status::Status;
use apimachinery::value::Value;
pub(super) use configuration::Configuration;
use configuration::Exemption;
pub(super) use measures::Measures;
use policy::{Level as Standard, LevelVersion, Policy};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct PodSecurity {
    pub namespaces: Arc<Objects>,
    pub pods: Arc<Objects>,
    pub measures: Measures,
    pub configuration: Configuration,
}

/// What a pod violates at a level: reasons and details.
fn violations(at: LevelVersion, metadata: &Value, spec: &Value) -> Vec<(String, String)> {
    checks::evaluate(at, metadata, spec)
}

fn detail(found: &[(String, String)]) -> String {
    let one = |(reason, detail): &(String, String)| match detail.as_str() {
        "" => reason.clone(),
        detail => format!("{reason} ({detail})"),
    };
    found.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The metadata and spec of the pods that an object makes.
fn template(object: &Value, resource: &str) -> Option<(Value, Value)> {
    let template = match resource {
        "podtemplates" => &object["template"],
        "cronjobs" => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => &object["spec"]["template"],
    };
    let spec = template.get("spec")?;
    Some((template["metadata"].clone(), spec.clone()))
}

fn is_controller(a: &Attributes<'_>) -> bool {
    matches!(
        (a.resource.row.group.as_ref(), a.resource.row.resource.as_ref()),
        ("", "replicationcontrollers" | "podtemplates")
            | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
            | ("batch", "jobs" | "cronjobs")
    )
}

/// Whether an update of a pod can make a difference: other images, or new containers.
fn is_significant(new: &Value, old: &Value) -> bool {
    fn list<'a>(pod: &'a Value, key: &str) -> &'a [Value] {
        pod["spec"][key].as_array().map_or(&[], Vec::as_slice)
    }
    for key in ["containers", "initContainers"] {
        let (new, old) = (list(new, key), list(old, key));
        if new.len() != old.len() || new.iter().zip(old).any(|(n, o)| n["image"] != o["image"]) {
            return true;
        }
    }
    let before = list(old, "ephemeralContainers");
    list(new, "ephemeralContainers")
        .iter()
        .any(|n| before.iter().find(|o| o["name"] == n["name"]).is_none_or(|o| o["image"] != n["image"]))
}

/// Whether pods that were let in before might not be any more.
fn is_stricter(now: LevelVersion, before: LevelVersion) -> bool {
    now != before
        && now.level != Standard::Privileged
        && (now.version != before.version || now.level > before.level)
}

impl PodSecurity {
    fn policy(&self, namespace: &str) -> Result<(Policy, Vec<String>), Status> {
        let found = self.namespaces.get("", namespace)?.unwrap_or_default();
        Ok(self.of(&found["metadata"]["labels"]))
    }

    fn of(&self, labels: &Value) -> (Policy, Vec<String>) {
        Policy::of(labels, self.configuration.defaults)
    }

    /// Whether a request is nobody's to judge; then that is told.
    fn is_exempt(&self, a: &Attributes<'_>, exemption: Option<Exemption>) -> bool {
        let Some(exemption) = exemption else { return false };
        self.measures.exempt(a);
        crate::context::annotate_from(Level::None, || (key("exempt"), exemption.name().to_owned()));
        true
    }

    fn controller(&self, a: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        if self.is_exempt(a, self.configuration.of_request(a)) {
            return Ok(());
        }
        let (policy, errors) = self.policy(a.namespace)?;
        let silent = policy.warn.level == Standard::Privileged && policy.audit.level == Standard::Privileged;
        if errors.is_empty() && silent {
            return Ok(());
        }
        let Some((metadata, spec)) = template(object, &a.resource.row.resource) else { return Ok(()) };
        if self.is_exempt(a, self.configuration.of_spec(&spec)) {
            return Ok(());
        }
        self.audit(a, &policy, errors, &metadata, &spec);
        self.warn(a, &policy, &metadata, &spec);
        Ok(())
    }

    fn pod(&self, a: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        const IGNORED: [&str; 8] =
            ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
        if IGNORED.contains(&a.subresource) || self.is_exempt(a, self.configuration.of_request(a)) {
            return Ok(());
        }
        let (policy, errors) = self.policy(a.namespace)?;
        let lenient = errors.is_empty() && policy.is_fully_privileged();
        if !lenient {
            let insignificant = a.old.is_some_and(|old| !is_significant(pod, old));
            if insignificant || self.is_exempt(a, self.configuration.of_spec(&pod["spec"])) {
                return Ok(());
            }
        }
        let found = violations(policy.enforce, &pod["metadata"], &pod["spec"]);
        crate::context::annotate_from(Level::None, || (key("enforce-policy"), policy.enforce.to_string()));
        self.audit(a, &policy, errors, &pod["metadata"], &pod["spec"]);
        self.measures.judged(found.is_empty(), policy.enforce, "enforce", a);
        if !found.is_empty() {
            let why = format!("violates PodSecurity {:?}: {}", policy.enforce.to_string(), detail(&found));
            return Err(Status::forbidden(&a.resource.group_resource(), a.name, why));
        }
        self.warn(a, &policy, &pod["metadata"], &pod["spec"]);
        Ok(())
    }

    /// Tells the audit log of labels that are none, and of what violates the audited level.
    fn audit(
        &self,
        a: &Attributes<'_>,
        policy: &Policy,
        errors: Vec<String>,
        metadata: &Value,
        spec: &Value,
    ) {
        if let Some(why) = apimachinery::field::aggregate(errors) {
            crate::context::annotate(key("error"), format!("Failed to parse policy: {why}"));
        }
        let found = violations(policy.audit, metadata, spec);
        if !found.is_empty() {
            self.measures.judged(false, policy.audit, "audit", a);
            let level = policy.audit.to_string();
            let why = format!("would violate PodSecurity {level:?}: {}", detail(&found));
            crate::context::annotate(key("audit-violations"), why);
        }
    }

    fn warn(&self, a: &Attributes<'_>, policy: &Policy, metadata: &Value, spec: &Value) {
        let found = violations(policy.warn, metadata, spec);
        if !found.is_empty() {
            self.measures.judged(false, policy.warn, "warn", a);
            let level = policy.warn.to_string();
            crate::context::warn(format!("would violate PodSecurity {level:?}: {}", detail(&found)));
        }
    }

    /// Labels that are none are refused when they come; pods that would not be let in any more are told of.
    fn namespace(&self, a: &Attributes<'_>, namespace: &Value) -> Result<(), Status> {
        let labels = &namespace["metadata"]["labels"];
        let (policy, errors) = self.of(labels);
        let (before, old_errors) = a.old.map(|o| self.of(&o["metadata"]["labels"])).unwrap_or_default();
        if !errors.is_empty() && (a.old.is_none() || errors.iter().any(|e| !old_errors.contains(e))) {
            let mut status = Status::invalid(&a.resource.group_kind(), a.name, &Default::default());
            status.message = format!(
                "Namespace {:?} is invalid: {}",
                a.name,
                apimachinery::field::aggregate(errors).unwrap_or_default()
            );
            return Err(status);
        }
        let exempt = self.configuration.exempts_namespace(a.name);
        let stricter = a.old.is_some() && is_stricter(policy.enforce, before.enforce);
        if exempt && (a.old.is_none() || stricter) {
            let unheeded = policy.unheeded(a.name, labels, &self.configuration.defaults);
            unheeded.into_iter().for_each(crate::context::warn);
        } else if stricter {
            self.warn_of_existing_pods(a, policy.enforce)?;
        }
        Ok(())
    }

    /// Tells which pods of a namespace violate what is newly enforced there.
    fn warn_of_existing_pods(&self, a: &Attributes<'_>, enforce: LevelVersion) -> Result<(), Status> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in self.pods.list(a.name)? {
            if self.configuration.of_spec(&pod["spec"]).is_some() {
                continue;
            }
            let reasons: Vec<String> =
                violations(enforce, &pod["metadata"], &pod["spec"]).into_iter().map(|(r, _)| r).collect();
            if !reasons.is_empty() {
                found.entry(reasons.join(", ")).or_default().push(crate::object::name(&pod).to_owned());
            }
        }
        if !found.is_empty() {
            crate::context::warn(format!(
                "existing pods in namespace {:?} violate the new PodSecurity enforce level {:?}",
                a.name,
                enforce.to_string()
            ));
        }
        let mut texts: Vec<String> = found
            .iter()
            .map(|(reasons, pods)| {
                let first = pods.iter().min().map(String::as_str).unwrap_or_default();
                match pods.len() {
                    1 => format!("{first}: {reasons}"),
                    2 => format!("{first} (and 1 other pod): {reasons}"),
                    n => format!("{first} (and {} other pods): {reasons}", n - 1),
                }
            })
            .collect();
        texts.sort();
        texts.into_iter().for_each(crate::context::warn);
        Ok(())
    }
}

fn key(name: &str) -> String {
    format!("pod-security.kubernetes.io/{name}")
}

impl Immediate for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create, Operation::Update])
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(object) = a.object.as_deref() else { return Ok(()) };
        if a.is("", "namespaces") && a.subresource.is_empty() {
            return self.namespace(a, object);
        }
        if a.is("", "pods") {
            return self.pod(a, object);
        }
        if is_controller(a) && a.subresource.is_empty() {
            return self.controller(a, object);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::policy::{Level, LevelVersion, Version};
    use super::violations;
    use apimachinery::value::Value;
    use std::path::Path;

    /// Upstream's own pods: what must pass passes, what must fail fails, at every level and version.
    #[test]
    fn upstreams_pods() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/pod-security");
        if !root.exists() {
            assert!(std::env::var_os("CI").is_none(), "{} is missing", root.display());
            eprintln!("skipped: {} is missing", root.display());
            return;
        }
        let mut pods = 0;
        for (name, level) in [("baseline", Level::Baseline), ("restricted", Level::Restricted)] {
            for version in std::fs::read_dir(root.join(name)).unwrap() {
                let version = version.unwrap().path();
                let text = version.file_name().unwrap().to_str().unwrap().to_owned();
                let at = LevelVersion { level, version: Version::parse(&text).unwrap() };
                for (outcome, passes) in [("pass", true), ("fail", false)] {
                    let Ok(files) = std::fs::read_dir(version.join(outcome)) else { continue };
                    for file in files {
                        let file = file.unwrap().path();
                        let text = std::fs::read_to_string(&file).unwrap();
                        let read = schema::decode::free_yaml(&text, Default::default());
                        let mut pod: Value = read.unwrap().value;
                        // A volume without a source is an emptyDir before anybody judges it.
                        hooks::strategy("", "Pod").default(&mut pod);
                        let found = violations(at, &pod["metadata"], &pod["spec"]);
                        assert_eq!(found.is_empty(), passes, "{}: {found:?}", file.display());
                        pods += 1;
                    }
                }
            }
        }
        assert!(pods > 1000, "only {pods} pods");
    }
}
