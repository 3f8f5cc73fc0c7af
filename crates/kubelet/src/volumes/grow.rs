//! Claims whose volumes have grown: their file systems follow, where they are mounted, and their status tells it. Whoever
//! makes the volume itself grow says so on the PersistentVolume, and on the claim by `allocatedResourceStatuses`; where that
//! is not said the volume's size alone counts, as with older resizers. Upstream: `NodeExpander`, `doOnlineExpansion`.

use super::{Ready, Request, local};
use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use apimachinery::json;
use apimachinery::quantity::Quantity;
use apimachinery::value::Value;
use client::{Patch, PatchParams};
use std::path::Path;
use std::time::Instant;

/// Conditions of a claim that go when it has grown.
const CONDITIONS: [&str; 4] =
    ["FileSystemResizePending", "Resizing", "ControllerResizeError", "NodeResizeError"];
const STORAGE: &str = "storage";
/// A volume that has grown is seen within this time, as by upstream's kubelet: nobody tells of it.
pub(super) const LOOK: i64 = 60 * 1_000_000_000;

/// What is to be done about a claim's size.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// It is as it should be, or another's turn.
    Nothing,
    /// It has grown to this.
    Grow { to: Quantity, said: bool },
}

fn step(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Step {
    let (status, none) = (&claim.status, Quantity::default());
    let has = status.capacity.get(STORAGE).unwrap_or(&none);
    let size = volume.spec.capacity.get(STORAGE).unwrap_or(&none);
    if has >= size {
        return Step::Nothing;
    }
    match (
        status.allocated_resource_statuses.get(STORAGE).map(String::as_str),
        status.allocated_resources.get(STORAGE),
    ) {
        (None, None) => Step::Grow { to: size.clone(), said: false },
        (Some("NodeResizePending" | "NodeResizeInProgress"), Some(to)) => {
            Step::Grow { to: to.clone(), said: true }
        }
        _ => Step::Nothing,
    }
}

/// The claim's status when it has grown to `to`, as a patch.
fn grown(claim: &PersistentVolumeClaim, to: &Quantity) -> Value {
    let known = |kind: &str| claim.status.conditions.iter().any(|condition| condition.type_ == kind);
    let gone = CONDITIONS.iter().filter(|kind| known(kind));
    let gone: Vec<Value> = gone.map(|kind| json!({"$patch": "delete", "type": kind})).collect();
    let mut status = json!({"capacity": {STORAGE: to}});
    let statuses = &claim.status.allocated_resource_statuses;
    if statuses.contains_key(STORAGE) {
        let others = statuses.len() > 1;
        status["allocatedResourceStatuses"] = if others { json!({STORAGE: null}) } else { Value::Null };
    }
    if !gone.is_empty() {
        status["conditions"] = gone.into();
    }
    status
}

async fn write(
    request: &Request<'_>,
    claim: &PersistentVolumeClaim,
    status: Value,
) -> Result<PersistentVolumeClaim, String> {
    let meta = &claim.metadata;
    let patch = Patch::Strategic(json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": status,
    }));
    let claims = request.client.namespaced::<PersistentVolumeClaim>(&meta.namespace);
    let written = claims.patch_status(&meta.name, &patch, &PatchParams::default()).await;
    written.map_err(|error| format!("patchPVCStatus failed to patch PVC {:?}: {error}", meta.name))
}

/// Has the file system of a `local` volume grow with it. Where it was not mounted before, failing to is a reason not to
/// start; where it was, an event tells it, and it is tried again at the next look.
pub(super) async fn follow(
    request: &Request<'_>,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    ready: &Ready,
) -> Result<(), String> {
    let Step::Grow { to, said } = step(claim, volume) else { return Ok(()) };
    let (pod, name) = (request.pod, &volume.metadata.name);
    let running = request.measures.has(&pod.metadata.uid, &request.volume.name);
    if ready.read_only {
        if !running {
            let message = format!(
                "MountVolume.NodeExpandVolume failed for volume {name:?} requested read-only file system"
            );
            request.events.warning(pod, "FileSystemResizeFailed", message.clone());
            request.events.0.warning(claim, "FileSystemResizeFailed", message);
        }
        return Ok(());
    }
    let began = Instant::now();
    let result = grow(request, claim, volume, ready, (&to, said)).await;
    let plugin = request.plugin.get().copied().unwrap_or_default();
    if running {
        request.measures.done(plugin, "volume_fs_resize", began, result.is_ok());
    }
    match result {
        Err(error) if running => {
            let message = format!("NodeExpandVolume.NodeExpandVolume failed for volume {name:?} : {error}");
            request.events.warning(pod, "VolumeResizeFailed", message);
            Ok(())
        }
        result => result,
    }
}

