//! What the machine is and has. Read once. Upstream: cAdvisor's machine info.

use std::path::Path;

/// Facts about the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Cores.
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the file system under the kubelet's root.
    pub disk: i64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    /// Go's name of the architecture.
    pub architecture: String,
    /// Bytes of swap.
    pub swap: i64,
    /// Page size in bytes and pages, of huge pages.
    pub huge_pages: Vec<(i64, i64)>,
    /// Whether the kernel enforces AppArmor's profiles.
    pub app_armor: bool,
}

impl Machine {
    /// Reads them; what cannot be read is left empty.
    pub(crate) fn read(root_dir: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let meminfo = read("/proc/meminfo");
        let kilobytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|l| l.split_whitespace().next()?.parse::<i64>().ok())
                .unwrap_or(0)
                .saturating_mul(1024)
        };
        let cpus = read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
        let disk = rustix::fs::statvfs(root_dir).map(|s| s.f_blocks.saturating_mul(s.f_frsize)).unwrap_or(0);
        let first = |paths: &[&str]| {
            paths.iter().map(|p| read(p).trim().to_owned()).find(|t| !t.is_empty()).unwrap_or_default()
        };
        let machine_id = first(&["/etc/machine-id", "/var/lib/dbus/machine-id"]);
        let uuid = first(&["/sys/class/dmi/id/product_uuid", "/proc/device-tree/vm,uuid"]);
        let uname = rustix::system::uname();
        Machine {
            cpus: i64::try_from(cpus.max(1)).unwrap_or(1),
            memory: kilobytes("MemTotal"),
            disk: i64::try_from(disk).unwrap_or(i64::MAX),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            kernel_version: uname.release().to_string_lossy().into_owned(),
            os_image: os_image(&read("/etc/os-release")),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                "powerpc64" => "ppc64le",
                other => other,
            }
            .to_owned(),
            swap: kilobytes("SwapTotal"),
            huge_pages: huge_pages(),
            app_armor: linux::app_armor::is_enabled(),
        }
    }
}

fn os_image(os_release: &str) -> String {
    let pretty = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

pub(crate) fn huge_pages() -> Vec<(i64, i64)> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let mut out: Vec<(i64, i64)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let kilobytes: i64 =
                name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let pages =
                std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            Some((kilobytes * 1024, pages))
        })
        .collect();
    out.sort_unstable();
    out
}
