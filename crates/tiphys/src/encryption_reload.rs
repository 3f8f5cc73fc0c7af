//! `--encryption-provider-config-automatic-reload`: the file is read anew when it changes, and values are kept as it says
//! from then on. A file that cannot be used changes nothing. Upstream:
//! `encryption-provider-config-automatic-reload-controller`.

use anyhow::{Context as _, Result};
use apiserver::storage::{Configuration, Encryption};
use component::metrics::{CounterVec, GaugeVec, Opts, Registry, Stability};
use kubelet::file_watch::{FileWatch, WatchFlags};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::Store;
use tokio_util::sync::CancellationToken;

/// When a file that could not be used is tried again: a plugin may have come up.
const AGAIN: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Reload {
    path: PathBuf,
    watch: FileWatch,
    encryption: Arc<Encryption>,
    store: Arc<dyn Store>,
    /// What the file says that is in use.
    known: String,
    reloads: CounterVec,
    last: GaugeVec,
    id: String,
}

impl Reload {
    /// `id` tells this server from others in metrics.
    pub(crate) fn new(
        path: &Path,
        encryption: Arc<Encryption>,
        store: Arc<dyn Store>,
        metrics: &Registry,
        id: &str,
    ) -> Result<Self> {
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The directory: files are replaced by renames, and those of Secrets by a rename of a link beside them.
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE;
        let watch = FileWatch::new(&[(directory, flags)])?;
        let labels = &["status", "apiserver_id_hash"];
        let name = |what: &str| format!("apiserver_encryption_config_controller_{what}");
        let reloads = name("automatic_reloads_total");
        let last = name("automatic_reload_last_timestamp_seconds");
        Ok(Reload {
            known: std::fs::read_to_string(path)?,
            path: path.to_owned(),
            watch,
            encryption,
            store,
            reloads: metrics.counter_vec(
                Opts {
                    name: &reloads,
                    help: "Total number of reload successes and failures of encryption configuration split by apiserver identity.",
                    stability: Stability::Alpha,
                },
                labels,
            ),
            last: metrics.gauge_vec(
                Opts {
                    name: &last,
                    help: "Timestamp of the last successful or failed automatic reload of encryption configuration split by apiserver identity.",
                    stability: Stability::Alpha,
                },
                labels,
            ),
            id: hash(id),
        })
    }

    /// Goes on until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut failed = false;
        loop {
            let again = async {
                match failed {
                    true => tokio::time::sleep(AGAIN).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = again => {}
                changed = self.watch.changed() => if let Err(error) = changed {
                    tracing::error!(%error, "the encryption configuration is no longer watched");
                    return;
                },
            }
            let status = match self.reload().await {
                Ok(false) => continue,
                Ok(true) => "success",
                Err(error) => {
                    tracing::error!(path = %self.path.display(), error = format!("{error:#}"), "error processing encryption config file");
                    "failure"
                }
            };
            failed = status == "failure";
            self.reloads.with(&[status, &self.id]).inc();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last.with(&[status, &self.id]).set(now.as_secs_f64());
        }
    }

    /// Whether the file says something new, which is in use now.
    async fn reload(&mut self) -> Result<bool> {
        let (path, encryption) = (self.path.clone(), self.encryption.clone());
        let text = tokio::fs::read_to_string(&path).await.context("reading it")?;
        if text == self.known {
            return Ok(false);
        }
        let configuration = Configuration::parse(&text)?;
        // Plugins are spoken to: not on the runtime's threads.
        tokio::task::spawn_blocking(move || encryption.reload(configuration)).await??;
        self.known = text;
        // What was on its way is kept as before: everything up to here is to be written anew by its next write.
        self.store.probe().await?;
        self.encryption.outdate(self.store.revision().0);
        tracing::info!(path = %self.path.display(), "Loaded new kms encryption config content");
        Ok(true)
    }
}

/// As upstream's metrics write hashes.
fn hash(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
