//! `/metrics`: what the kubelet counts as it goes, and beside it what is looked up when somebody asks: its pods, its
//! managers, its certificate.

use super::Inner;
use super::answer::{Response, with_type};
use super::metrics::{names, shown};
use crate::labels;
use crate::pod_worker::Mailbox;
use crate::usage;
use crate::volumes::claimed::Filled;
use component::metrics::{CONTENT_TYPE, Encoder};
use http::StatusCode;
use rules::pod_conditions::is_terminal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

type Pick = fn(&Filled) -> u64;

/// Of each volume of a claim.
const VOLUME_STATS: [(&str, &str, Pick); 6] = [
    ("kubelet_volume_stats_available_bytes", "[ALPHA] Number of available bytes in the volume", |f| {
        f.available
    }),
    ("kubelet_volume_stats_capacity_bytes", "[ALPHA] Capacity in bytes of the volume", |f| f.capacity),
    ("kubelet_volume_stats_inodes", "[ALPHA] Maximum number of inodes in the volume", |f| f.inodes),
    ("kubelet_volume_stats_inodes_free", "[ALPHA] Number of free inodes in the volume", |f| f.inodes_free),
    ("kubelet_volume_stats_inodes_used", "[ALPHA] Number of used inodes in the volume", |f| {
        f.inodes - f.inodes_free
    }),
    ("kubelet_volume_stats_used_bytes", "[ALPHA] Number of used bytes in the volume", |f| f.used),
];