async fn grow(
    request: &Request<'_>,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    ready: &Ready,
    (to, said): (&Quantity, bool),
) -> Result<(), String> {
    let claim = match said {
        true => {
            let status = json!({"allocatedResourceStatuses": {STORAGE: "NodeResizeInProgress"}});
            &write(request, claim, status).await?
        }
        false => claim,
    };
    let device = volume.spec.local.as_ref().map(|source| source.path.clone()).unwrap_or_default();
    if volume.spec.volume_mode.as_deref() != Some("Block") {
        let at = ready.host_path.clone();
        let resized = tokio::task::spawn_blocking(move || local::resize(Path::new(&device), &at)).await;
        resized.map_err(|error| error.to_string())??;
    }
    let (pod, name) = (request.pod, &volume.metadata.name);
    let message =
        format!("MountVolume.NodeExpandVolume succeeded for volume {name:?} {}", pod.spec.node_name);
    request.events.normal(pod, "FileSystemResizeSuccessful", message.clone());
    request.events.0.normal(claim, "FileSystemResizeSuccessful", message);
    let written = write(request, claim, grown(claim, to)).await;
    written
        .map(drop)
        .map_err(|error| format!("mountVolume.NodeExpandVolume update pvc status failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[test]
    fn who_says_what_is_to_grow() {
        let check = |size: &str, status: Value, expected: Expect| {
            let volume: PersistentVolume =
                apimachinery::value::from_value(json!({"spec": {"capacity": {"storage": size}}})).unwrap();
            let claim: PersistentVolumeClaim =
                apimachinery::value::from_value(json!({"status": status})).unwrap();
            expected.assert_eq(&match step(&claim, &volume) {
                Step::Nothing => "nothing".into(),
                Step::Grow { to, .. } => format!("{to} {}", grown(&claim, &to)),
            });
        };
        check("1Gi", json!({"capacity": {"storage": "1Gi"}}), expect!["nothing"]);
        // Nobody said anything: the volume's size counts.
        check(
            "2Gi",
            json!({"capacity": {"storage": "1Gi"}, "conditions": [{"type": "FileSystemResizePending", "status": "True"}, {"type": "Other", "status": "True"}]}),
            expect![[
                r#"2Gi {"capacity":{"storage":"2Gi"},"conditions":[{"$patch":"delete","type":"FileSystemResizePending"}]}"#
            ]],
        );
        let allocated = |step: &str| json!({"capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "3Gi"}, "allocatedResourceStatuses": {"storage": step}});
        check(
            "4Gi",
            allocated("NodeResizePending"),
            expect![[r#"3Gi {"allocatedResourceStatuses":null,"capacity":{"storage":"3Gi"}}"#]],
        );
        check(
            "4Gi",
            allocated("NodeResizeInProgress"),
            expect![[r#"3Gi {"allocatedResourceStatuses":null,"capacity":{"storage":"3Gi"}}"#]],
        );
        check("4Gi", allocated("NodeResizeInfeasible"), expect!["nothing"]);
        check("4Gi", allocated("ControllerResizeInProgress"), expect!["nothing"]);
        // Resizers that are newer say when it is the node's turn.
        check(
            "4Gi",
            json!({"capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "3Gi"}}),
            expect!["nothing"],
        );
        check(
            "4Gi",
            json!({"capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "3Gi"}, "allocatedResourceStatuses": {"storage": "NodeResizePending", "other": "x"}}),
            expect![[r#"3Gi {"allocatedResourceStatuses":{"storage":null},"capacity":{"storage":"3Gi"}}"#]],
        );
    }
}
