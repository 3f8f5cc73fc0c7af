//! A cluster of one that this process starts and stops: `tiphys server` with a data directory of its own. Which network
//! namespace it lives in is the caller's.

use crate::process::Pid;
use crate::target::{Call, Http, Target};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(60);

/// Where a cluster lives.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub tiphys: PathBuf,
    pub data: PathBuf,
    /// Further flags of the server.
    pub flags: Vec<String>,
}

/// A running server.
pub(crate) struct Running {
    child: Child,
    pub pid: Pid,
    pub began: Instant,
}

impl Cluster {
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.tiphys);
        command.args(words).arg("--data-dir").arg(&self.data).stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self) -> Result<Running> {
        fs::create_dir_all(&self.data).with_context(|| self.data.display().to_string())?;
        let path = self.data.join("server.log");
        let log = File::options().create(true).append(true).open(&path)?;
        let mut command = self.command(&["server"]);
        command.args(&self.flags).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let began = Instant::now();
        let child = command.spawn().with_context(|| format!("starting {}", self.tiphys.display()))?;
        let pid = Pid(child.id().context("the server has no process id")?);
        Ok(Running { child, pid, began })
    }

    /// Runs a subcommand to its end.
    pub(crate) async fn run(&self, words: &[&str]) -> Result<()> {
        let output = self.command(words).output().await?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tiphys {}: {text}", words.join(" "));
        Ok(())
    }

    /// Imports an image archive into the running server.
    pub(crate) async fn import(&self, archive: &Path) -> Result<()> {
        self.run(&["image", "import", &archive.display().to_string()]).await
    }

    /// Ends what a stopped server left running and removes its state. Images stay, as they would in a runtime of its own.
    pub(crate) async fn wipe(&self) -> Result<()> {
        self.run(&["reset"]).await?;
        for name in ["store", "pki", "kubelet", "network", "log", "admin.kubeconfig"] {
            let path = self.data.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits until the server says that it is ready.
    pub(crate) async fn ready(&self, running: &mut Running, http: Http) -> Result<Target> {
        let end = running.began + PATIENCE;
        loop {
            if let Some(status) = running.child.try_wait()? {
                let log = fs::read_to_string(self.data.join("server.log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                bail!("the server ended: {status}: {}", last.join(" | "));
            }
            let asked = async {
                let target = Target::load(&self.kubeconfig(), http)?;
                let (status, _) = target.connect().await?.measure(Call::get("/readyz")).await?;
                ensure!(status.is_success(), "/readyz: {status}");
                Ok::<_, anyhow::Error>(target)
            };
            match asked.await {
                Ok(target) => return Ok(target),
                Err(error) if Instant::now() > end => return Err(error.context("the server is not ready")),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

impl Running {
    /// Asks the server to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.context("the server did not stop")??;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}