/// The kubelet's own.
pub(super) async fn answer(inner: &Arc<Inner>) -> Response {
    let mailboxes = inner.pods.list();
    let running = mailboxes.iter().filter(|m| m.status().phase == "Running").count() as f64;
    let mut containers: BTreeMap<&'static str, f64> = BTreeMap::new();
    for mailbox in &mailboxes {
        for status in &mailbox.status().container_statuses {
            let state = match (&status.state.running, &status.state.terminated) {
                (Some(_), _) => "running",
                (None, Some(_)) => "exited",
                _ => "created",
            };
            *containers.entry(state).or_default() += 1.0;
        }
    }
    let is_static = |mailbox: &Arc<Mailbox>| labels::is_static_pod(&mailbox.letter().pod);
    let is_active = |mailbox: &Arc<Mailbox>| !is_terminal(&mailbox.status().phase);
    let (fixed, usual): (Vec<_>, Vec<_>) = mailboxes.iter().partition(|mailbox| is_static(mailbox));
    let count = |of: &[&Arc<Mailbox>]| of.iter().filter(|mailbox| is_active(mailbox)).count() as f64;
    let desired = [("", usual.len() as f64), ("true", fixed.len() as f64)];
    let active = [("", count(&usual)), ("true", count(&fixed))];
    let (mut pending, mut in_progress) = (BTreeMap::<String, f64>::new(), 0.0);
    for mailbox in &mailboxes {
        let resizing = mailbox.resizing();
        if let Some(condition) = &resizing.pending {
            *pending.entry(condition.reason.to_lowercase()).or_default() += 1.0;
        }
        in_progress += f64::from(u8::from(resizing.in_progress.is_some()));
    }
    let ephemeral: usize =
        mailboxes.iter().map(|mailbox| mailbox.letter().pod.spec.ephemeral_containers.len()).sum();
    let mut working: BTreeMap<(&str, &str, &str), f64> = BTreeMap::new();
    for lifecycle in ["sync", "terminated", "terminating"] {
        for config in ["desired", "orphan"] {
            for fixed in ["", "true"] {
                working.insert((lifecycle, config, fixed), 0.0);
            }
        }
    }
    for mailbox in &mailboxes {
        let letter = mailbox.letter();
        let lifecycle = match (is_active(mailbox), letter.ends()) {
            (false, _) => "terminated",
            (true, true) => "terminating",
            (true, false) => "sync",
        };
        let config = if letter.gone { "orphan" } else { "desired" };
        let fixed = if is_static(mailbox) { "true" } else { "" };
        *working.entry((lifecycle, config, fixed)).or_default() += 1.0;
    }
    let asked = Asked::of(inner);
    let (asking, metrics) = (inner.clone(), inner.context.metrics.clone());
    // Both walk file systems.
    let looked = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let filled = asking.context.volumes.claims.filled();
        if !filled.is_empty() {
            metrics.volume_stats.with(&["statfs"]).observe_since(began);
        }
        (filled, logs(&asking))
    });
    let (filled, logs) = looked.await.unwrap_or_default();
    let version = if inner.context.cgroups.is_v2() { 2.0 } else { 1.0 };
    let node = inner.context.config.node_name.clone();
    let shown = shown(move |encoder| {
        let none: [&str; 0] = [];
        encoder
            .family(
                "kubelet_node_name",
                "[ALPHA] The node's name. The count is always 1.",
                "gauge",
                &names(&["node"]),
            )
            .value(&[&node], 1.0);
        encoder
            .family(
                "kubelet_running_pods",
                "[ALPHA] Number of pods that have a running pod sandbox",
                "gauge",
                &[],
            )
            .value(&none, running);
        let by_static = names(&["static"]);
        let help = "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.";
        let mut family = encoder.family("kubelet_desired_pods", help, "gauge", &by_static);
        desired.iter().for_each(|(from, count)| family.value(&[*from], *count));
        let help = "[ALPHA] The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.";
        let mut family = encoder.family("kubelet_active_pods", help, "gauge", &by_static);
        active.iter().for_each(|(from, count)| family.value(&[*from], *count));
        let help =
            "[ALPHA] The number of mirror pods the kubelet will try to create (one per admitted static pod)";
        encoder.family("kubelet_mirror_pods", help, "gauge", &[]).value(&none, desired[1].1);
        let help = "[ALPHA] Number of pending resizes for pods.";
        let mut family = encoder.family("kubelet_pod_pending_resizes", help, "gauge", &names(&["reason"]));
        pending.iter().for_each(|(reason, count)| family.value(&[reason], *count));
        let help = "[ALPHA] Number of in-progress resizes for pods.";
        encoder.family("kubelet_pod_in_progress_resizes", help, "gauge", &[]).value(&none, in_progress);
        let help = "[ALPHA] cgroup version on the hosts.";
        encoder.family("kubelet_cgroup_version", help, "gauge", &[]).value(&none, version);
        let help = "[ALPHA] Current number of ephemeral containers in pods managed by this kubelet.";
        encoder
            .family("kubelet_managed_ephemeral_containers", help, "gauge", &[])
            .value(&none, ephemeral as f64);
        let help = "[ALPHA] Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod is desired, orphaned, or runtime only (also orphaned), and whether the pod is static. An orphaned pod has been removed from local configuration or force deleted in the API and consumes resources that are not otherwise visible.";
        let mut family =
            encoder.family("kubelet_working_pods", help, "gauge", &names(&["lifecycle", "config", "static"]));
        for ((lifecycle, config, fixed), count) in &working {
            family.value(&[*lifecycle, *config, *fixed], *count);
        }
        managers(&asked, encoder);
        let of_claim = names(&["namespace", "persistentvolumeclaim"]);
        for (name, help, pick) in VOLUME_STATS {
            let mut family = encoder.family(name, help, "gauge", &of_claim);
            for (claimed, filled) in &filled {
                family.value(&[&claimed.namespace, &claimed.claim], pick(filled) as f64);
            }
        }
        let help = "[ALPHA] Bytes used by the container's logs on the filesystem.";
        let labels = names(&["uid", "namespace", "pod", "container"]);
        let mut family =
            encoder.family("kubelet_container_log_filesystem_used_bytes", help, "gauge", &labels);
        logs.iter().for_each(|(whose, bytes)| family.value(whose, *bytes as f64));
        let help = "[ALPHA] Number of containers currently running";
        let mut family =
            encoder.family("kubelet_running_containers", help, "gauge", &names(&["container_state"]));
        for (state, count) in &containers {
            family.value(&[state], *count);
        }
    });
    with_type(StatusCode::OK, CONTENT_TYPE, inner.context.metrics.registry.render() + &shown)
}

/// Bytes of each container's logs, by the pod's uid and namespace and the names of pod and container. Blocks.
fn logs(inner: &Inner) -> Vec<([String; 4], u64)> {
    let mut out = Vec::new();
    for mailbox in inner.pods.list() {
        let (pod, status) = (mailbox.letter().pod, mailbox.status());
        let meta = &pod.metadata;
        let dir = inner.context.config.pod_log_dir(&meta.namespace, &meta.name, &meta.uid);
        for container in status.init_container_statuses.iter().chain(&status.container_statuses) {
            if container.state.running.is_some() {
                let whose = [&meta.uid, &meta.namespace, &meta.name, &container.name];
                out.push((whose.map(Clone::clone), usage::disk_of(&dir.join(&container.name)).bytes));
            }
        }
    }
    out
}

