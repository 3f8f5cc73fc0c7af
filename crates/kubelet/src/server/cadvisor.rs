//! `/metrics/cadvisor`: what every container and pod does and may do, under cAdvisor's names, read from the cgroups when
//! it is asked for. A pod's own rows have no container. Upstream: `cadvisor/metrics/prometheus.go`.

use super::Inner;
use super::answer::{Response, text, with_type};
use crate::labels::{CONTAINER_NAME, POD_UID};
use component::metrics::{CONTENT_TYPE, Encoder, Registry};
use cri::v1;
use http::StatusCode;
use linux::cgroup::{Cgroups, Disk, MEASURES, MetricKind, Reading};
use linux::interface::{self, Interface, Traffic};
use std::collections::BTreeMap;
use std::path::Path;

/// The labels of every row, in this order.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// One cgroup, whose it is and what it says.
struct Row {
    labels: [String; 6],
    reading: Reading,
    /// Of pods with a network of their own.
    network: Vec<Interface>,
}

/// All rows, pods first.
async fn rows(inner: &Inner) -> Result<Vec<Row>, String> {
    let runtime = &inner.context.runtime;
    let running = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 };
    let filter = v1::ContainerFilter { state: Some(running), ..Default::default() };
    let listed = runtime.list_containers(v1::ListContainersRequest { filter: Some(filter) }).await;
    let listed = listed.map_err(|error| error.to_string())?.containers;
    // Runtimes may count neither files nor packets: then there are no rows of them.
    let layers = runtime.list_container_stats(v1::ListContainerStatsRequest::default()).await;
    let layers: BTreeMap<String, v1::FilesystemUsage> = layers
        .map(|answer| answer.stats)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|one| Some((one.attributes?.id, one.writable_layer?)))
        .collect();
    let sandboxes = runtime.list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest::default()).await;
    let mut networks: BTreeMap<String, v1::NetworkUsage> = sandboxes
        .map(|answer| answer.stats)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|one| Some((one.attributes?.labels.get(POD_UID)?.clone(), one.linux?.network?)))
        .collect();
    let mut pods = Vec::new();
    for mailbox in inner.pods.list() {
        let pod = mailbox.letter().pod;
        let parent = inner.context.cgroups.pod_parent(&pod);
        let network = networks.remove(&pod.metadata.uid).map_or_else(Vec::new, |network| {
            network.default_interface.into_iter().chain(network.interfaces).map(interface).collect()
        });
        let started_at = mailbox.status().start_time.map(|at| at.unix() as f64);
        pods.push((pod, parent, network, started_at));
    }
    let walk = move || {
        let cgroups = Cgroups::detect().map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        let mut add = |labels: [&str; 6], started_at, disk, network| {
            let Ok(group) = cgroups.group(labels[1]) else { return };
            if group.exists() {
                let labels = labels.map(str::to_owned);
                out.push(Row { labels, reading: Reading::of(&group, started_at, disk), network });
            }
        };
        for (pod, parent, network, started_at) in pods {
            let meta = &pod.metadata;
            add(["", &parent, "", "", &meta.namespace, &meta.name], started_at, None, network);
            for container in &listed {
                if container.labels.get(POD_UID) != Some(&meta.uid) {
                    continue;
                }
                let name = container.labels.get(CONTAINER_NAME).map(String::as_str).unwrap_or_default();
                let image = container.image.as_ref();
                let image = image.map_or("", |image| match image.user_specified_image.as_str() {
                    "" => image.image.as_str(),
                    given => given,
                });
                let disk = layers.get(&container.id).and_then(|layer| {
                    let used = layer.used_bytes.map_or(0, |value| value.value);
                    Disk::at(Path::new(&layer.fs_id.as_ref()?.mountpoint), used)
                });
                let id = format!("{parent}/{}", container.id);
                let labels = [name, &id, image, &container.id, &meta.namespace, &meta.name];
                add(labels, Some(container.created_at as f64 / 1e9), disk, Vec::new());
            }
        }
        Ok(out)
    };
    tokio::task::spawn_blocking(walk).await.map_err(|error| error.to_string())?
}

fn names(more: &[&str]) -> Vec<String> {
    LABELS.iter().chain(more).map(|name| (*name).to_owned()).collect()
}

/// A row's labels, and more.
fn with(row: &Row, more: &[&str]) -> Vec<String> {
    row.labels.iter().cloned().chain(more.iter().map(|value| (*value).to_owned())).collect()
}

/// As CRI tells of an interface: it has neither packets nor those that were dropped.
fn interface(told: v1::NetworkInterfaceUsage) -> Interface {
    let traffic = |bytes: Option<v1::UInt64Value>, errors: Option<v1::UInt64Value>| Traffic {
        bytes: bytes.map(|count| count.value),
        errors: errors.map(|count| count.value),
        ..Default::default()
    };
    Interface {
        received: traffic(told.rx_bytes, told.rx_errors),
        sent: traffic(told.tx_bytes, told.tx_errors),
        name: told.name,
    }
}

fn network(encoder: &mut Encoder, rows: &[Row]) {
    let labels = names(&["interface"]);
    for measure in interface::MEASURES {
        let all = rows.iter().flat_map(|row| row.network.iter().map(move |interface| (row, interface)));
        let counted = all.filter_map(|(row, one)| Some((row, &one.name, (measure.read)(one)?)));
        let counted: Vec<_> = counted.collect();
        // What no runtime counts is no metric of this node.
        if counted.is_empty() {
            continue;
        }
        let mut family = encoder.family(measure.name, measure.help, "counter", &labels);
        for (row, name, count) in counted {
            family.value(&with(row, &[name]), count as f64);
        }
    }
}

pub(super) async fn answer(inner: &Inner) -> Response {
    let rows = match rows(inner).await {
        Ok(rows) => rows,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    let machine = inner.context.machine.clone();
    let registry = Registry::new();
    registry.collector(move |encoder| {
        for measure in MEASURES {
            let kind = match measure.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            let mut family = encoder.family(measure.name, measure.help, kind, &names(measure.labels));
            for row in &rows {
                (measure.read)(&row.reading, &mut |more, value| family.value(&with(row, more), value));
            }
        }
        network(encoder, &rows);
        let labels = ["boot_id", "machine_id", "system_uuid"].map(str::to_owned);
        let of_machine = [&machine.boot_id, &machine.machine_id, &machine.system_uuid];
        for (name, help, value) in [
            ("machine_cpu_cores", "Number of logical CPU cores.", machine.cpus),
            ("machine_memory_bytes", "Amount of memory installed on the machine.", machine.memory),
            ("machine_swap_bytes", "Amount of swap memory available on the machine.", machine.swap),
        ] {
            encoder.family(name, help, "gauge", &labels).value(&of_machine, value as f64);
        }
        let help = "1 if there was an error while getting container metrics, 0 otherwise";
        let none: [&str; 0] = [];
        encoder.family("container_scrape_error", help, "gauge", &[]).value(&none, 0.0);
    });
    with_type(StatusCode::OK, CONTENT_TYPE, registry.render())
}
