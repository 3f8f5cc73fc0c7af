//! What whoever writes a pod or a template of pods is told, though it is let in. Upstream: `GetWarningsForPod`,
//! `GetWarningsForPodTemplate`.

use super::node_warnings;
use super::volume_overlaps::overlaps;
use crate::Context;
use crate::tree::{at, int, list, text};
use apimachinery::field::Path;
use apimachinery::quantity::Quantity;
use apimachinery::quote::quote;
use apimachinery::validation::{is_dns1123_label, warnings_for_ip};
use apimachinery::value::Value;
use std::collections::{BTreeMap, HashSet};

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

/// Sources of volumes that nothing serves any more, with the names warnings have for them.
const VOLUMES: [(&str, &str, &str); 7] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
];
const LATER_VOLUMES: [(&str, &str, &str); 2] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Of the name of an object that pods have their names from.
pub(crate) fn of_name(object: &Value) -> Vec<String> {
    named(object, "Pod names and hostnames")
}

fn named(object: &Value, what: &str) -> Vec<String> {
    let found: Vec<String> = is_dns1123_label(text(object, &["metadata", "name"])).into_iter().collect();
    if found.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in {what}, which can result in surprising behavior; a DNS label is recommended: [{}]",
        found.join(" ")
    )]
}

/// Of a new pod.
pub(super) fn of_pod(pod: &Value) -> Vec<String> {
    let mut found = named(pod, "the Pod's hostname");
    found.extend(Teller { path: Path::none(), template: false, of: pod }.tell());
    found
}

/// Of the template at a path.
pub(crate) fn of_template(object: &Value, path: &[&'static str]) -> Vec<String> {
    let Some(of) = at(object, path) else { return Vec::new() };
    let mut names = path.iter();
    let root = names.next().map_or_else(Path::none, |first| Path::new(*first));
    let path = names.fold(root, |path, name| path.child(*name));
    Teller { path, template: true, of }.tell()
}

/// Whether an update left all that counts generations as it was.
pub(crate) fn same_generation(object: &Value, old: &Value) -> bool {
    let generation = |object: &Value| int(object, &["metadata", "generation"]);
    generation(old) == generation(object)
}

/// Whether pods have their names from an object's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// And whoever gives it one is told what that means.
    Warned,
    Free,
}

/// Of an object whose template may have changed: when it is new, and in a new generation.
pub(crate) fn template_warnings(
    object: &Value,
    old: Option<&Value>,
    context: &Context,
    named: Named,
) -> Vec<String> {
    if context.subresource.is_some() || old.is_some_and(|old| same_generation(object, old)) {
        return Vec::new();
    }
    let mut found = if named == Named::Warned && old.is_none() { of_name(object) } else { Vec::new() };
    found.extend(of_template(object, &["spec", "template"]));
    found
}

struct Teller<'a> {
    path: Path,
    template: bool,
    of: &'a Value,
}

