//! `emptyDir`: a directory of the pod, on disk, in memory or in huge pages.

use super::{Plugin, Ready, Request, mount_table, ownership};
use crate::container_config::resources::page_size;
use api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use apimachinery::quantity::Quantity;
use futures::future::BoxFuture;
use rules::pod_requests::ResourceList;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

pub(super) struct EmptyDir;

const MODE: u32 = 0o777;
const HUGE_PAGES: &str = "HugePages";

impl Plugin for EmptyDir {
    fn supports(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    fn name(&self, _: &Volume) -> Option<&'static str> {
        Some("kubernetes.io/empty-dir")
    }

    fn set_up<'a>(&'a self, request: &'a Request<'a>) -> BoxFuture<'a, Result<Ready, String>> {
        Box::pin(async move {
            let path = request.path("kubernetes.io/empty-dir");
            let source = request.volume.empty_dir.clone().unwrap_or_default();
            let memory = Memory::of(&source, request.pod, &request.facts.node_allocatable)?;
            let group = request.fs_group();
            let made = path.clone();
            tokio::task::spawn_blocking(move || make(&made, memory, group))
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| e.to_string())?;
            Ok(Ready { host_path: path, read_only: false, mode: MODE, refresh_at: None })
        })
    }
}

/// What is mounted of one that is in memory.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    kind: &'static str,
    options: String,
}

impl Memory {
    /// Nothing for one on disk.
    fn of(
        source: &EmptyDirVolumeSource,
        pod: &Pod,
        allocatable: &ResourceList,
    ) -> Result<Option<Memory>, String> {
        let (kind, options) = match source.medium.as_str() {
            "" => return Ok(None),
            "Memory" => {
                let size = size(source.size_limit.as_ref(), pod, allocatable);
                ("tmpfs", size.map_or_else(String::new, |size| format!("size={size}")))
            }
            medium if medium == HUGE_PAGES || medium.starts_with(&format!("{HUGE_PAGES}-")) => {
                // In bytes, which the kernel reads as well as upstream's `2Mi`.
                ("hugetlbfs", format!("pagesize={}", pages(medium, pod)?))
            }
            other => return Err(format!("unknown storage medium {other:?}")),
        };
        Ok(Some(Memory { kind, options }))
    }
}

/// The least of what the node has for pods, what the pod may use, and what the volume is to hold. Upstream:
/// `calculateEmptyDirMemorySize`.
fn size(limit: Option<&Quantity>, pod: &Pod, allocatable: &ResourceList) -> Option<i64> {
    let node = allocatable.get("memory").map(Quantity::value);
    let of_pod = crate::cgroups::pod_resources(pod).memory;
    let all = [node, of_pod, limit.map(Quantity::value)];
    all.into_iter().flatten().filter(|bytes| *bytes > 0).min()
}

/// Bytes of the huge pages of a volume: those that its medium names, or the only ones that the pod asks for. Upstream:
/// `getPageSizeMountOption`.
fn pages(medium: &str, pod: &Pod) -> Result<i64, String> {
    let named = match medium.strip_prefix(HUGE_PAGES).unwrap_or_default().strip_prefix('-') {
        Some(text) => {
            let size = text.parse::<Quantity>().map_err(|error| error.to_string())?;
            Some(size.value())
        }
        None => None,
    };
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let lists = pod.spec.resources.iter().chain(containers.map(|c| &c.resources));
    let mut asked = lists.flat_map(|resources| resources.requests.keys()).filter_map(|name| page_size(name));
    let none = || {
        format!(
            "medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
        )
    };
    match named {
        Some(size) => asked.any(|one| one == size).then_some(size).ok_or_else(none),
        None => {
            let first = asked.next().ok_or_else(none)?;
            if asked.all(|one| one == first) {
                return Ok(first);
            }
            Err(format!("medium: {medium} can't be used if container requests multiple huge page sizes"))
        }
    }
}

/// Ready before is ready now: a restarted kubelet must not touch what containers have written.
fn make(path: &Path, memory: Option<Memory>, group: Option<i64>) -> io::Result<()> {
    let ready = marker(path);
    if ready.exists() && (memory.is_none() || mount_table::is_mount_point(path)?) {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    if let Some(Memory { kind, options }) = memory
        && !mount_table::is_mount_point(path)?
    {
        mount_table::mount_memory(path, kind, &options)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    if let Some(group) = group {
        ownership::set_group(path, group, false)?;
    }
    if let Some(dir) = ready.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(ready, b"")
}

/// `pods/<uid>/plugins/kubernetes.io~empty-dir/<name>/ready`, as upstream.
fn marker(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let pod = path.ancestors().nth(3).unwrap_or(path);
    pod.join("plugins").join("kubernetes.io~empty-dir").join(name).join("ready")
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    /// A medium and perhaps a size; requests of one container.
    fn check(medium: &str, limit: &str, requests: &str, want: &str) {
        let mut source = EmptyDirVolumeSource { medium: medium.into(), ..Default::default() };
        source.size_limit = limit.parse().ok();
        let requests: apimachinery::value::Map = requests
            .split_whitespace()
            .filter_map(|one| one.split_once('='))
            .map(|(name, size)| (name.to_owned(), json!(size)))
            .collect();
        let resources = json!({ "requests": requests, "limits": requests });
        let spec = json!({ "containers": [{ "name": "a", "resources": resources }] });
        let pod: Pod = apimachinery::value::from_value(json!({ "spec": spec })).unwrap();
        let allocatable = [("memory".to_owned(), "1Gi".parse().unwrap())].into();
        let shown = match Memory::of(&source, &pod, &allocatable) {
            Ok(None) => "disk".to_owned(),
            Ok(Some(memory)) => format!("{} {}", memory.kind, memory.options),
            Err(error) => error,
        };
        assert_eq!(shown, want, "{medium} {limit}");
    }

    #[test]
    fn what_is_in_memory() {
        check("", "1Mi", "", "disk");
        check("Memory", "", "", "tmpfs size=1073741824");
        check("Memory", "", "memory=64Mi", "tmpfs size=67108864");
        check("Memory", "16Mi", "memory=64Mi", "tmpfs size=16777216");
        check("Memory", "128Mi", "memory=64Mi", "tmpfs size=67108864");
        check("HugePages", "", "hugepages-2Mi=4Mi", "hugetlbfs pagesize=2097152");
        let none = "hugePages storage requested, but there is no resource request for huge pages";
        check("HugePages", "", "memory=64Mi", &format!("medium HugePages: {none}"));
        let two = "hugepages-2Mi=4Mi hugepages-1Gi=1Gi";
        let several = "medium: HugePages can't be used if container requests multiple huge page sizes";
        check("HugePages", "", two, several);
        check("HugePages-1Gi", "", two, "hugetlbfs pagesize=1073741824");
        check("HugePages-64Ki", "", two, &format!("medium HugePages-64Ki: {none}"));
        check("Tape", "", "", "unknown storage medium \"Tape\"");
    }
}
