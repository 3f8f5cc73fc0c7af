//! Making, starting, stopping, removing containers.

use super::sandbox::{DYING, expect_started, failure};
use super::{Container, Inner, Sandbox, blocking, io_error, sandbox};
use crate::disk::{self, Durability};
use crate::images::Image;
use crate::record::{CONTAINER_FILE, ContainerRecord, Phase, UserRecord, new_id, now, save};
use crate::shims::Shim;
use crate::spec::{self, Inputs, resources, signals};
use cri::v1::*;
use cri::{Error, Result};
use shim::protocol::{Exit, Failure, FailureKind, Request};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn create(
    inner: Arc<Inner>,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse> {
    let config = request.config.ok_or_else(|| Error::invalid_argument("container config must not be nil"))?;
    let metadata = config.metadata.clone();
    let metadata =
        metadata.ok_or_else(|| Error::invalid_argument("container config must include metadata"))?;
    let sandbox = inner.sandbox(&request.pod_sandbox_id)?;
    if !sandbox.is_ready() {
        return Err(Error::failed_precondition(format!("sandbox container {:?} is not running", sandbox.id)));
    }
    let pod = sandbox.record().config.metadata.clone().unwrap_or_default();
    let id = new_id();
    let name = format!("{}_{}_{}_{}_{}", metadata.name, pod.name, pod.namespace, pod.uid, metadata.attempt);
    inner.reserve("container", &name, &id)?;
    let _turn = inner.turns.lock(&id).await;
    match begin(&inner, &sandbox, &id, config).await {
        Ok(()) => {
            inner.tell(&id, &sandbox.id, ContainerEventType::ContainerCreatedEvent, now());
            Ok(CreateContainerResponse { container_id: id })
        }
        Err(error) => {
            let made = inner.container(&id);
            if let Ok(container) = made {
                if let Err(error) = destroy(&inner, &container).await {
                    tracing::warn!(container = %id, %error, "a container that could not be made left something behind");
                }
                inner.containers.lock().remove(&id);
            } else {
                let (images, id) = (inner.images.clone(), id.clone());
                blocking(move || {
                    images.unpin(&id);
                    Ok(())
                })
                .await?;
            }
            inner.release(&id);
            Err(error)
        }
    }
}

/// Finds the images that are to be mounted, holds their layers, and notes what was found, as the status will show it.
fn volumes(inner: &Inner, shim: &Shim, id: &str, config: &mut ContainerConfig) -> Result<Vec<Image>> {
    let mut found = Vec::new();
    for mount in &mut config.mounts {
        let Some(wanted) = spec::volume_image(mount).map(str::to_owned) else { continue };
        if shim.version() < 2 {
            return Err(Error::failed_precondition(
                "the pod was started by an earlier release, whose shim mounts no images: it must be made anew",
            ));
        }
        let image = inner.images.pin_too(&wanted, id);
        let image = image
            .ok_or_else(|| Error::not_found(format!("failed to resolve image {wanted:?}: not found")))?;
        mount.image.get_or_insert_default().image_ref = image.id.to_string();
        found.push(image);
    }
    Ok(found)
}

async fn begin(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    id: &str,
    mut config: ContainerConfig,
) -> Result<()> {
    let shim = sandbox.shim()?;
    spec::cdi::inject(&mut config, &inner.config.cdi_dirs)?;
    let wanted = config.image.clone().unwrap_or_default().image;
    let image = inner.images.pin(&wanted, id);
    let image =
        image.ok_or_else(|| Error::not_found(format!("failed to resolve image {wanted:?}: not found")))?;
    let volumes = volumes(inner, &shim, id, &mut config)?;
    let chain = [&image].into_iter().chain(&volumes).flat_map(|image| image.chain.iter().cloned());
    let of_sandbox = sandbox.record();
    let cgroup = format!("{}/{id}", of_sandbox.cgroup_parent);
    let log_path = match (of_sandbox.config.log_directory.as_str(), config.log_path.as_str()) {
        ("", _) | (_, "") => String::new(),
        (directory, path) => Path::new(directory).join(path).to_string_lossy().into_owned(),
    };
    let of_image = || image.config.stop_signal.as_deref().filter(|name| !name.is_empty());
    let stop_signal = match signals::from_cri(config.stop_signal()) {
        Some(given) => given,
        None => match of_image() {
            Some(name) => signals::parse(name)
                .ok_or_else(|| Error::invalid_argument(format!("failed to parse stop signal {name:?}")))?,
            None => libc::SIGTERM,
        },
    };
    let linux = config.linux.clone().and_then(|linux| linux.resources).unwrap_or_default();
    let record = ContainerRecord {
        id: id.to_owned(),
        sandbox: sandbox.id.clone(),
        phase: Phase::Creating,
        config,
        image: image.id.clone(),
        image_ref: image.digests.first().cloned().unwrap_or_else(|| image.id.to_string()),
        chain: chain.collect(),
        created_at: now(),
        cgroup,
        log_path,
        stop_signal,
        user: UserRecord::default(),
        resources: linux,
        start_error: String::new(),
        process: Default::default(),
    };
    let dir = inner.containers_dir().join(id);
    let container = Arc::new(Container::new(dir.clone(), record.clone()));
    let (work, object) = (inner.clone(), container.clone());
    let (pod_config, sandbox_dir) = (of_sandbox.config.clone(), sandbox.dir.clone());
    let (run_dir, id) = (of_sandbox.run_dir.clone(), id.to_owned());
    let built = blocking(move || {
        disk::make_dir(&dir)
            .and_then(|()| save(&dir, CONTAINER_FILE, &record))
            .map_err(io_error("writing the container's record"))?;
        work.containers.lock().insert(id.clone(), object);
        let group = work.group(&record.cgroup)?;
        let lower = work.images.lower_dirs(&image);
        let hostname = sandbox::hostname(&pod_config);
        let built = spec::build(&Inputs {
            id: &id,
            config: &record.config,
            sandbox: &pod_config,
            image: &image.config,
            lower: &lower,
            dir: &dir,
            sandbox_dir: &sandbox_dir,
            shm: &run_dir.join("shm"),
            cgroup: &group,
            hostname: &hostname,
            seccomp_dir: &work.config.seccomp_dir,
            volumes: &volumes.iter().map(|image| work.images.lower_dirs(image)).collect::<Vec<_>>(),
        })?;
        make_layer(&dir, &lower, &pod_config)?;
        group.create().map_err(io_error(format!("making cgroup {}", group.path())))?;
        group.allow_devices(&built.devices).map_err(io_error("restricting devices"))?;
        group.apply(&built.resources).map_err(io_error("setting limits"))?;
        Ok(built)
    })
    .await?;
    let process = built.spec.process.clone();
    let start_error = match shim.ask(Request::Create(Box::new(built.spec))).await {
        Ok(_) => String::new(),
        // The pod is going down, or an image volume has no such subpath: there is nothing to keep.
        Err(refused) if matches!(refused.kind, FailureKind::InvalidState | FailureKind::NotFound) => {
            return Err(failure(refused));
        }
        Err(refused) => refused.message,
    };
    let user =
        UserRecord { uid: process.user.uid, gid: process.user.gid, groups: process.user.groups.clone() };
    container.update(|record| {
        record.phase = Phase::Ready;
        record.user = user;
        record.process = process;
        record.start_error = start_error;
    })?;
    Ok(())
}

/// The writable layer. Its root takes over mode and owner of the image's root.
fn make_layer(dir: &Path, lower: &[std::path::PathBuf], pod: &PodSandboxConfig) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let upper = dir.join("upper");
    let attempt = || {
        std::fs::create_dir(&upper)?;
        std::fs::create_dir(dir.join("work"))?;
        let mode = match lower.first() {
            Some(top) => std::fs::metadata(top)?.mode() & 0o7777,
            None => 0o755,
        };
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(mode))?;
        if let Some(top) = lower.first() {
            let meta = std::fs::metadata(top)?;
            std::os::unix::fs::chown(&upper, Some(meta.uid()), Some(meta.gid()))?;
        }
        // The shim walks to the layer as the pod's root, who is nobody in a user namespace.
        if spec::user_namespace(pod).is_some() {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711))?;
        }
        Ok(())
    };
    attempt().map_err(io_error("making the writable layer"))
}

