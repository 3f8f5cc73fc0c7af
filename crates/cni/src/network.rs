//! [`PodNetwork`]: the one door to a pod's network, whoever makes it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use linux::netns::Netns;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::builtin::ipam::Ipam;
use crate::builtin::{self, Host, PacketFilter, Veth, interface_name};
use crate::plugin::{self, Plugins};
use crate::state::{By, Record, Records};
use crate::{Cidr, PodIps, Sandbox};

/// Where things are and what they are called. Names are settable so that two servers on one machine, each in its
/// own network namespace, share nothing, and so that `make down` knows what to look for.
#[derive(Debug, Clone)]
pub struct Config {
    /// Allocations and port mappings live here.
    pub state_dir: PathBuf,
    /// CNI configurations; the first in name order wins. None at all: the built-in network.
    pub conf_dir: PathBuf,
    pub bin_dirs: Vec<PathBuf>,
    /// Of the node-side interfaces; at most seven bytes, so that enough of the hash remains.
    pub interface_prefix: String,
    /// Of the nftables table.
    pub table: String,
    /// Destinations that see a pod's own address.
    pub cluster_cidrs: Vec<Cidr>,
    /// Sources for what the node sends to its pods; empty: the kernel chooses.
    pub node_ips: Vec<IpAddr>,
    /// Absent: that of the default route's interface.
    pub mtu: Option<u32>,
    /// The network namespace that is the node's; absent: the process's own.
    pub host_netns: Option<PathBuf>,
}

