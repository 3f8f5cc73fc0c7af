//! Simulated nodes: `tiphys simulator` as a child process, against whatever server is under load.

use crate::target::{Call, Target};
use crate::watching::condition;
use anyhow::{Context as _, Result, bail, ensure};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// The label and taint of simulated nodes: other pods stay away, ours go nowhere else.
pub(crate) const KEY: &str = "bench";
pub(crate) const VALUE: &str = "simulated";
const PATIENCE: Duration = Duration::from_secs(120);

/// Nodes that report and, if asked to, run pods, until dropped.
pub(crate) struct Nodes {
    child: Option<Child>,
    count: usize,
    target: Target,
}

impl Nodes {
    /// Starts the simulator and waits until all its nodes are ready and take pods.
    pub(crate) async fn start(
        target: &Target,
        tiphys: &Path,
        kubeconfig: &Path,
        count: usize,
        run_pods: bool,
    ) -> Result<Self> {
        let mut command = Command::new(tiphys);
        command.args(["simulator", "--nodes", &count.to_string(), "--name", "bench-node"]);
        command.args(["--label", &format!("{KEY}={VALUE}"), "--taint", &format!("{KEY}={VALUE}:NoSchedule")]);
        command.arg("--kubeconfig").arg(kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
        if !run_pods {
            command.arg("--no-pods");
        }
        let child = command.spawn().with_context(|| format!("starting {}", tiphys.display()))?;
        let mut nodes = Nodes { child: Some(child), count, target: target.clone() };
        let mut connection = target.connect().await?;
        let path = format!("/api/v1/nodes?labelSelector={KEY}%3D{VALUE}");
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(child) = &mut nodes.child
                && let Some(status) = child.try_wait()?
            {
                bail!("the simulator ended: {status}");
            }
            let list = connection.json(Call::get(&path)).await?;
            let items = list["items"].as_array().context("a list without items")?;
            // Its own taint is left when the node controllers have seen that it is ready.
            let usable = |n: &&serde_json::Value| {
                condition(n, "Ready") && n["spec"]["taints"].as_array().is_some_and(|t| t.len() == 1)
            };
            if items.iter().filter(usable).count() >= count {
                return Ok(nodes);
            }
            ensure!(Instant::now() < end, "{count} simulated nodes were not ready in time");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Ends the simulator and deletes its nodes.
    pub(crate) async fn remove(mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        let mut connection = self.target.connect().await?;
        let list = connection.json(Call::get(format!("/api/v1/nodes?labelSelector={KEY}%3D{VALUE}"))).await?;
        for node in list["items"].as_array().into_iter().flatten() {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let (status, _) = connection.measure(Call::delete(format!("/api/v1/nodes/{name}"), "")).await?;
            ensure!(status.is_success(), "deleting node {name}: {status}");
        }
        Ok(())
    }
}