/// What managers say when they are asked.
struct Asked {
    cpus: crate::cpus::Counts,
    claims: BTreeMap<String, usize>,
    plugins: Vec<(String, bool)>,
    /// Of pods, by signer and state.
    pod_certificates: BTreeMap<(String, &'static str), usize>,
    /// By plugin and state.
    volumes: BTreeMap<(&'static str, &'static str), usize>,
    /// Pulls that go on, and have been.
    pulls: (usize, usize),
    /// Seconds for which the server's certificate is good.
    certificate: f64,
    /// And that with which the node calls, where it is renewed.
    client_certificate: Option<f64>,
}

impl Asked {
    fn of(inner: &Inner) -> Self {
        let context = &inner.context;
        let now = apimachinery::time::Timestamp::now();
        let left = |until: apimachinery::time::Timestamp| (until.as_second() - now.as_second()) as f64;
        Asked {
            cpus: context.cpus.as_ref().map(|cpus| cpus.counts()).unwrap_or_default(),
            claims: context.claims.in_use(),
            plugins: context.plugins.list(),
            pod_certificates: context.objects.pod_certificates.counts(),
            volumes: context.volumes.measures.counts(),
            pulls: context.images.records(),
            certificate: inner.identity.not_after().map_or(f64::INFINITY, left),
            client_certificate: inner
                .client_certificate
                .as_ref()
                .map(|slot| slot.not_after().map_or(f64::INFINITY, left)),
        }
    }
}

fn managers(asked: &Asked, encoder: &mut Encoder) {
    let none: [&str; 0] = [];
    for (name, help, value) in [
        (
            "kubelet_cpu_manager_shared_pool_size_millicores",
            "[ALPHA] The size of the shared CPU pool for non-guaranteed QoS pods, in millicores.",
            asked.cpus.shared as f64 * 1000.0,
        ),
        (
            "kubelet_cpu_manager_exclusive_cpu_allocation_count",
            "[ALPHA] The total number of CPUs exclusively allocated to containers running on this node",
            asked.cpus.exclusive as f64,
        ),
        (
            "kubelet_imagemanager_ondisk_pullintents",
            "[ALPHA] Number of ImagePullIntents stored on disk.",
            asked.pulls.0 as f64,
        ),
        (
            "kubelet_imagemanager_ondisk_pulledrecords",
            "[ALPHA] Number of ImagePulledRecords stored on disk.",
            asked.pulls.1 as f64,
        ),
        (
            "kubelet_certificate_manager_server_ttl_seconds",
            "[ALPHA] Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate expiry (negative if already expired). If serving certificate is invalid or unused, the value will be +INF.",
            asked.certificate,
        ),
    ] {
        encoder.family(name, help, "gauge", &[]).value(&none, value);
    }
    if let Some(left) = asked.client_certificate {
        let name = "kubelet_certificate_manager_client_ttl_seconds";
        let help = "[ALPHA] Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry (negative if already expired). If client certificate is invalid or unused, the value will be +INF.";
        encoder.family(name, help, "gauge", &[]).value(&none, left);
    }
    let help = "[ALPHA] Number of CPUs allocated per NUMA node";
    let by_node = names(&["numa_node"]);
    let mut family = encoder.family("kubelet_cpu_manager_allocation_per_numa", help, "gauge", &by_node);
    asked.cpus.by_node.iter().for_each(|(node, count)| family.value(&[node.to_string()], *count as f64));
    // Statistics come by way of the CRI, whatever the runtime.
    let help = "[ALPHA] Metrics provider used by kubelet to collect container stats. Values can be 'cadvisor' and 'cri'";
    encoder.family("kubelet_metrics_provider", help, "gauge", &names(&["provider"])).value(&["cri"], 1.0);
    let help = "[ALPHA] The number of ResourceClaims that are currently in use on the node, by driver name (driver_name label value) and across all drivers (special value <any> for driver_name). Note that the sum of all by-driver counts is not the total number of in-use ResourceClaims because the same ResourceClaim might use devices from different drivers. Instead, use the count for the <any> driver_name.";
    let mut family = encoder.family("dra_resource_claims_in_use", help, "gauge", &names(&["driver_name"]));
    asked.claims.iter().for_each(|(driver, count)| family.value(&[driver], *count as f64));
    let help = "[ALPHA] Gauge vector reporting the number of pod certificate projected volume sources, faceted by signer_name and state.";
    let labels = names(&["signer_name", "state"]);
    let mut family = encoder.family("kubelet_podcertificate_states", help, "gauge", &labels);
    for ((signer, state), count) in &asked.pod_certificates {
        family.value(&[signer.as_str(), *state], *count as f64);
    }
    let help = "[ALPHA] Number of volumes in Volume Manager";
    let labels = names(&["plugin_name", "state"]);
    let mut family = encoder.family("volume_manager_total_volumes", help, "gauge", &labels);
    for ((plugin, state), count) in &asked.volumes {
        family.value(&[*plugin, *state], *count as f64);
    }
    let help = "[ALPHA] Number of plugins in Plugin Manager";
    let labels = names(&["socket_path", "state"]);
    let mut family = encoder.family("plugin_manager_total_plugins", help, "gauge", &labels);
    for (socket, registered) in &asked.plugins {
        family.value(&[socket.as_str(), "desired_state_of_world"], 1.0);
        if *registered {
            family.value(&[socket.as_str(), "actual_state_of_world"], 1.0);
        }
    }
}
