//! Which store a control plane has, and whether it takes writes.

use crate::cli::{StoreEngine, StoreFlags};
use crate::settings::LookBack;
use anyhow::{Context as _, Result, bail};
use apiserver::egress::{Configuration as Selections, Egress, Purpose};
use apiserver::handlers::Encodings;
use apiserver::resources::Resources;
use apiserver::storage::{Configuration, Encryption, UpstreamForm, prefixes, resources_by_prefix};
use component::metrics::Registry;
use parking_lot::Mutex;
use pki::tls::{Slot, Trust};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::embedded::{Embedded, Options, Saved, Still};
use store::etcd::{self, Etcd};
use store::{Health, Identity, Revision, Store, Transform};

/// An open store, and what encrypts its values, if anything does.
pub(crate) struct Opened {
    pub store: Arc<dyn Store>,
    pub encryption: Option<Arc<Encryption>>,
}

/// Opens the store that the flags name. `directory` is the embedded engine's.
pub(crate) async fn open(
    flags: &StoreFlags,
    directory: &Path,
    resources: &Resources,
    encodings: Encodings,
    egress: &Arc<Egress>,
) -> Result<Opened> {
    match flags.store {
        StoreEngine::Embedded => {
            if !flags.etcd_servers.is_empty() {
                bail!("--etcd-servers goes with --store etcd");
            }
            let directory = directory.to_owned();
            let encryption = encryption(flags, resources, "/registry", Arc::new(Identity))?;
            let options =
                Options { transform: transform(&encryption, Arc::new(Identity)), ..Options::default() };
            let opened = tokio::task::spawn_blocking(move || Embedded::open(directory, options));
            Ok(Opened { store: opened.await?.context("opening the store")?, encryption })
        }
        StoreEngine::Etcd => {
            let (store, encryption) = open_etcd(flags, resources, encodings, egress).await?;
            Ok(Opened { store, encryption })
        }
    }
}

/// Which way connections go, as the flags say.
pub(crate) fn egress(flags: &StoreFlags, metrics: &Registry) -> Result<Arc<Egress>> {
    let Some(path) = &flags.egress_selector_config_file else { return Ok(Arc::default()) };
    let read = || -> Result<Egress> {
        let configuration = Selections::parse(&std::fs::read_to_string(path)?).map_err(anyhow::Error::msg)?;
        Egress::new(&configuration, metrics).map_err(anyhow::Error::msg)
    };
    Ok(Arc::new(read().with_context(|| format!("--egress-selector-config-file {}", path.display()))?))
}

fn dial(egress: &Arc<Egress>) -> etcd::Dial {
    let egress = egress.clone();
    Arc::new(move |host, port| {
        let egress = egress.clone();
        Box::pin(async move {
            let connection = egress.dial(Purpose::Etcd, &host, port).await?;
            Ok(Box::new(connection) as Box<dyn etcd::Wire>)
        })
    })
}

/// Opens a saved state to look at.
pub(crate) async fn look_back(look: &LookBack, flags: &StoreFlags, resources: &Resources) -> Result<Opened> {
    let transform = embedded_transform(flags, resources)?;
    let (file, revision) = (look.file.clone(), look.revision.map(Revision));
    let still = tokio::task::spawn_blocking(move || -> Result<Arc<Still>> {
        let saved = Saved::of_file(&file, &transform).context("--snapshot")?;
        Still::new(saved, revision).context("--at-revision")
    });
    Ok(Opened { store: still.await??, encryption: None })
}

