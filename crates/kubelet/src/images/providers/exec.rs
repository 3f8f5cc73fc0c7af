//! One run of a provider: the request on its standard input, the answer on its standard output. Upstream: `execPlugin`.

use super::config::Variable;
use crate::metrics::Metrics;
use apimachinery::time::Duration;
use rustix::fs::Access;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// However often a provider asks somebody else, it may not take longer.
const TIME_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// What a provider is asked.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: &'static str,
    api_version: &'a str,
    image: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    service_account_token: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_account_annotations: &'a BTreeMap<String, String>,
}

/// What it answers.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Response {
    kind: String,
    #[serde(rename = "apiVersion")]
    _api_version: String,
    pub cache_key_type: String,
    pub cache_duration: Option<Duration>,
    pub auth: BTreeMap<String, Login>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Login {
    pub username: String,
    pub password: String,
}

/// A provider's program.
pub(super) struct Program {
    pub path: PathBuf,
    pub name: String,
    pub api_version: String,
    pub args: Vec<String>,
    pub env: Vec<Variable>,
    pub metrics: Metrics,
}

/// Looks for a program that can be run.
pub(super) fn find(bin_dir: &Path, name: &str) -> Result<PathBuf, String> {
    let path = bin_dir.join(name);
    let shown = path.display();
    let uninspectable =
        |why: &dyn std::fmt::Display| format!("error inspecting binary executable {shown}: {why}");
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("plugin binary executable {shown} did not exist"))
        }
        Err(error) => Err(uninspectable(&error)),
        Ok(meta) if meta.is_dir() => Err(uninspectable(&"is a directory")),
        Ok(_) => match rustix::fs::access(&path, Access::EXEC_OK) {
            Ok(()) => Ok(path),
            Err(error) => Err(uninspectable(&error)),
        },
    }
}

impl Program {
    /// Asks for an image's credentials.
    pub(super) async fn run(
        &self,
        image: &str,
        token: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Response, String> {
        let request = Request {
            kind: "CredentialProviderRequest",
            api_version: &self.api_version,
            image,
            service_account_token: token,
            service_account_annotations: annotations,
        };
        let mut input = serde_json::to_vec(&request)
            .map_err(|error| format!("failed to encode auth request: {error}"))?;
        input.push(b'\n');
        let began = std::time::Instant::now();
        let ran = tokio::time::timeout(TIME_LIMIT, self.spawn(input)).await;
        self.metrics.credential_provider_duration.with(&[&self.name]).observe_since(began);
        let failed = |why: &dyn std::fmt::Display, stderr: &[u8]| {
            self.metrics.credential_provider_errors.with(&[&self.name]).inc();
            let (name, stderr) = (&self.name, String::from_utf8_lossy(stderr));
            format!("error execing credential provider plugin {name} for image {image}: {why}: {stderr}")
        };
        let output = match ran {
            Err(_) => return Err(failed(&"context deadline exceeded", &[])),
            Ok(Err(error)) => return Err(failed(&error, &[])),
            Ok(Ok(output)) => output,
        };
        if !output.status.success() {
            return Err(failed(&ended(output.status), &output.stderr));
        }
        self.decode(&output.stdout)
    }

    async fn spawn(&self, input: Vec<u8>) -> std::io::Result<std::process::Output> {
        let mut command = Command::new(&self.path);
        command.args(&self.args).envs(self.env.iter().map(|variable| (&variable.name, &variable.value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let writing = async {
            if let Some(mut stdin) = stdin {
                // One that ends without reading is judged by how it ends.
                let _ = stdin.write_all(&input).await;
            }
        };
        let ((), output) = tokio::join!(writing, child.wait_with_output());
        output
    }

    fn decode(&self, answer: &[u8]) -> Result<Response, String> {
        let (version, _) = schema::decode::type_meta(answer)
            .map_err(|_| "error reading GVK from response: couldn't get version/kind; json parse error")?;
        let expected = &self.api_version;
        if version != *expected {
            return Err(format!(
                "apiVersion from credential plugin response did not match expected apiVersion:{expected}, actual apiVersion:{version}"
            ));
        }
        // Why it cannot be read is not told: the answer may hold credentials.
        let response = serde_json::from_slice::<Response>(answer).ok();
        response
            .filter(|response| response.kind == "CredentialProviderResponse")
            .ok_or_else(|| "error decoding credential provider plugin response from stdout".into())
    }
}

/// As Go tells it.
fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "signal: killed".into(),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => status.to_string(),
    }
}
