//! The configuration of a container. Upstream: `generateContainerConfig`.

use super::env::{self, environment};
use super::field_ref::Facts;
use super::security::{self, ImageUser};
use super::{expansion, mounts, resources, service_env};
use crate::context::Context;
use crate::cpus::set::CpuSet;
use crate::labels;
use crate::plugins::device_plugin::ContainerAllocateResponse;
use crate::volumes::Mounted;
use api::core::v1::{ConfigMap, Container, Pod, Secret};
use cri::v1;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

/// A file of variables that is longer than all variables may be is cut.
const MAX_ENV_FILE: u64 = 4 << 20;

/// What one start of a container is made from.
pub(crate) struct Start<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub restart_count: u32,
    pub image_ref: String,
    pub volumes: &'a Mounted,
    /// The images of image volumes that are there, by the volumes' names.
    pub volume_images: &'a mounts::VolumeImages,
    pub pod_ips: &'a [String],
    /// The container whose process namespace an ephemeral one joins.
    pub target_id: Option<String>,
}

/// The pod's namespace as a source of ConfigMaps and Secrets, and its volumes.
struct OfPod<'a> {
    context: &'a Context,
    namespace: &'a str,
    volumes: &'a Mounted,
}

impl env::Source for OfPod<'_> {
    async fn config_map(&self, name: &str) -> Result<Option<Arc<ConfigMap>>, String> {
        self.context.objects.config_map(self.namespace, name).await
    }

    async fn secret(&self, name: &str) -> Result<Option<Arc<Secret>>, String> {
        self.context.objects.secret(self.namespace, name).await
    }

    async fn file(&self, volume: &str, path: &str) -> Result<(PathBuf, String), String> {
        let root = self.volumes.get(volume).map(|ready| ready.host_path.clone());
        let root = root.filter(|path| !path.as_os_str().is_empty());
        let root =
            root.ok_or_else(|| format!("cannot find the volume {volume:?} referenced by FileKeyRef"))?;
        let (whole, path) = (root.join(path), PathBuf::from(path));
        // A container wrote it: its links lead nowhere but within the volume.
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            linux::path::Root::open(&root)?.open_file(&path)?.take(MAX_ENV_FILE).read_to_string(&mut text)?;
            Ok::<_, std::io::Error>(text)
        });
        match read.await.map_err(|error| error.to_string())? {
            Ok(text) => Ok((whole, text)),
            Err(error) => {
                tracing::warn!(path = %whole.display(), %error, "Failed to parse env file");
                Err("couldn't parse env file".into())
            }
        }
    }
}

/// What the downward API can tell of a pod on this node.
pub(crate) fn facts(context: &Context, pod_ips: &[String]) -> Facts {
    Facts {
        node_name: context.config.node_name.clone(),
        host_ips: context.config.node_ips.clone(),
        pod_ips: pod_ips.to_vec(),
        node_allocatable: context.node.borrow().status.allocatable.clone(),
    }
}