/// Opens the etcd of the flags, with what objects look like there.
pub(crate) async fn open_etcd(
    flags: &StoreFlags,
    resources: &Resources,
    encodings: Encodings,
    egress: &Arc<Egress>,
) -> Result<(Arc<Etcd>, Option<Arc<Encryption>>)> {
    if flags.etcd_servers.is_empty() {
        bail!("--etcd-servers must be specified");
    }
    let form: Arc<dyn Transform> = Arc::new(UpstreamForm::new(resources).with(encodings));
    let encryption = encryption(flags, resources, &flags.etcd_prefix, form.clone())?;
    let options = etcd::Options {
        servers: flags.etcd_servers.clone(),
        tls: tls(flags)?,
        dial: egress.has_proxy(Purpose::Etcd).then(|| dial(egress)),
        prefix: flags.etcd_prefix.clone(),
        split: etcd::split_by(prefixes(resources)),
        transform: transform(&encryption, form),
        compaction: flags.etcd_compaction_interval,
        ..Default::default()
    };
    Ok((Etcd::open(options).await.context("opening the store in etcd")?, encryption))
}

/// What values look like in the embedded engine's files, and in snapshots.
pub(crate) fn embedded_transform(flags: &StoreFlags, resources: &Resources) -> Result<Arc<dyn Transform>> {
    let encryption = encryption(flags, resources, "/registry", Arc::new(Identity))?;
    Ok(transform(&encryption, Arc::new(Identity)))
}

fn transform(encryption: &Option<Arc<Encryption>>, inner: Arc<dyn Transform>) -> Arc<dyn Transform> {
    encryption.clone().map_or(inner, |encryption| encryption)
}

fn encryption(
    flags: &StoreFlags,
    resources: &Resources,
    root: &str,
    inner: Arc<dyn Transform>,
) -> Result<Option<Arc<Encryption>>> {
    let Some(path) = &flags.encryption_provider_config else { return Ok(None) };
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let made = Configuration::parse(&text).and_then(|configuration| {
        Encryption::new(configuration, resources_by_prefix(resources), root, inner)
    });
    let made = made.with_context(|| format!("--encryption-provider-config {}", path.display()))?;
    Ok(Some(Arc::new(made)))
}

fn tls(flags: &StoreFlags) -> Result<Option<Arc<rustls::ClientConfig>>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let slot = match (&flags.etcd_certfile, &flags.etcd_keyfile) {
        (Some(chain), Some(key)) => Some(Slot::of_pem(&read(chain)?, &read(key)?)?),
        (None, None) => None,
        _ => bail!("--etcd-certfile and --etcd-keyfile go together"),
    };
    let trust = match &flags.etcd_cafile {
        Some(path) => Trust::pem(&read(path)?)?,
        None if flags.etcd_servers.iter().any(|url| url.starts_with("https://")) => Trust::system()?,
        None => return Ok(None),
    };
    Ok(Some(Arc::new(pki::tls::client_config(&trust, slot, &[b"h2"])?)))
}

/// How long a store may take to answer a probe.
const PROBE: Duration = Duration::from_secs(2);
/// How long an answer holds.
const FRESH: Duration = Duration::from_millis(500);

/// Whether the store takes writes, found out by real ones while somebody asks, and only then.
pub(crate) struct Probe {
    store: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// When the probe under way began.
    begun: Option<Instant>,
    ended: Instant,
    last: Result<(), String>,
}

impl Probe {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let state = State { begun: None, ended: Instant::now(), last: Ok(()) };
        Probe { store, state: Arc::new(Mutex::new(state)) }
    }

    /// The last answer; one that is overdue is a failure. A new probe begins when the last one is old.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.store.health() {
            Health::Ok => {}
            other => return Err(format!("{other:?}")),
        }
        let mut state = self.state.lock();
        if let Some(long) = state.begun.map(|begun| begun.elapsed()) {
            if long > PROBE {
                return Err(format!("the store has not answered a write for {} s", long.as_secs()));
            }
            return state.last.clone();
        }
        if state.ended.elapsed() > FRESH || state.last.is_err() {
            state.begun = Some(Instant::now());
            let (store, shared) = (self.store.clone(), self.state.clone());
            tokio::spawn(async move {
                let last = store.probe().await.map_err(|error| error.to_string());
                *shared.lock() = State { begun: None, ended: Instant::now(), last };
            });
        }
        state.last.clone()
    }
}
