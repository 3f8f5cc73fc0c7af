//! `plugins_registry`: a socket that appears there is asked who it is, and handed to the room for its kind; one that goes
//! takes its plugin with it. Upstream: `pluginmanager`.

use super::plugin_registration::registration_client::RegistrationClient;
use super::plugin_registration::{InfoRequest, PluginInfo, RegistrationStatus};
use crate::file_watch::{FileWatch, WatchFlags};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a plugin gets to say who it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between attempts to register one that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// A kind of plugin.
pub(crate) trait Handler: Send + Sync {
    /// As plugins name it: `DevicePlugin`, `DRAPlugin`, …
    fn kind(&self) -> &'static str;
    fn validate(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String>;
    fn register<'a>(
        &'a self,
        name: &'a str,
        endpoint: &'a Path,
        versions: &'a [String],
    ) -> BoxFuture<'a, Result<(), String>>;
    fn deregister(&self, name: &str, endpoint: &Path);
}

/// A plugin that is registered.
struct Known {
    handler: Arc<dyn Handler>,
    name: String,
    endpoint: PathBuf,
}

/// The sockets that are there, and whether their plugins are registered.
#[derive(Debug, Default)]
pub(crate) struct Plugins(Mutex<BTreeMap<PathBuf, bool>>);

impl Plugins {
    pub(crate) fn list(&self) -> Vec<(String, bool)> {
        self.0.lock().iter().map(|(path, registered)| (path.display().to_string(), *registered)).collect()
    }
}

/// A socket: another at the same place is another plugin.
type Identity = (u64, i64, i64);

/// Watches until shutdown.
pub(crate) async fn run(
    dir: PathBuf,
    handlers: Vec<Arc<dyn Handler>>,
    plugins: Arc<Plugins>,
    shutdown: CancellationToken,
) {
    let mut known: BTreeMap<PathBuf, (Identity, Option<Known>)> = BTreeMap::new();
    loop {
        let mut dirs = vec![dir.clone()];
        let sockets;
        // The watch is older than the look: what comes in between is looked at again.
        let watch = loop {
            let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ONLYDIR;
            let paths: Vec<(&Path, WatchFlags)> = dirs.iter().map(|dir| (dir.as_path(), flags)).collect();
            let watch = FileWatch::new(&paths);
            let (found, seen) = look(&dir);
            if found.len() == dirs.len() || watch.is_err() {
                sockets = seen;
                break watch;
            }
            dirs = found;
        };
        let failed = update(&mut known, &sockets, &handlers).await;
        *plugins.0.lock() =
            known.iter().map(|(path, (_, plugin))| (path.clone(), plugin.is_some())).collect();
        let changed = async {
            match &watch {
                Ok(watch) => drop(watch.changed().await),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        let retry = async {
            match failed {
                true => tokio::time::sleep(AGAIN).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = changed => {}
            () = retry => {}
        }
    }
}

/// The directories below, and the sockets in them. Names that begin with a dot are nobody's.
fn look(top: &Path) -> (Vec<PathBuf>, BTreeMap<PathBuf, Identity>) {
    let (mut dirs, mut sockets) = (vec![top.to_owned()], BTreeMap::new());
    let mut at = 0;
    while let Some(dir) = dirs.get(at).cloned() {
        at += 1;
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_socket()
                && let Ok(meta) = entry.metadata()
            {
                sockets.insert(entry.path(), (meta.ino(), meta.ctime(), meta.ctime_nsec()));
            }
        }
    }
    (dirs, sockets)
}

/// Takes leave of what is gone and registers what is new; whether something must be tried again.
async fn update(
    known: &mut BTreeMap<PathBuf, (Identity, Option<Known>)>,
    sockets: &BTreeMap<PathBuf, Identity>,
    handlers: &[Arc<dyn Handler>],
) -> bool {
    known.retain(|path, (identity, plugin)| {
        let stays = sockets.get(path) == Some(identity);
        if let (false, Some(gone)) = (stays, plugin) {
            gone.handler.deregister(&gone.name, &gone.endpoint);
        }
        stays
    });
    let mut failed = false;
    for (path, identity) in sockets {
        if known.get(path).is_some_and(|(_, plugin)| plugin.is_some()) {
            continue;
        }
        let plugin = match register(path, handlers).await {
            Ok(plugin) => Some(plugin),
            Err(error) => {
                tracing::warn!(socket = %path.display(), error, "a plugin was not registered");
                failed = true;
                None
            }
        };
        known.insert(path.clone(), (*identity, plugin));
    }
    failed
}

async fn register(socket: &Path, handlers: &[Arc<dyn Handler>]) -> Result<Known, String> {
    let channel = super::dial(socket).await.map_err(|error| format!("dial failed: {error}"))?;
    let mut client = RegistrationClient::new(channel);
    let asked = tokio::time::timeout(PATIENCE, client.get_info(InfoRequest {})).await;
    let info: PluginInfo = match asked {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(format!("failed to get plugin info using RPC GetInfo: {status}")),
        Err(_) => return Err("failed to get plugin info using RPC GetInfo: no answer".into()),
    };
    let endpoint = if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(&info.endpoint) };
    let registered = async {
        let handler = handlers.iter().find(|handler| handler.kind() == info.r#type).ok_or_else(|| {
            format!(
                "RegisterPlugin error -- no handler registered for plugin type: {} at socket {}",
                info.r#type,
                socket.display()
            )
        })?;
        handler
            .validate(&info.name, &endpoint, &info.supported_versions)
            .map_err(|error| format!("RegisterPlugin error -- plugin validation failed with err: {error}"))?;
        handler.register(&info.name, &endpoint, &info.supported_versions).await.map_err(|error| {
            format!("RegisterPlugin error -- plugin registration failed with err: {error}")
        })?;
        Ok::<_, String>(handler.clone())
    };
    let outcome = registered.await;
    let error = outcome.as_ref().err().cloned().unwrap_or_default();
    let status = RegistrationStatus { plugin_registered: error.is_empty(), error };
    let told = client.notify_registration_status(status).await;
    match (outcome, told) {
        (Ok(handler), Ok(_)) => Ok(Known { handler, name: info.name, endpoint }),
        (Ok(handler), Err(status)) => {
            handler.deregister(&info.name, &endpoint);
            Err(format!("failed to send registration status: {status}"))
        }
        (Err(error), _) => Err(error),
    }
}
