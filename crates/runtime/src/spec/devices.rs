//! Devices: those asked for, all of the host's for privileged containers, and the rules that guard the rest.

use cri::v1::ContainerConfig;
use cri::{Error, Result};
use linux::cgroup::DeviceRule;
use shim::protocol::Device;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Every container's: making any node, using the usual ones, terminals.
fn usual() -> Vec<DeviceRule> {
    let rule = |kind, major, minor, access: &str| DeviceRule { kind, major, minor, access: access.into() };
    let mut rules = vec![rule('c', None, None, "m"), rule('b', None, None, "m")];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule('c', Some(major), Some(minor), "rwm"));
    }
    rules.push(rule('c', Some(136), None, "rwm"));
    rules
}

/// The devices to make, and the rules.
pub(crate) fn devices(config: &ContainerConfig, privileged: bool) -> Result<(Vec<Device>, Vec<DeviceRule>)> {
    let mut devices = Vec::new();
    if privileged {
        host_devices(Path::new("/dev"), Path::new("/dev"), &mut devices);
        let all = DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".into() };
        return Ok((devices, vec![all]));
    }
    let mut rules = usual();
    for device in &config.devices {
        let host = Path::new(&device.host_path);
        let meta = std::fs::metadata(host)
            .map_err(|error| Error::invalid_argument(format!("device {:?}: {error}", device.host_path)))?;
        let access = match device.permissions.as_str() {
            "" => "rwm",
            given if given.bytes().all(|b| b"rwm".contains(&b)) => given,
            given => return Err(Error::invalid_argument(format!("invalid device permissions {given:?}"))),
        };
        let before = devices.len();
        match meta.is_dir() {
            true => host_devices(host, Path::new(&device.container_path), &mut devices),
            false => devices.push(Device {
                path: device.container_path.clone(),
                host_path: std::fs::canonicalize(host).unwrap_or(host.into()).to_string_lossy().into_owned(),
            }),
        }
        for device in &devices[before..] {
            rules.push(rule_for(&device.host_path, access)?);
        }
    }
    Ok((devices, rules))
}

fn rule_for(host_path: &str, access: &str) -> Result<DeviceRule> {
    let failed = |why: String| Error::invalid_argument(format!("device {host_path:?}: {why}"));
    let meta = std::fs::metadata(host_path).map_err(|error| failed(error.to_string()))?;
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Err(failed("not a device node".into())),
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Ok(DeviceRule { kind, major: Some(major), minor: Some(minor), access: access.into() })
}

/// The device nodes under a host directory, those aside that every container has of its own.
fn host_devices(host: &Path, container: &Path, found: &mut Vec<Device>) {
    const OWN: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".udev", "console"];
    const NODES: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx"];
    for entry in std::fs::read_dir(host).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(kind) = entry.file_type() else { continue };
        let name_text = name.to_string_lossy();
        if host == Path::new("/dev") && (OWN.contains(&&*name_text) || NODES.contains(&&*name_text)) {
            continue;
        }
        let inside = container.join(&name);
        if kind.is_dir() {
            host_devices(&path, &inside, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(Device {
                path: inside.to_string_lossy().into_owned(),
                host_path: path.to_string_lossy().into_owned(),
            });
        }
    }
}