impl<'a> Teller<'a> {
    fn spec(&self) -> &'a Value {
        &self.of["spec"]
    }

    /// A path below the one of the pod or template.
    fn at(&self, names: &[&'static str]) -> Path {
        let below = |path: Path, name: &&'static str| match path.is_none() {
            true => Path::new(*name),
            false => path.child(*name),
        };
        names.iter().fold(self.path.clone(), below)
    }

    fn annotation(&self, name: &str) -> Option<&'a Value> {
        self.of["metadata"]["annotations"].get(name)
    }

    fn containers(&self) -> Vec<(&'a Value, Path)> {
        let mut all = Vec::new();
        for member in CONTAINERS {
            let containers = list(self.spec(), &[member]);
            if !containers.is_empty() {
                let path = self.at(&["spec", member]);
                all.extend(containers.iter().enumerate().map(|(i, container)| (container, path.index(i))));
            }
        }
        all
    }

    fn tell(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.labels(&mut found);
        for (name, why) in ANNOTATIONS {
            if self.annotation(name).is_some() {
                found.push(format!("{}: {why}", self.at(&["metadata", "annotations"]).key(name)));
            }
        }
        self.volumes(&mut found);
        self.duplicates(&mut found);
        let overhead = &self.spec()["overhead"];
        if overhead.is_object() {
            self.amounts(overhead, &self.at(&["spec", "overhead"]), &mut found);
        }
        let containers = self.containers();
        self.profiles_and_env(&containers, &mut found);
        self.ports(&containers, &mut found);
        if self.spec()["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0) {
            let at = self.at(&["spec", "terminationGracePeriodSeconds"]);
            found.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
        }
        self.affinity(&mut found);
        for (i, server) in list(self.spec(), &["dnsConfig", "nameservers"]).iter().enumerate() {
            let at = self.at(&["spec", "dnsConfig", "nameservers"]).index(i);
            found.extend(warnings_for_ip(&at, server.as_str().unwrap_or_default()));
        }
        for (i, alias) in list(self.spec(), &["hostAliases"]).iter().enumerate() {
            let at = self.at(&["spec", "hostAliases"]).index(i).child("ip");
            found.extend(warnings_for_ip(&at, text(alias, &["ip"])));
        }
        found
    }

    /// Labels of nodes by old names, and selectors that select nothing.
    fn labels(&self, found: &mut Vec<String>) {
        const NODES: &str = "nodeAffinity";
        let spec = self.spec();
        for name in spec["nodeSelector"].as_object().into_iter().flatten().map(|(name, _)| name) {
            let at = self.at(&["spec", "nodeSelector"]).key(name.as_str());
            found.extend(node_warnings::of_label(name).map(|why| format!("{at}: {why}")));
        }
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let terms = list(spec, &["affinity", NODES, required, "nodeSelectorTerms"]);
        for (i, term) in terms.iter().enumerate() {
            let at = self.at(&["spec", "affinity", NODES, required, "nodeSelectorTerms"]).index(i);
            found.extend(node_warnings::of_term(term, false, &at));
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in list(spec, &["affinity", NODES, preferred]).iter().enumerate() {
            let at = self.at(&["spec", "affinity", NODES, preferred]).index(i).child("preference");
            found.extend(node_warnings::of_term(&term["preference"], true, &at));
        }
        for (i, constraint) in list(spec, &["topologySpreadConstraints"]).iter().enumerate() {
            let at = self.at(&["spec", "topologySpreadConstraints"]).index(i);
            let key = text(constraint, &["topologyKey"]);
            let old = node_warnings::of_label(key);
            found.extend(old.map(|why| format!("{}: {key} is {why}", at.child("topologyKey"))));
            no_selector(constraint, &at, found);
        }
    }

    fn affinity(&self, found: &mut Vec<String>) {
        for kind in ["podAffinity", "podAntiAffinity"] {
            let required = "requiredDuringSchedulingIgnoredDuringExecution";
            for (i, term) in list(self.spec(), &["affinity", kind, required]).iter().enumerate() {
                no_selector(term, &self.at(&["spec", "affinity", kind, required]).index(i), found);
            }
            let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
            for (i, term) in list(self.spec(), &["affinity", kind, preferred]).iter().enumerate() {
                let at = self.at(&["spec", "affinity", kind, preferred]).index(i).child("podAffinityTerm");
                no_selector(&term["podAffinityTerm"], &at, found);
            }
        }
    }

    fn volumes(&self, found: &mut Vec<String>) {
        let volumes = list(self.spec(), &["volumes"]);
        for (i, volume) in volumes.iter().enumerate() {
            let at = || self.at(&["spec", "volumes"]).index(i);
            let old = |sources: &[(&str, &'static str, &str)], found: &mut Vec<String>| {
                let given = sources.iter().filter(|(member, ..)| volume[*member].is_object());
                found.extend(given.map(|(_, shown, why)| format!("{}: {why}", at().child(*shown))));
            };
            old(&VOLUMES, found);
            let template = &volume["ephemeral"]["volumeClaimTemplate"];
            if template.is_object() {
                let at = at().child("ephemeral").child("volumeClaimTemplate").child("spec");
                found.extend(super::persistent_volume_claim::spec_warnings(&template["spec"], &at));
            }
            old(&LATER_VOLUMES, found);
        }
        found.extend(overlaps(volumes));
    }

    fn duplicates(&self, found: &mut Vec<String>) {
        for (member, key, what) in [("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")] {
            let mut seen = HashSet::new();
            for (i, item) in list(self.spec(), &[member]).iter().enumerate() {
                if !seen.insert(text(item, &[key])) {
                    let at = self.at(&["spec", member]).index(i).child(key);
                    found.push(format!("{at}: duplicate {what} {}", quote(text(item, &[key]))));
                }
            }
        }
        for (i, secret) in list(self.spec(), &["imagePullSecrets"]).iter().enumerate() {
            if text(secret, &["name"]).is_empty() {
                let at = self.at(&["spec", "imagePullSecrets"]).index(i).child("name");
                found.push(format!("{at}: invalid empty name \"\""));
            }
        }
    }

    /// Bytes that are no whole number.
    fn amounts(&self, amounts: &Value, path: &Path, found: &mut Vec<String>) {
        for name in ["memory", "ephemeral-storage"] {
            self.amount(amounts, name, path, found);
        }
    }

    fn amount(&self, amounts: &Value, name: &'static str, path: &Path, found: &mut Vec<String>) {
        let Ok(amount) = text(amounts, &[name]).parse::<Quantity>() else { return };
        if amount.milli_value() % 1000 != 0 {
            let why = format!("fractional byte value \"{amount}\" is invalid, must be an integer");
            found.push(format!("{}: {why}", path.key(name)));
        }
    }

    fn profiles_and_env(&self, containers: &[(&'a Value, Path)], found: &mut Vec<String>) {
        let old_profile = |name: &str| {
            let at = self.at(&["metadata", "annotations"]).key(name);
            format!("{at}: non-functional in v1.27+; use the \"seccompProfile\" field instead")
        };
        let context = &self.spec()["securityContext"];
        let annotated = self.of["metadata"]["annotations"].is_object();
        if context["seccompProfile"].is_null() && self.annotation(SECCOMP_OF_POD).is_some() {
            found.push(old_profile(SECCOMP_OF_POD));
        }
        for (container, path) in containers {
            let own = &container["securityContext"];
            if annotated && own["seccompProfile"].is_null() {
                let name = format!("{SECCOMP_OF_CONTAINER}{}", text(container, &["name"]));
                found.extend(self.annotation(&name).map(|_| old_profile(&name)));
            }
            if annotated && self.template && own["appArmorProfile"].is_null() {
                let name = format!("{APP_ARMOR}{}", text(container, &["name"]));
                let given = self.annotation(&name).and_then(Value::as_str);
                if given.is_some_and(|given| {
                    app_armor(given) != context["appArmorProfile"] || context["appArmorProfile"].is_null()
                }) {
                    let at = self.at(&["metadata", "annotations"]).key(name.as_str());
                    found.push(format!(
                        "{at}: deprecated since v1.30; use the \"appArmorProfile\" field instead"
                    ));
                }
            }
            for resource in ["memory", "ephemeral-storage"] {
                for amounts in ["limits", "requests"] {
                    let given = &container["resources"][amounts];
                    if given.get(resource).is_some() {
                        let at = path.child("resources").child(amounts);
                        self.amount(given, resource, &at, found);
                    }
                }
            }
            hidden_env(container, path, found);
        }
    }

    fn ports(&self, containers: &[(&'a Value, Path)], found: &mut Vec<String>) {
        let mut all: BTreeMap<(i64, &str), Vec<(Path, &Value)>> = BTreeMap::new();
        let (host_ip, host_port) =
            (|p: &Value| text(p, &["hostIP"]).to_owned(), |p: &Value| int(p, &["hostPort"]));
        for (container, path) in containers {
            for (i, port) in list(container, &["ports"]).iter().enumerate() {
                let at = path.child("ports").index(i);
                if !host_ip(port).is_empty() && host_port(port) == 0 {
                    found.push(format!(
                        "{at}: hostIP set without hostPort: {{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
                        text(port, &["name"]),
                        host_port(port),
                        int(port, &["containerPort"]),
                        text(port, &["protocol"]),
                        host_ip(port),
                    ));
                }
                let key = (int(port, &["containerPort"]), text(port, &["protocol"]));
                let others = all.entry(key).or_default();
                for (other_at, other) in others.iter() {
                    let same_port = host_port(port) == host_port(other);
                    let why = if same_port && host_ip(port) == host_ip(other) {
                        "duplicate"
                    } else if host_port(port) == 0 || host_port(other) == 0 {
                        "overlapping"
                    } else if same_port && host_ip(port).is_empty() != host_ip(other).is_empty() {
                        "dangerously ambiguous"
                    } else {
                        continue;
                    };
                    found.push(format!("{at}: {why} port definition with {other_at}"));
                }
                others.push((at, port));
            }
        }
        let mut names: BTreeMap<&str, Path> = BTreeMap::new();
        for (container, path) in containers {
            for (i, port) in list(container, &["ports"]).iter().enumerate() {
                let (at, name) = (path.child("ports").index(i), text(port, &["name"]));
                match names.get(name) {
                    _ if name.is_empty() => {}
                    Some(other) => found.push(format!(
                        "{at}: duplicate port name {} with {other}, services and probes that select ports by name will use {other}",
                        quote(name)
                    )),
                    None => drop(names.insert(name, at)),
                }
            }
        }
    }
}

fn no_selector(of: &Value, path: &Path, found: &mut Vec<String>) {
    if of["labelSelector"].is_null() {
        let at = path.child("labelSelector");
        found.push(format!("{at}: a null labelSelector results in matching no pod"));
    }
}

/// The profile that an annotation stood for.
fn app_armor(annotation: &str) -> Value {
    match annotation.strip_prefix("localhost/") {
        Some(profile) => apimachinery::json!({"type": "Localhost", "localhostProfile": profile}),
        None if annotation == "runtime/default" => apimachinery::json!({"type": "RuntimeDefault"}),
        None if annotation == "unconfined" => apimachinery::json!({"type": "Unconfined"}),
        None => Value::Null,
    }
}

/// Variables that are set twice without the second referring to the first.
fn hidden_env(container: &Value, path: &Path, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (i, variable) in list(container, &["env"]).iter().enumerate() {
        let (name, value) = (text(variable, &["name"]), text(variable, &["value"]));
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        if variable["valueFrom"].is_object() || value == reference || !value.contains(&reference) {
            let at = path.child("env").index(i);
            found.push(format!(
                "{at}: hides previous definition of {}, which may be dropped when using apply",
                quote(name)
            ));
        }
    }
}
