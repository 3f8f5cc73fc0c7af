//! One run of one plugin.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Error, Invocation};

/// The interface a pod's network is on.
pub(super) const IFNAME: &str = "eth0";

pub(super) async fn run(
    bin_dirs: &[PathBuf],
    command: &'static str,
    plugin: &str,
    conf: &Map<String, Value>,
    invocation: Option<&Invocation>,
) -> Result<Option<Value>, Error> {
    let program = find(bin_dirs, plugin).ok_or_else(|| Error::NotFound(plugin.into(), bin_dirs.to_vec()))?;
    let failed = |e| Error::Run(program.display().to_string(), e);
    let paths = std::env::join_paths(bin_dirs).map_err(|e| failed(std::io::Error::other(e)))?;
    let mut child = Command::new(&program);
    child.env("CNI_COMMAND", command).env("CNI_PATH", paths).env("CNI_IFNAME", IFNAME);
    if let Some(invocation) = invocation {
        let args: Vec<_> = invocation.args.iter().map(|(k, v)| format!("{k}={v}")).collect();
        child.env("CNI_CONTAINERID", &invocation.container_id).env("CNI_ARGS", args.join(";"));
        // A namespace that is gone is not named: DEL must then free what is outside of it.
        if command != "DEL" || linux::netns::is_pinned(&invocation.netns) {
            child.env("CNI_NETNS", &invocation.netns);
        }
    }
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = child.spawn().map_err(failed)?;
    let input = Value::Object(conf.clone()).to_string();
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that exits without reading is judged by its exit code.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    let printed: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    if !output.status.success() {
        let text = |k: &str| {
            printed.as_ref().and_then(|v| v[k].as_str()).filter(|s| !s.is_empty()).map(str::to_owned)
        };
        let message = match (text("msg"), text("details")) {
            (Some(message), Some(details)) => format!("{message}; {details}"),
            (Some(message), None) => message,
            _ => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                format!("netplugin failed with no error message: {}: {:?}", output.status, stderr.trim())
            }
        };
        let code = printed.as_ref().and_then(|v| v["code"].as_i64()).unwrap_or_default();
        return Err(Error::Failed { plugin: plugin.into(), command, code, message });
    }
    if command == "ADD" && printed.is_none() {
        return Err(Error::BadResult(plugin.into(), String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    Ok(printed)
}

fn find(bin_dirs: &[PathBuf], plugin: &str) -> Option<PathBuf> {
    bin_dirs.iter().map(|dir: &PathBuf| dir.join(plugin)).find(|p: &PathBuf| Path::is_file(p))
}
