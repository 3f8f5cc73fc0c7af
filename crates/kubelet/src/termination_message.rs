//! What a container left to be said at its end: the file at `terminationMessagePath`, or the tail of its log when the
//! policy is `FallbackToLogsOnError` and it failed without a word.

use crate::logs;
use crate::runtime_pod::RuntimeContainer;
use cri::v1;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Longest message taken from the file.
const MAX_MESSAGE: u64 = 4096;
/// Longest message taken from the log, in bytes and lines.
const MAX_LOG_MESSAGE: usize = 2048;
const MAX_LOG_LINES: usize = 80;

/// The message of an exited container; empty when it left none.
pub(crate) async fn read(status: &v1::ContainerStatus, container: &RuntimeContainer) -> String {
    let path = &container.annotated.termination_message_path;
    let fall_back = container.annotated.termination_message_policy == "FallbackToLogsOnError"
        && container.exit_code != 0
        && container.reason != "ContainerCannotRun";
    let mount = status.mounts.iter().find(|m| !path.is_empty() && m.container_path == absolute(path));
    let host_path = mount.map(|m| m.host_path.clone());
    let log_path = status.log_path.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let message = match host_path {
            Some(host_path) => match read_tail(Path::new(&host_path)) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return format!("Error on reading termination log {host_path}: {error}"),
            },
            None => String::new(),
        };
        if !message.is_empty() || !fall_back {
            return message;
        }
        match logs::last_lines(Path::new(&log_path), MAX_LOG_LINES, MAX_LOG_MESSAGE) {
            Ok(tail) => String::from_utf8_lossy(&tail).into_owned(),
            Err(error) => format!("Error on reading termination message from logs: {error}"),
        }
    });
    reading.await.unwrap_or_default()
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn read_tail(path: &Path) -> std::io::Result<String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // The file lies in the pod's directory, but a container wrote it: no link is followed, no pipe waited for.
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(flags as i32).open(path)?;
    let length = file.metadata()?.len();
    if length > MAX_MESSAGE {
        file.seek(SeekFrom::End(-(MAX_MESSAGE as i64)))?;
    }
    let mut bytes = Vec::new();
    file.take(MAX_MESSAGE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
