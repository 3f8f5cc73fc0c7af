//! `local` PersistentVolumes: a directory, or a block device, which a pod has as it is, or with the file system that is
//! on it; one that has none gets one. Upstream: `pkg/volume/local`.

use super::{Ready, Request, mount_table};
use api::core::v1::{LocalVolumeSource, PersistentVolume};
use rustix::mount::{MountFlags, mount};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) const PLUGIN: &str = "kubernetes.io/local-volume";
/// What is made where a volume names no file system.
const DEFAULT: &str = "ext4";

/// The volume, where the pod has it.
pub(super) async fn ready(
    request: &Request<'_>,
    volume: &PersistentVolume,
    source: &LocalVolumeSource,
) -> Result<Ready, String> {
    let path = PathBuf::from(&source.path);
    if volume.spec.volume_mode.as_deref() == Some("Block") {
        return Ok(Ready { host_path: path, read_only: false, mode: 0o755, refresh_at: None });
    }
    let wanted = source.fs_type.clone().unwrap_or_else(|| DEFAULT.into());
    let options = volume.spec.mount_options.join(",");
    // Mounted for each pod: of one device the kernel has one file system, however often it is mounted.
    let own = request.dir.join(PLUGIN.replace('/', "~")).join(&volume.metadata.name);
    let blocking = move || mounted(path, own, &wanted, &options);
    let host_path = tokio::task::spawn_blocking(blocking).await.map_err(|error| error.to_string())??;
    Ok(Ready { host_path, read_only: false, mode: 0o755, refresh_at: None })
}

/// Where the files are: in the directory itself, or where the device is mounted.
fn mounted(path: PathBuf, own: PathBuf, wanted: &str, options: &str) -> Result<PathBuf, String> {
    let absent = |_| format!("path {:?} does not exist", path.to_string_lossy());
    // What a link leads to is the volume: its group changes, not the link's.
    let path = path.canonicalize().map_err(absent)?;
    let found = std::fs::metadata(&path).map_err(|error| error.to_string())?;
    if found.is_dir() {
        return Ok(path);
    }
    if !found.file_type().is_block_device() {
        return Err("only directory and block device are supported".into());
    }
    if mount_table::is_mount_point(&own).map_err(|error| error.to_string())? {
        return Ok(own);
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(&own);
    made.map_err(|error| error.to_string())?;
    format_and_mount(&path, &own, wanted, options).map_err(|why| {
        let (device, at) = (path.display(), own.display());
        format!("local: failed to mount device {device} at {at} (fstype: {wanted}), error {why}")
    })?;
    Ok(own)
}

/// Has the file system on a device, mounted at `at`, take all of it; of a directory there is nothing to be done.
pub(super) fn resize(device: &Path, at: &Path) -> Result<(), String> {
    let device = device.canonicalize().map_err(|error| error.to_string())?;
    if !std::fs::metadata(&device).map_err(|error| error.to_string())?.file_type().is_block_device() {
        return Ok(());
    }
    let of = |program: &str, arguments: &[&str], what: &Path| {
        let output = Command::new(program).args(arguments).arg(what).output();
        let output = output.map_err(|error| {
            format!("resize of device {} failed: {error}. {program} output: ", what.display())
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!(
            "resize of device {} failed: {}. {program} output: {}",
            what.display(),
            output.status,
            String::from_utf8_lossy(&said).trim()
        ))
    };
    match file_system(&device)?.as_deref() {
        None => Ok(()),
        Some("ext3" | "ext4") => of("resize2fs", &[], &device),
        Some("xfs") => of("xfs_growfs", &["-d"], at),
        Some("btrfs") => of("btrfs", &["filesystem", "resize", "max"], at),
        Some(other) => Err(format!(
            "ResizeFS.Resize - resize of format {other} is not supported for device {} mounted at {}",
            device.display(),
            at.display()
        )),
    }
}

fn format_and_mount(device: &Path, at: &Path, wanted: &str, options: &str) -> Result<(), String> {
    match file_system(device)? {
        None => run(Command::new(format!("mkfs.{wanted}")).args(force(wanted)).arg(device))?,
        Some(found) if found != wanted => {
            return Err(format!(
                "failed to mount the volume as {wanted:?}, it already contains {found}. Mount error: wrong fs type"
            ));
        }
        Some(_) => {}
    }
    let data = std::ffi::CString::new(options).map_err(|error| error.to_string())?;
    let data = (!options.is_empty()).then_some(data.as_c_str());
    mount(device, at, wanted, MountFlags::empty(), data).map_err(|error| error.to_string())
}

/// What a program needs to be told to make a file system on a whole device.
fn force(kind: &str) -> &'static [&'static str] {
    match kind {
        "ext3" | "ext4" => &["-F", "-m0"],
        "xfs" => &["-f"],
        _ => &[],
    }
}

/// What is on a device; none when there is nothing at all.
fn file_system(device: &Path) -> Result<Option<String>, String> {
    let probe =
        Command::new("blkid").args(["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export"]).arg(device).output();
    let probe = probe.map_err(|error| format!("running blkid: {error}"))?;
    // It says 2 of what it does not know.
    if probe.status.code() == Some(2) {
        return Ok(None);
    }
    if !probe.status.success() {
        return Err(format!("blkid: {}", String::from_utf8_lossy(&probe.stderr).trim()));
    }
    let said = String::from_utf8_lossy(&probe.stdout).into_owned();
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    // A table of partitions is data that nobody may write over.
    Ok(value("TYPE=").or_else(|| value("PTTYPE=").map(|_| "unknown data, probably partitions".to_owned())))
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_where_they_are_and_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        let at = |path: PathBuf| mounted(path, own.clone(), "ext4", "");
        assert_eq!(at(dir.path().to_owned()).unwrap(), dir.path().canonicalize().unwrap());
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(at(file).unwrap_err(), "only directory and block device are supported");
        let absent = dir.path().join("absent");
        assert_eq!(
            at(absent.clone()).unwrap_err(),
            format!("path {:?} does not exist", absent.to_str().unwrap())
        );
        assert!(!own.exists());
    }
}
