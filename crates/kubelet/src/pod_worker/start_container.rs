//! Starting a container: image, configuration, create, start, links to its log, `postStart`. Upstream: `startContainer`.

use super::act::Shared;
use super::plan::{KillReason, Place, Role};
use super::stop;
use crate::container_config::container::{Start, container_config};
use crate::container_config::mounts::VolumeImages;
use crate::context::Context;
use crate::hooks;
use crate::images::StartError;
use crate::runtime_pod::{RuntimeContainer, RuntimePod};
use crate::volumes::Mounted;
use api::core::v1::{Container, Pod, Secret};
use cri::v1;
use std::sync::Arc;
use std::time::Instant;

/// What starting any container of the pod needs.
pub(super) struct Ground<'a> {
    pub context: &'a Context,
    pub pod: &'a Pod,
    pub runtime: &'a RuntimePod,
    pub sandbox_id: &'a str,
    pub sandbox_config: &'a v1::PodSandboxConfig,
    pub volumes: &'a Mounted,
    pub pod_ips: &'a [String],
    pub secrets: &'a [Arc<Secret>],
}

/// Starts it.
pub(super) async fn start(
    ground: &Ground<'_>,
    place: Place,
    container: &Container,
    shared: &Shared,
) -> Result<(), StartError> {
    let Ground { context, pod, .. } = ground;
    let waiting = Instant::now();
    let warning = |message: String| context.events.container_warning(pod, &container.name, "Failed", message);
    let image_ref =
        context.images.ensure(pod, container, ground.secrets, ground.sandbox_config).await.inspect_err(
            |error| {
                warning(format!("Error: {}", error.reason));
            },
        )?;
    let volume_images = volume_images(ground, container).await?;
    shared.pulled(waiting);
    let configured = configure(ground, place, container, image_ref, &volume_images).await;
    let config = configured.map_err(|message| {
        warning(format!("Error: {message}"));
        StartError::new("CreateContainerConfigError", message)
    })?;
    // What ran before it is done with what it had.
    if let Some(cpus) = &context.cpus {
        cpus.begins(pod, &container.name);
    }
    if let Some(memory) = &context.memory {
        memory.begins(pod, &container.name);
    }
    let log_path = config.log_path.clone();
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: ground.sandbox_id.to_owned(),
        config: Some(config),
        sandbox_config: Some(ground.sandbox_config.clone()),
    };
    let created = context.runtime.create_container(request).await.map_err(|error| {
        warning(format!("Error: {}", error.message));
        StartError::new("CreateContainerError", error.message)
    })?;
    let id = created.container_id;
    context.events.container_normal(pod, &container.name, "Created", "Container created");
    context.runtime.start_container(v1::StartContainerRequest { container_id: id.clone() }).await.map_err(
        |error| {
            warning(format!("Error: {}", error.message));
            StartError::new("RunContainerError", error.message)
        },
    )?;
    context.events.container_normal(pod, &container.name, "Started", "Container started");
    link_log(ground, &id, container, &log_path);

    let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
    let pod_ip = ground.pod_ips.first().map(String::as_str).unwrap_or_default();
    if let Err(message) = hooks::run(context, pod, container, &id, pod_ip, hook).await {
        // The message may hold what the hook printed; events are for everybody.
        context.events.container_warning(pod, &container.name, "FailedPostStartHook", "PostStartHook failed");
        let started = RuntimeContainer { id, name: container.name.clone(), ..Default::default() };
        let kill =
            stop::Kill { message: "FailedPostStartHook".into(), reason: KillReason::Other, grace: None };
        stop::kill_container(context, Some(pod), &started, pod_ip, &kill).await;
        return Err(StartError::new("PostStartHookError", message));
    }
    Ok(())
}

/// Makes sure of the images that the container mounts.
async fn volume_images(ground: &Ground<'_>, container: &Container) -> Result<VolumeImages, StartError> {
    let mut out = VolumeImages::new();
    for volume in &ground.pod.spec.volumes {
        let mounted = container.volume_mounts.iter().any(|mount| mount.name == volume.name);
        let Some(source) = volume.image.as_ref().filter(|_| mounted) else { continue };
        let wanted = Container {
            name: container.name.clone(),
            image: source.reference.clone(),
            image_pull_policy: source.pull_policy.clone(),
            ..Default::default()
        };
        let Ground { context, pod, secrets, sandbox_config, .. } = ground;
        context.metrics.image_volumes.inc();
        let image =
            context.images.ensure(pod, &wanted, secrets, sandbox_config).await.inspect_err(|error| {
                context.metrics.image_volumes_errors.inc();
                let message = format!("Error: {}", error.reason);
                context.events.container_warning(pod, &container.name, "Failed", message);
            })?;
        let spec =
            v1::ImageSpec { image, user_specified_image: source.reference.clone(), ..Default::default() };
        context.metrics.image_volumes_mounted.inc();
        out.insert(volume.name.clone(), spec);
    }
    Ok(out)
}

async fn configure(
    ground: &Ground<'_>,
    place: Place,
    container: &Container,
    image_ref: String,
    volume_images: &VolumeImages,
) -> Result<v1::ContainerConfig, String> {
    let restart_count = match ground.runtime.container(&container.name) {
        Some(before) => u32::try_from(before.restart_count + 1).unwrap_or(0),
        None => restart_count_by_logs(ground, container),
    };
    let target_id = match place.role {
        Role::Ephemeral => target(ground, place)?,
        _ => None,
    };
    let start = Start {
        pod: ground.pod,
        container,
        restart_count,
        image_ref,
        volumes: ground.volumes,
        volume_images,
        pod_ips: ground.pod_ips,
        target_id,
    };
    container_config(ground.context, &start).await
}

fn target(ground: &Ground<'_>, place: Place) -> Result<Option<String>, String> {
    let name =
        ground.pod.spec.ephemeral_containers.get(place.index).map(|e| e.target_container_name.as_str());
    let Some(name) = name.filter(|n| !n.is_empty()) else { return Ok(None) };
    match ground.runtime.container(name) {
        Some(found) => Ok(Some(found.id.clone())),
        None => Err(format!("unable to find target container {name}")),
    }
}

/// A runtime that forgot its containers (a reboot) must not write over their logs.
fn restart_count_by_logs(ground: &Ground<'_>, container: &Container) -> u32 {
    let meta = &ground.pod.metadata;
    let dir = ground.context.config.pod_log_dir(&meta.namespace, &meta.name, &meta.uid).join(&container.name);
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let numbers = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.split_once(".log")?.0.parse::<u32>().ok()
    });
    numbers.max().map_or(0, |n| n + 1)
}

/// `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`, which log collectors read.
fn link_log(ground: &Ground<'_>, id: &str, container: &Container, log_path: &str) {
    let (config, meta) = (&ground.context.config, &ground.pod.metadata);
    let log = config.pod_log_dir(&meta.namespace, &meta.name, &meta.uid).join(log_path);
    if !log.exists() {
        return;
    }
    let link = config
        .container_logs_dir
        .join(format!("{}_{}_{}-{id}.log", meta.name, meta.namespace, container.name));
    let linked = std::fs::create_dir_all(&config.container_logs_dir)
        .and_then(|()| std::os::unix::fs::symlink(log, &link));
    if let Err(error) = linked {
        tracing::debug!(link = %link.display(), %error, "the link to a log was not made");
    }
}
