//! The Secrets that a pod refers to: whether there are any, and whether its service account lists them.

use apimachinery::value::Value;

pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn is_set(object: &Value, key: &str) -> bool {
    object.get(key).is_some_and(|v| !v.is_null())
}

/// A pod's lists of containers, and what messages call those in them.
const CONTAINERS: [(&str, &str); 3] = [
    ("initContainers", "init container"),
    ("containers", "container"),
    ("ephemeralContainers", "ephemeral container"),
];

/// Whether the environment of a container comes from an object: wholly by `from`, or a variable by `key`.
pub(super) fn in_environment(spec: &Value, from: &str, key: &str) -> bool {
    CONTAINERS.iter().flat_map(|(list, _)| items(&spec[*list])).any(|container| {
        items(&container["envFrom"]).any(|source| is_set(source, from))
            || items(&container["env"]).any(|variable| is_set(&variable["valueFrom"], key))
    })
}

/// Whether a source of a pod's projected volumes is of a kind.
pub(super) fn is_projected(spec: &Value, kind: &str) -> bool {
    let mut sources = items(&spec["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
    sources.any(|source| is_set(source, kind))
}

/// Whether a pod refers to any Secret.
pub(super) fn any(spec: &Value) -> bool {
    const WITH_SECRETS: [&str; 7] =
        ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"];
    let of_volumes = || {
        items(&spec["volumes"]).any(|volume| {
            is_set(volume, "secret")
                || is_set(volume, "azureFile")
                || is_set(&volume["csi"], "nodePublishSecretRef")
                || WITH_SECRETS.iter().any(|source| is_set(&volume[*source], "secretRef"))
        })
    };
    items(&spec["imagePullSecrets"]).next().is_some()
        || in_environment(spec, "secretRef", "secretKeyRef")
        || of_volumes()
        || is_projected(spec, "secret")
}

/// Whether a service account keeps its pods to the Secrets that it lists.
pub(super) fn are_limited(account: &Value) -> bool {
    const ANNOTATION: &str = "kubernetes.io/enforce-mountable-secrets";
    // As Go reads booleans.
    const TRUE: [&str; 6] = ["1", "t", "T", "true", "TRUE", "True"];
    account["metadata"]["annotations"][ANNOTATION].as_str().is_some_and(|text| TRUE.contains(&text))
}

/// Why a new pod may not refer to one of its Secrets: its account does not list it.
pub(super) fn unlisted(account: &Value, spec: &Value) -> Option<String> {
    let name = crate::object::name(account);
    let listed = |list: &str, wanted: &str| items(&account[list]).any(|secret| secret["name"] == wanted);
    let secrets = items(&spec["volumes"]).filter_map(|volume| volume["secret"]["secretName"].as_str());
    let of_volumes = || {
        secrets.into_iter().find(|secret| !listed("secrets", secret)).map(|secret| {
            format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {name} does not reference that secret"
            )
        })
    };
    let to_pull = || {
        let mut named = items(&spec["imagePullSecrets"]).enumerate();
        named.find_map(|(at, secret)| {
            let secret = secret["name"].as_str().unwrap_or_default();
            (!listed("imagePullSecrets", secret)).then(|| {
                format!(
                    "imagePullSecrets[{at}].name=\"{secret}\" is not allowed because service account {name} does not reference that imagePullSecret"
                )
            })
        })
    };
    of_volumes().or_else(|| in_containers(account, spec, &CONTAINERS[..2])).or_else(to_pull)
}

/// The same of the ephemeral containers that a pod gets.
pub(super) fn unlisted_ephemeral(account: &Value, spec: &Value) -> Option<String> {
    in_containers(account, spec, &CONTAINERS[2..])
}

fn in_containers(account: &Value, spec: &Value, lists: &[(&str, &str)]) -> Option<String> {
    let listed = |wanted: &str| items(&account["secrets"]).any(|secret| secret["name"] == wanted);
    let unlisted = |reference: &Value| {
        let name = reference.get("name")?.as_str()?;
        (!listed(name)).then(|| name.to_owned())
    };
    let refused = |what: &str, container: &Value, how: &str, secret: &str| {
        format!(
            "{what} {} with {how} referencing secret.secretName=\"{secret}\" is not allowed because service account {} does not reference that secret",
            container["name"].as_str().unwrap_or_default(),
            crate::object::name(account)
        )
    };
    lists.iter().find_map(|(list, what)| {
        items(&spec[*list]).find_map(|container| {
            let variable = items(&container["env"]).find_map(|variable| {
                let secret = unlisted(&variable["valueFrom"]["secretKeyRef"])?;
                let how = format!("envVar {}", variable["name"].as_str().unwrap_or_default());
                Some(refused(what, container, &how, &secret))
            });
            let whole = || {
                let secret =
                    items(&container["envFrom"]).find_map(|source| unlisted(&source["secretRef"]))?;
                Some(refused(what, container, "envFrom", &secret))
            };
            variable.or_else(whole)
        })
    })
}