pub(super) async fn start(inner: Arc<Inner>, id: String) -> Result<()> {
    let container = inner.container(&id)?;
    let _turn = inner.turns.lock(&container.id).await;
    let live = container.live();
    if live.started_at != 0 || live.exit.is_some() {
        let state = if live.exit.is_some() { "CONTAINER_EXITED" } else { "CONTAINER_RUNNING" };
        return Err(Error::unknown(format!("container {:?} is in {state} state", container.id)));
    }
    let record = container.record();
    let shim = inner.sandbox(&container.sandbox)?.shim()?;
    let answer = match record.start_error.is_empty() {
        true => shim.ask(Request::Start { container: container.id.clone() }).await,
        false => Err(Failure { kind: FailureKind::ExecFailed, message: record.start_error.clone() }),
    };
    let failed = match answer {
        Ok(reply) => {
            let (pid, at) = expect_started(reply)?;
            inner.started(&container, pid, at);
            return Ok(());
        }
        Err(failed) => failed,
    };
    if failed.kind == FailureKind::ExecFailed {
        let message = failed.message.clone();
        let exit = Exit { code: 128, finished_at: now(), message, ..Default::default() };
        let path = container.dir.join(shim::protocol::EXIT_FILE);
        if !path.exists() {
            disk::write_json(&path, &exit, Durability::Crash).map_err(io_error("recording the exit"))?;
        }
        // The shim says the same, perhaps before us.
        inner.exited(&container, exit);
    }
    let error = failure(failed);
    let message = format!("failed to start container {:?}: {}", container.id, error.message);
    Err(Error::new(error.code, message))
}

