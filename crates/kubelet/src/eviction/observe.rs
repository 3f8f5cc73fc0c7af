//! What the signals read on this machine. Upstream: `makeSignalObservations` over cAdvisor's numbers.

use super::judge::{Observations, Reading};
use super::thresholds::Signal;
use std::path::Path;

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads all of them; what cannot be read is left out. `image_fs` is where images are, if that is another file system.
pub(crate) fn observe(memory_capacity: i64, node_fs: &Path, image_fs: Option<&Path>) -> Observations {
    let mut out = Observations::new();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes: Option<i64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    if let Some(kilobytes) = kilobytes {
        let available = kilobytes.saturating_mul(1024);
        out.insert(Signal::MemoryAvailable, Reading { available, capacity: memory_capacity });
    }
    // Without a file system of their own, images are on the node's.
    for (path, space, inodes) in [
        (Some(node_fs), Signal::NodeFsAvailable, Signal::NodeFsInodesFree),
        (image_fs.or(Some(node_fs)), Signal::ImageFsAvailable, Signal::ImageFsInodesFree),
    ] {
        let Some(stat) = path.and_then(|path| rustix::fs::statvfs(path).ok()) else { continue };
        let reading = |available: u64, capacity: u64| Reading {
            available: clamp(available),
            capacity: clamp(capacity),
        };
        out.insert(space, reading(stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize));
        // Some file systems count none.
        if stat.f_files > 0 {
            out.insert(inodes, reading(stat.f_ffree, stat.f_files));
        }
    }
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let most = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")];
    let running = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| {
        let (_, all) = text.split_whitespace().nth(3)?.split_once('/')?;
        all.parse::<i64>().ok()
    });
    if let (Some(capacity), Some(running)) = (most.into_iter().flatten().min(), running) {
        out.insert(Signal::PidAvailable, Reading { available: capacity - running, capacity });
    }
    out
}