/// Builds the configuration; an error is the message of `CreateContainerConfigError`.
pub(crate) async fn container_config(
    context: &Context,
    start: &Start<'_>,
) -> Result<v1::ContainerConfig, String> {
    let Start { pod, container, .. } = start;
    let config = &context.config;
    let facts = facts(context, start.pod_ips);
    let source = OfPod { context, namespace: &pod.metadata.namespace, volumes: start.volumes };
    let env = environment(pod, container, services(context, pod), &facts, &source).await?;
    let users = context.user_namespaces.of(config, pod)?;
    let mut mounts = mounts::mounts(context, start, &env).await?;
    for mount in mounts.iter_mut().filter(|mount| mount.image.is_none()) {
        // Their files belong to the pod's users as they belong to the node's.
        if let Some(users) = &users {
            mount.uid_mappings.clone_from(&users.uids);
            mount.gid_mappings.clone_from(&users.gids);
        }
    }
    let image_user = image_user(context, &start.image_ref).await?;
    security::verify_non_root(pod, container, &image_user)?;
    let mut security = security::container_context(
        pod,
        container,
        &image_user,
        config.seccomp_default,
        &config.seccomp_root(),
    )?;
    if let Some(options) = security.namespace_options.as_mut() {
        options.userns_options = users;
    }
    if let (Some(target), Some(options)) = (&start.target_id, security.namespace_options.as_mut()) {
        options.pid = v1::NamespaceMode::Target as i32;
        options.target_id = target.clone();
    }
    let mut resources = resources::container_resources(pod, container, context.swap());
    context.enforce(&mut resources);
    if let Some(cpus) = &context.cpus {
        resources.cpuset_cpus = cpus.of(&pod.metadata.uid, &container.name).to_string();
        // Who is alone on a processor need not be slowed down.
        if cpus.own(&pod.metadata.uid, &container.name).is_some() {
            resources.cpu_quota = -1;
        }
    }
    if let Some(memory) = &context.memory {
        let nodes = memory.nodes_of(&pod.metadata.uid, &container.name);
        resources.cpuset_mems = nodes.into_iter().collect::<CpuSet>().to_string();
    }
    let known: BTreeMap<String, String> = env.iter().cloned().collect();
    let expand = |words: &[String]| words.iter().map(|w| expansion::expand_map(w, &known)).collect();
    let log_dir = config
        .pod_log_dir(&pod.metadata.namespace, &pod.metadata.name, &pod.metadata.uid)
        .join(&container.name);
    std::fs::create_dir_all(&log_dir).map_err(|e| {
        format!("create container log directory for container {} failed: {e}", container.name)
    })?;
    let mut made = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: start.restart_count }),
        image: Some(v1::ImageSpec {
            image: start.image_ref.clone(),
            user_specified_image: container.image.clone(),
            ..Default::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone(),
        envs: env.into_iter().map(|(key, value)| v1::KeyValue { key, value: value.into_bytes() }).collect(),
        mounts,
        devices: mounts::devices(container, start.volumes)?,
        labels: labels::container_labels(pod, container),
        annotations: labels::container_annotations(pod, container, start.restart_count),
        log_path: format!("{}/{}.log", container.name, start.restart_count),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(security),
        }),
        ..Default::default()
    };
    for name in context.claims.cdi_devices(pod, container)? {
        made.cdi_devices.push(v1::CdiDevice { name });
    }
    for response in context.devices.of_container(pod, container).await? {
        with_devices(&mut made, response);
    }
    Ok(made)
}

/// Adds what a device plugin wants for its devices; what the pod says itself comes first.
fn with_devices(config: &mut v1::ContainerConfig, response: ContainerAllocateResponse) {
    let mut envs: Vec<_> = response.envs.into_iter().collect();
    envs.sort();
    for (key, value) in envs {
        if !config.envs.iter().any(|known| known.key == key) {
            config.envs.push(v1::KeyValue { key, value: value.into_bytes() });
        }
    }
    for mount in response.mounts {
        if !config.mounts.iter().any(|known| known.container_path == mount.container_path) {
            config.mounts.push(v1::Mount {
                container_path: mount.container_path,
                host_path: mount.host_path,
                readonly: mount.read_only,
                ..Default::default()
            });
        }
    }
    for device in response.devices {
        if !config.devices.iter().any(|known| known.container_path == device.container_path) {
            config.devices.push(v1::Device {
                container_path: device.container_path,
                host_path: device.host_path,
                permissions: device.permissions,
            });
        }
    }
    for (key, value) in response.annotations {
        config.annotations.entry(key).or_insert(value);
    }
    for device in response.cdi_devices {
        if !config.cdi_devices.iter().any(|known| known.name == device.name) {
            config.cdi_devices.push(v1::CdiDevice { name: device.name });
        }
    }
}

/// Variables of the Services in the pod's namespace, and of the API server's always.
fn services(context: &Context, pod: &Pod) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    if let Some(kubernetes) = context.services.named("default", "kubernetes") {
        out.extend(service_env::variables("kubernetes", &kubernetes));
    }
    if pod.spec.enable_service_links != Some(false) {
        for service in context.services.by_index("namespace", &pod.metadata.namespace) {
            // A Service of that name elsewhere does not hide the API server.
            if service.name() != "kubernetes" || service.namespace() == "default" {
                out.extend(service_env::variables(service.name(), &service));
            }
        }
    }
    out
}

async fn image_user(context: &Context, image_ref: &str) -> Result<ImageUser, String> {
    let image = context.images.status(image_ref).await.map_err(|e| e.to_string())?;
    let image = image.ok_or_else(|| format!("failed to get image status {image_ref:?}: image not found"))?;
    match image.uid {
        Some(uid) => Ok(ImageUser { uid: Some(uid.value), name: String::new() }),
        None if image.username.is_empty() => Ok(ImageUser { uid: Some(0), name: String::new() }),
        None => Ok(ImageUser { uid: None, name: image.username }),
    }
}