/// Asks the process to end, and ends it when its time is up. Not in the turn of the container: a later call may be in
/// more of a hurry.
pub(super) async fn stop(inner: Arc<Inner>, id: String, timeout: i64) -> Result<()> {
    let container = match inner.container(&id) {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    if !container.is_running() {
        return Ok(());
    }
    let sandbox = inner.sandbox(&container.sandbox)?;
    // Without a shim it is being ended already.
    let Ok(shim) = sandbox.shim() else { return ended(&container).await };
    let signal = |signal, all| Request::Signal { container: container.id.clone(), signal, all };
    if timeout > 0 {
        let record = container.record();
        if let Err(failed) = shim.ask(signal(record.stop_signal, false)).await {
            tracing::debug!(container = %container.id, error = %failed.message, "could not signal");
        }
        let patience = Duration::from_secs(u64::try_from(timeout).unwrap_or(0));
        if tokio::time::timeout(patience, container.wait()).await.is_ok() {
            return Ok(());
        }
    }
    if let Err(failed) = shim.ask(signal(libc::SIGKILL, true)).await
        && container.is_running()
    {
        return Err(Error::unknown(format!(
            "failed to kill container {:?}: {}",
            container.id, failed.message
        )));
    }
    ended(&container).await
}

async fn ended(container: &Container) -> Result<()> {
    let died = tokio::time::timeout(DYING, container.wait()).await;
    died.map_err(|_| Error::deadline_exceeded(format!("container {:?} does not die", container.id)))
}

pub(super) async fn remove(inner: Arc<Inner>, id: String) -> Result<()> {
    let container = match inner.container(&id) {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    let _turn = inner.turns.lock(&container.id).await;
    if inner.container(&container.id).is_err() {
        return Ok(());
    }
    if container.is_running() {
        stop(inner.clone(), container.id.clone(), 0).await?;
    }
    destroy(&inner, &container).await?;
    inner.containers.lock().remove(&container.id);
    inner.release(&container.id);
    inner.tell(&container.id, &container.sandbox, ContainerEventType::ContainerDeletedEvent, now());
    Ok(())
}

/// Takes away all of it, the record last.
pub(super) async fn destroy(inner: &Arc<Inner>, container: &Arc<Container>) -> Result<()> {
    if container.phase() != Phase::Creating {
        container.end(Phase::Removing)?;
    }
    let shim = inner.sandbox(&container.sandbox).and_then(|sandbox| sandbox.shim());
    if let Ok(shim) = shim {
        match shim.ask(Request::Delete { container: container.id.clone() }).await {
            Err(failed) if failed.kind != FailureKind::NotFound => {
                tracing::debug!(container = %container.id, error = %failed.message, "the shim could not forget");
            }
            _ => {}
        }
    }
    let group = inner.group(&container.record().cgroup)?;
    let (inner, container) = (inner.clone(), container.clone());
    blocking(move || {
        if group.exists() {
            if !group.kill(DYING).map_err(io_error("ending the container's processes"))? {
                return Err(Error::unknown(format!("processes of {} do not die", group.path())));
            }
            group.remove().map_err(io_error(format!("removing cgroup {}", group.path())))?;
        }
        disk::remove_all(&container.dir).map_err(io_error("removing the container's directory"))?;
        inner.images.unpin(&container.id);
        Ok(())
    })
    .await
}

pub(super) async fn update(inner: Arc<Inner>, request: UpdateContainerResourcesRequest) -> Result<()> {
    let container = inner.container(&request.container_id)?;
    let _turn = inner.turns.lock(&container.id).await;
    if container.live().exit.is_some() {
        return Err(Error::unknown(format!("container {:?} is in CONTAINER_EXITED state", container.id)));
    }
    let Some(linux) = request.linux else { return Ok(()) };
    let group = inner.group(&container.record().cgroup)?;
    let limits = resources::limits(&linux);
    blocking(move || group.apply(&limits).map_err(io_error("setting limits"))).await?;
    container
        .update(|record| record.resources = resources::merge(std::mem::take(&mut record.resources), linux))?;
    Ok(())
}

pub(super) async fn reopen_log(inner: &Inner, id: &str) -> Result<()> {
    let container = inner.container(id)?;
    if !container.is_running() {
        return Err(Error::unknown("container is not running"));
    }
    let shim = inner.sandbox(&container.sandbox)?.shim()?;
    shim.ask(Request::ReopenLog { container: container.id.clone() }).await.map_err(failure)?;
    Ok(())
}