impl Config {
    /// Upstream's directories for plugins, Tiphys' names for the rest.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into()],
            interface_prefix: "tph".into(),
            table: "tiphys-pods".into(),
            cluster_cidrs: Vec::new(),
            node_ips: Vec::new(),
            mtu: None,
            host_netns: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("built-in pod network, sandbox {sandbox:?}")]
    BuiltIn { sandbox: String, source: builtin::Error },
    #[error("plugin: {0}")]
    Plugin(#[from] plugin::Error),
    #[error("{0}")]
    State(String, #[source] std::io::Error),
    /// Upstream's words for a node whose network is not ready.
    #[error("cni plugin not initialized: {0}")]
    NotInitialized(&'static str),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The pod network of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PodNetwork {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    plugins: Plugins,
    records: Records,
    host: Host,
    mtu: u32,
    state: std::sync::Mutex<State>,
    /// One call at a time per sandbox.
    locks: std::sync::Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

#[derive(Debug)]
struct State {
    ipam: Ipam,
    sandboxes: HashMap<String, Record>,
    /// Made when the built-in network first has something to do.
    filter: Option<PacketFilter>,
}

impl PodNetwork {
    /// Reads what is remembered and brings the node's side in line with it.
    pub async fn open(config: Config) -> Result<Self> {
        blocking(move || Inner::open(config)).await.map(|inner| Self { inner: Arc::new(inner) })
    }

    /// The node's pod ranges, from the Node object; remembered, so that the next start need not wait for it.
    pub async fn set_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<()> {
        let (inner, cidrs) = (self.inner.clone(), cidrs.to_vec());
        blocking(move || inner.set_pod_cidrs(&cidrs)).await
    }

    /// Gives a sandbox its network. Doing it again returns the same addresses.
    pub async fn setup(&self, sandbox: Sandbox) -> Result<PodIps> {
        let guard = self.lock(&sandbox.id).await;
        let known = self.inner.state().sandboxes.get(&sandbox.id).cloned();
        let outcome = match (known, self.inner.plugins.load().await?) {
            (Some(Record { by: By::Plugins { result: Some(result), .. }, .. }), _) => {
                plugin::ips(&result).map_err(Error::from)
            }
            (None | Some(Record { by: By::Plugins { .. }, .. }), Some(list)) => {
                self.setup_by_plugins(&sandbox, list).await
            }
            (known, _) => {
                let inner = self.inner.clone();
                blocking(move || inner.setup(&sandbox, known)).await
            }
        };
        drop(guard);
        outcome
    }

    /// Takes a sandbox's network away and releases its addresses. An unknown sandbox has none: fine.
    pub async fn teardown(&self, id: &str) -> Result<()> {
        let guard = self.lock(id).await;
        let record = self.inner.state().sandboxes.get(id).cloned();
        let outcome = match record {
            None => Ok(()),
            Some(record) => {
                if let By::Plugins { list, result } = &record.by {
                    self.inner.plugins.delete(list, &invocation(&record), result.as_ref()).await?;
                }
                let inner = self.inner.clone();
                blocking(move || inner.teardown(&record)).await
            }
        };
        drop(guard);
        self.inner.forget_lock(id);
        outcome
    }

    /// Whether pods can be given a network now.
    pub async fn status(&self) -> Result<()> {
        match self.inner.plugins.load().await? {
            Some(list) => Ok(self.inner.plugins.status(&list).await?),
            None if self.inner.state().ipam.cidrs().is_empty() => {
                Err(Error::NotInitialized("the node has no pod CIDR yet"))
            }
            None => Ok(()),
        }
    }

    /// Tears down every sandbox that is not among `alive`: what a crash left behind.
    pub async fn collect_garbage(&self, alive: &[String]) -> Result<()> {
        let dead: Vec<_> =
            self.inner.state().sandboxes.keys().filter(|id| !alive.contains(id)).cloned().collect();
        for id in dead {
            self.teardown(&id).await?;
        }
        if let Some(list) = self.inner.plugins.load().await? {
            self.inner.plugins.collect_garbage(&list, alive).await?;
        }
        Ok(())
    }

    /// The addresses a sandbox has.
    pub fn ips(&self, id: &str) -> Option<PodIps> {
        self.inner.state().sandboxes.get(id).map(|r| PodIps(r.ips.clone()))
    }

    /// Removes every pod's network, and the table, for good.
    pub async fn remove(&self) -> Result<()> {
        self.collect_garbage(&[]).await?;
        let inner = self.inner.clone();
        blocking(move || match &mut inner.state().filter {
            Some(filter) => filter.remove().map_err(|e| built_in("")(e.into())),
            None => Ok(()),
        })
        .await
    }

    async fn lock(&self, id: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.inner.locks.lock().unwrap_or_else(|e| e.into_inner());
            locks.entry(id.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }

    async fn setup_by_plugins(&self, sandbox: &Sandbox, list: plugin::List) -> Result<PodIps> {
        let mut record = record(sandbox, By::Plugins { list: list.value().clone(), result: None });
        let inner = self.inner.clone();
        // Remembered before the first plugin runs: whatever happens, a later teardown runs DEL.
        let before = record.clone();
        blocking(move || inner.remember(before)).await?;
        let result = match self.inner.plugins.add(&list, &invocation(&record)).await {
            Ok(result) => result,
            Err(error) => {
                // As upstream's runtimes do; if this fails too, the record stays for the next teardown.
                if self.inner.plugins.delete(list.value(), &invocation(&record), None).await.is_ok() {
                    let inner = self.inner.clone();
                    blocking(move || inner.teardown(&record)).await?;
                }
                return Err(error.into());
            }
        };
        let ips = plugin::ips(&result)?;
        record.ips = ips.0.clone();
        record.by = By::Plugins { list: list.value().clone(), result: Some(result) };
        let inner = self.inner.clone();
        blocking(move || inner.remember(record)).await?;
        Ok(ips)
    }
}

impl Inner {
    fn open(config: Config) -> Result<Self> {
        let state = |what: &'static str| move |e| Error::State(what.into(), e);
        linux::netlink::route::valid_name(&interface_name(&config.interface_prefix, ""))
            .map_err(|e| built_in("")(e.into()))?;
        let records = Records::open(&config.state_dir).map_err(state("open the network's state"))?;
        let sandboxes: HashMap<_, _> = records
            .load()
            .map_err(state("read the network's state"))?
            .into_iter()
            .map(|r| (r.id.clone(), r))
            .collect();
        let host = Host(
            config
                .host_netns
                .as_ref()
                .map(Netns::open)
                .transpose()
                .map_err(state("open the node's namespace"))?,
        );
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => host.mtu().map_err(built_in(""))?,
        };
        let cidrs = read_cidrs(&config);
        let inner = Self {
            plugins: Plugins::new(config.conf_dir.clone(), config.bin_dirs.clone()),
            records,
            host,
            mtu,
            state: std::sync::Mutex::new(State { ipam: Ipam::default(), sandboxes, filter: None }),
            locks: Default::default(),
            config,
        };
        if !cidrs.is_empty() {
            inner.set_pod_cidrs(&cidrs)?;
        }
        Ok(inner)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn forget_lock(&self, id: &str) {
        let mut locks = self.locks.lock().unwrap_or_else(|e| e.into_inner());
        if locks.get(id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(id);
        }
    }

    fn set_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<()> {
        let mut state = self.state();
        if state.filter.is_some() && state.ipam.cidrs() == cidrs {
            return Ok(());
        }
        let ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
        self.host.enable_forwarding(ipv6 && cidrs.iter().any(|c| c.ip.is_ipv6())).map_err(built_in(""))?;
        let state = &mut *state;
        let taken: Vec<_> =
            state.sandboxes.values().filter(|r| is_built_in(r)).flat_map(|r| r.ips.clone()).collect();
        state.ipam.set_ranges(cidrs, taken);
        let filter = match &mut state.filter {
            Some(filter) => filter,
            None => {
                let open = || {
                    let mut filter = PacketFilter::open(
                        self.host.nft()?,
                        &self.config.table,
                        &self.config.interface_prefix,
                        ipv6,
                    )?;
                    let built_in = state.sandboxes.values().filter(|r| is_built_in(r));
                    filter.set_pods(built_in.map(|r| (&r.ips[..], &r.port_mappings[..])))?;
                    Ok(filter)
                };
                state.filter.insert(open().map_err(|e: linux::netlink::Error| built_in("")(e.into()))?)
            }
        };
        filter.set_cidrs(cidrs, &self.config.cluster_cidrs).map_err(|e| built_in("")(e.into()))?;
        write_cidrs(&self.config, cidrs).map_err(|e| Error::State("remember the pod CIDRs".into(), e))
    }

    fn remember(&self, record: Record) -> Result<()> {
        self.records.save(&record).map_err(|e| Error::State(format!("remember sandbox {}", record.id), e))?;
        self.state().sandboxes.insert(record.id.clone(), record);
        Ok(())
    }

    /// The built-in network's share of `setup`.
    fn setup(&self, sandbox: &Sandbox, known: Option<Record>) -> Result<PodIps> {
        let fail = || built_in(&sandbox.id);
        let record = match known.filter(is_built_in) {
            Some(record) => record,
            None => {
                let interface = interface_name(&self.config.interface_prefix, &sandbox.id);
                let mut record = record(sandbox, By::BuiltIn { interface });
                record.ips = {
                    let mut state = self.state();
                    if state.ipam.cidrs().is_empty() {
                        return Err(fail()(builtin::Error::NoRange));
                    }
                    state.ipam.allocate().map_err(|cidr| fail()(builtin::Error::Full(cidr)))?
                };
                // On disk before it is in the kernel; if that fails, nobody has it.
                if let Err(error) = self.remember(record.clone()) {
                    record.ips.iter().for_each(|ip| self.state().ipam.release(*ip));
                    return Err(error);
                }
                record
            }
        };
        let outcome = self.make(&record);
        if outcome.is_err() {
            // The first failure is the one to tell; what cannot be undone now is undone by the next teardown.
            let _ = self.teardown(&record);
        }
        outcome.map_err(fail())
    }

    fn make(&self, record: &Record) -> Result<PodIps, builtin::Error> {
        let veth = self.veth(record);
        let pod = Netns::open(&record.netns)
            .map_err(|e| builtin::Error::Io(format!("failed to open netns {:?}", record.netns), e))?;
        veth.make(&self.host, &pod)?;
        if !record.port_mappings.is_empty()
            && let Some(filter) = &mut self.state().filter
        {
            filter.add_pod(&record.ips, &record.port_mappings)?;
        }
        Ok(PodIps(record.ips.clone()))
    }

    fn veth<'a>(&'a self, record: &'a Record) -> Veth<'a> {
        let interface = match &record.by {
            By::BuiltIn { interface } => interface.as_str(),
            By::Plugins { .. } => "",
        };
        Veth { interface, ips: &record.ips, mtu: self.mtu, node_ips: &self.config.node_ips }
    }

    /// The kernel first, then the disk, then the memory: an address is free only when nothing holds it.
    fn teardown(&self, record: &Record) -> Result<()> {
        let fail = || built_in(&record.id);
        if is_built_in(record) {
            if !record.port_mappings.is_empty()
                && let Some(filter) = &mut self.state().filter
            {
                filter.remove_pod(&record.ips, &record.port_mappings).map_err(|e| fail()(e.into()))?;
            }
            self.veth(record).remove(&self.host).map_err(fail())?;
        }
        self.records
            .remove(&record.id)
            .map_err(|e| Error::State(format!("forget sandbox {}", record.id), e))?;
        let mut state = self.state();
        state.sandboxes.remove(&record.id);
        if is_built_in(record) {
            record.ips.iter().for_each(|ip| state.ipam.release(*ip));
        }
        Ok(())
    }
}

fn is_built_in(record: &Record) -> bool {
    matches!(record.by, By::BuiltIn { .. })
}

fn record(sandbox: &Sandbox, by: By) -> Record {
    Record {
        id: sandbox.id.clone(),
        namespace: sandbox.namespace.clone(),
        name: sandbox.name.clone(),
        uid: sandbox.uid.clone(),
        netns: sandbox.netns.clone(),
        ips: Vec::new(),
        port_mappings: sandbox.port_mappings.clone(),
        by,
    }
}

fn invocation(record: &Record) -> plugin::Invocation {
    plugin::Invocation {
        container_id: record.id.clone(),
        netns: record.netns.clone(),
        args: vec![
            ("IgnoreUnknown".into(), "1".into()),
            ("K8S_POD_NAMESPACE".into(), record.namespace.clone()),
            ("K8S_POD_NAME".into(), record.name.clone()),
            ("K8S_POD_INFRA_CONTAINER_ID".into(), record.id.clone()),
            ("K8S_POD_UID".into(), record.uid.clone()),
        ],
        port_mappings: record.port_mappings.clone(),
    }
}

fn built_in(sandbox: &str) -> impl FnOnce(builtin::Error) -> Error {
    let sandbox = sandbox.to_owned();
    |source| Error::BuiltIn { sandbox, source }
}

fn cidrs_file(config: &Config) -> PathBuf {
    config.state_dir.join("pod-cidrs")
}

fn read_cidrs(config: &Config) -> Vec<Cidr> {
    let text = std::fs::read_to_string(cidrs_file(config)).unwrap_or_default();
    text.split_whitespace().filter_map(|c| c.parse().ok()).collect()
}

fn write_cidrs(config: &Config, cidrs: &[Cidr]) -> std::io::Result<()> {
    let text: Vec<_> = cidrs.iter().map(Cidr::to_string).collect();
    let temporary = config.state_dir.join("pod-cidrs.tmp");
    std::fs::write(&temporary, text.join("\n"))?;
    std::fs::rename(temporary, cidrs_file(config))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Error::State("network thread".into(), std::io::Error::other(error))),
    }
}
