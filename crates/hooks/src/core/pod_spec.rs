//! Defaults of a pod's spec, in pods and in templates. Upstream: `SetDefaults_PodSpec` and what it reaches.

use super::image_names::is_latest;
use super::pod_totals::default_pod_resources;
use crate::tree::{absent_or, each, or, remove, text, with};
use apimachinery::json;
use apimachinery::value::{Map, Value};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// What templates and pods share.
pub(crate) fn default_pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    or(spec, "restartPolicy", "Always");
    absent_or(spec, "terminationGracePeriodSeconds", 30);
    or(spec, "dnsPolicy", "ClusterFirst");
    absent_or(spec, "securityContext", json!({}));
    or(spec, "schedulerName", "default-scheduler");
    // One field under two names.
    let account = match text(spec, &["serviceAccountName"]) {
        "" => text(spec, &["serviceAccount"]).to_owned(),
        name => name.to_owned(),
    };
    if account.is_empty() {
        remove(spec, "serviceAccount");
        remove(spec, "serviceAccountName");
    } else {
        spec["serviceAccount"] = account.as_str().into();
        spec["serviceAccountName"] = account.into();
    }
    for key in CONTAINERS {
        each(spec, key, default_container);
    }
    each(spec, "volumes", default_volume);
}

/// What only pods get: requests from limits, host ports, service links.
pub(super) fn default_pod(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    let host_network = spec["hostNetwork"] == true;
    for key in ["initContainers", "containers"] {
        each(spec, key, |container| {
            with(container, "resources", requests_from_limits);
            if host_network {
                each(container, "ports", |port| {
                    let number = port["containerPort"].clone();
                    or(port, "hostPort", number);
                });
            }
        });
    }
    default_pod_resources(spec);
    absent_or(spec, "enableServiceLinks", true);
    // A slip of the client's, taken for the shortest period; templates keep it.
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|period| period < 0) {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
}

/// Where init containers stood before there was a field for them: nobody reads them there.
pub(crate) fn drop_old_annotations(object: &mut Value) {
    const OLD: [&str; 4] = [
        "pod.beta.kubernetes.io/init-containers",
        "pod.alpha.kubernetes.io/init-containers",
        "pod.beta.kubernetes.io/init-container-statuses",
        "pod.alpha.kubernetes.io/init-container-statuses",
    ];
    with(object, "metadata", |metadata| {
        with(metadata, "annotations", |annotations| OLD.iter().for_each(|key| remove(annotations, key)));
    });
}

fn requests_from_limits(resources: &mut Value) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if limits.is_empty() {
        return;
    }
    absent_or(resources, "requests", Map::new());
    let requests = &mut resources["requests"];
    limits.into_iter().for_each(|(name, limit)| absent_or(requests, &name, limit));
}

fn default_container(container: &mut Value) {
    or(container, "imagePullPolicy", pull_policy(text(container, &["image"])));
    or(container, "terminationMessagePath", "/dev/termination-log");
    or(container, "terminationMessagePolicy", "File");
    each(container, "ports", |port| or(port, "protocol", "TCP"));
    each(container, "env", |variable| {
        with(variable, "valueFrom", |from| with(from, "fieldRef", default_field_ref));
        with(variable, "valueFrom", |from| {
            with(from, "fileKeyRef", |file| absent_or(file, "optional", false));
        });
    });
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        with(container, key, |probe| {
            or(probe, "timeoutSeconds", 1);
            or(probe, "periodSeconds", 10);
            or(probe, "successThreshold", 1);
            or(probe, "failureThreshold", 3);
            default_handler(probe);
            with(probe, "grpc", |grpc| absent_or(grpc, "service", ""));
        });
    }
    with(container, "lifecycle", |lifecycle| {
        with(lifecycle, "postStart", default_handler);
        with(lifecycle, "preStop", default_handler);
    });
}

/// When an image is pulled of which nothing is said.
fn pull_policy(image: &str) -> &'static str {
    if is_latest(image) { "Always" } else { "IfNotPresent" }
}

fn default_handler(handler: &mut Value) {
    with(handler, "httpGet", |get| {
        or(get, "path", "/");
        or(get, "scheme", "HTTP");
    });
}

fn default_field_ref(reference: &mut Value) {
    or(reference, "apiVersion", "v1");
}

fn default_volume(volume: &mut Value) {
    let names = volume.as_object().map_or(0, Map::len);
    if names <= 1 {
        // No source at all is an empty directory.
        volume["emptyDir"] = json!({});
    }
    for key in ["secret", "configMap"] {
        with(volume, key, |source| absent_or(source, "defaultMode", 0o644));
    }
    with(volume, "downwardAPI", |source| {
        absent_or(source, "defaultMode", 0o644);
        each(source, "items", |item| with(item, "fieldRef", default_field_ref));
    });
    with(volume, "projected", |source| {
        absent_or(source, "defaultMode", 0o644);
        each(source, "sources", |source| {
            with(source, "serviceAccountToken", |token| absent_or(token, "expirationSeconds", 3600));
            with(source, "downwardAPI", |api| {
                each(api, "items", |item| with(item, "fieldRef", default_field_ref));
            });
        });
    });
    with(volume, "hostPath", |source| absent_or(source, "type", ""));
    with(volume, "image", |image| or(image, "pullPolicy", pull_policy(text(image, &["reference"]))));
    with(volume, "iscsi", |source| or(source, "iscsiInterface", "default"));
    with(volume, "ephemeral", |source| {
        with(source, "volumeClaimTemplate", |template| {
            with(template, "spec", |spec| absent_or(spec, "volumeMode", "Filesystem"));
        });
    });
}
