//! `postStart` and `preStop`: a command in the container, a GET, or a pause. Upstream: `pkg/kubelet/lifecycle/handlers.go`.

use crate::context::Context;
use crate::http_client::{self, Get};
use crate::labels::format_pod;
use api::core::v1::{Container, LifecycleHandler, Pod};
use component::dial::join_host_port;
use cri::v1::ExecSyncRequest;
use std::time::Duration;

/// What Go's HTTP client allows without a limit of its own.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a hook to its end; an error is upstream's message.
pub(crate) async fn run(
    context: &Context,
    pod: &Pod,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    let whom = format!("for Container {:?} in Pod {:?} failed", container.name, format_pod(pod));
    if let Some(exec) = &hook.exec {
        let cmd = exec.command.clone();
        let request = ExecSyncRequest { container_id: container_id.into(), cmd, timeout: 0 };
        let (error, output) = match context.runtime.exec_sync(request).await {
            Ok(answer) if answer.exit_code == 0 => return Ok(()),
            Ok(answer) => {
                let mut output = answer.stdout;
                output.extend_from_slice(&answer.stderr);
                let error =
                    format!("command '{}' exited with {}: ", exec.command.join(" "), answer.exit_code);
                (error + &String::from_utf8_lossy(&output), output)
            }
            Err(error) => (error.to_string(), Vec::new()),
        };
        let words = exec.command.join(" ");
        let output = String::from_utf8_lossy(&output);
        return Err(format!("Exec lifecycle hook ([{words}]) {whom} - error: {error}, message: {output:?}"));
    }
    if let Some(get) = &hook.http_get {
        return http(context, pod, container, pod_ip, get)
            .await
            .map_err(|error| format!("HTTP lifecycle hook ({}) {whom} - error: {error}", get.path));
    }
    if let Some(sleep) = &hook.sleep {
        // Whoever lets this future fall ends the pause early.
        let mut pause = Pause { context, done: false };
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        pause.done = true;
        return Ok(());
    }
    Err("Cannot run handler: invalid handler".into())
}

struct Pause<'a> {
    context: &'a Context,
    done: bool,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.context.metrics.sleeps_cut_short.inc();
        }
    }
}

async fn http(
    context: &Context,
    pod: &Pod,
    container: &Container,
    pod_ip: &str,
    get: &api::core::v1::HTTPGetAction,
) -> Result<(), String> {
    if get.host.is_empty() && pod_ip.is_empty() {
        return Err("failed to find networking container".into());
    }
    let request = Get::of(get, container, pod_ip, "lifecycle")?;
    // Any answer will do: upstream does not look at the status.
    match http_client::get(&request, HTTP_TIMEOUT).await {
        Ok(_) => Ok(()),
        Err(error) if error.contains("server gave HTTP response to HTTPS client") => {
            let mut plain = request.clone();
            plain.https = false;
            plain.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Authorization"));
            http_client::get(&plain, HTTP_TIMEOUT).await?;
            context.metrics.http_fallbacks.inc();
            let host = join_host_port(&request.host, request.port);
            context.events.warning(
                pod,
                "LifecycleHTTPFallback",
                format!(
                    "request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded"
                ),
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}
