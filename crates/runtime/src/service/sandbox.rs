//! Making, starting, stopping, removing sandboxes: the pod's files, its shim with the namespaces, its network.
//! Each step leaves only what `clean_up` finds by the record, which is written first.

use super::events::PodListener;
use super::{Container, Inner, Sandbox, blocking, container, io_error, write_file};
use crate::config::NetworkSandbox;
use crate::disk;
use crate::record::{Phase, SANDBOX_FILE, SandboxRecord, new_id, now, save};
use crate::shims::Shim;
use crate::spec;
use cri::v1::*;
use cri::{Error, Result};
use linux::cgroup::Cgroup;
use linux::netns::Netns;
use shim::protocol::{self, Exit, PidMode, Reply, Request, SandboxSpec, State};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long killed processes may take to die.
pub(super) const DYING: Duration = Duration::from_secs(20);
/// containerd's default for a sandbox.
const SHM: &str = "mode=1777,size=67108864";

pub(super) async fn run(inner: Arc<Inner>, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse> {
    let config = request.config.ok_or_else(|| Error::invalid_argument("sandbox config must not be nil"))?;
    let metadata = config.metadata.clone();
    let metadata = metadata.ok_or_else(|| Error::invalid_argument("sandbox config must include metadata"))?;
    if !request.runtime_handler.is_empty() {
        let handler = &request.runtime_handler;
        return Err(Error::unknown(format!("no runtime for {handler:?} is configured")));
    }
    check_users(&config)?;
    let PodSandboxMetadata { name, uid, namespace, attempt } = metadata;
    let id = new_id();
    inner.reserve("sandbox", &format!("{name}_{namespace}_{uid}_{attempt}"), &id)?;
    let _turn = inner.turns.lock(&id).await;
    let result = begin(&inner, &id, config).await;
    match result {
        Ok(sandbox) => {
            inner.tell_sandbox(&sandbox, ContainerEventType::ContainerStartedEvent);
            Ok(RunPodSandboxResponse { pod_sandbox_id: id })
        }
        Err(error) => {
            let sandbox = inner.sandbox(&id);
            if let Ok(sandbox) = sandbox {
                if let Err(error) = destroy(&inner, &sandbox).await {
                    // The record says `Creating`: the next start tries again.
                    tracing::warn!(sandbox = %id, %error, "a sandbox that could not be made left something behind");
                }
                inner.sandboxes.lock().remove(&id);
            }
            inner.release(&id);
            Err(error)
        }
    }
}

/// As containerd: a pod's user namespace is its own or the node's, and a single mapping that has root in it.
fn check_users(config: &PodSandboxConfig) -> Result<()> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    let Some(users) = options.and_then(|options| options.userns_options.as_ref()) else { return Ok(()) };
    let invalid = |why: String| Err(Error::invalid_argument(format!("user namespace: {why}")));
    match users.mode() {
        NamespaceMode::Node if users.uids.is_empty() && users.gids.is_empty() => return Ok(()),
        NamespaceMode::Node => return invalid("the node's has no mappings to choose".into()),
        NamespaceMode::Pod => {}
        other => return invalid(format!("mode {} is not supported", other.as_str_name())),
    }
    for (kind, maps) in [("uid", &users.uids), ("gid", &users.gids)] {
        match maps.as_slice() {
            [map] if map.container_id == 0 && map.length > 0 => {}
            [_] => return invalid(format!("the {kind} mapping must begin with 0")),
            _ => return invalid(format!("there must be one {kind} mapping, not {}", maps.len())),
        }
    }
    if users.uids != users.gids {
        return invalid("uid and gid mappings must be the same".into());
    }
    Ok(())
}

async fn begin(inner: &Arc<Inner>, id: &str, config: PodSandboxConfig) -> Result<Arc<Sandbox>> {
    let parent = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
    let cgroup_parent = match parent {
        "" => inner.config.cgroup_root.clone(),
        parent => parent.to_owned(),
    };
    let record = SandboxRecord {
        id: id.to_owned(),
        phase: Phase::Creating,
        config,
        handler: String::new(),
        created_at: now(),
        // Sockets beneath have short paths.
        run_dir: inner.config.run_dir.join("pods").join(&id[..20]),
        cgroup_parent,
        ips: Vec::new(),
        boot: inner.boot.clone(),
    };
    let dir = inner.sandboxes_dir().join(id);
    let (made, first) = (dir.clone(), record.clone());
    blocking(move || {
        disk::make_dir(&made)
            .and_then(|()| save(&made, SANDBOX_FILE, &first))
            .map_err(io_error("writing the sandbox's record"))
    })
    .await?;
    let sandbox = Arc::new(Sandbox::new(dir, record.clone()));
    inner.sandboxes.lock().insert(id.to_owned(), sandbox.clone());

    let (spec, group) = shim_spec(inner, &record)?;
    let shim_group = inner.shim_group()?;
    let work = (inner.clone(), sandbox.clone());
    blocking(move || prepare(&work.0, &work.1, group.as_ref(), &shim_group)).await?;
    let listener =
        || Arc::new(PodListener { inner: Arc::downgrade(inner), sandbox: id.to_owned() }) as Arc<_>;
    let (shim, _) = Shim::connect(&record.run_dir, listener).await.map_err(failure)?;
    *sandbox.shim.lock() = Some(shim.clone());
    let own_network = !spec::on_host_network(&record.config);
    // With a user namespace the shim makes the network namespace, which then is configured.
    let in_userns = spec.user.is_some();
    let namespaces = async {
        shim.ask(Request::CreateSandbox(spec)).await.map_err(failure)?;
        Ok::<_, Error>(())
    };
    let network = async {
        match (own_network, &inner.config.network) {
            (true, Some(network)) => {
                let setup = network.setup(&network_sandbox(&record)).await;
                setup.map_err(|why| {
                    Error::unknown(format!("failed to setup network for sandbox {id:?}: {why}"))
                })
            }
            _ => Ok(Vec::new()),
        }
    };
    let ips = if in_userns {
        namespaces.await?;
        if own_network {
            let netns = sandbox.netns();
            blocking(move || loopback_up(&netns)).await?;
        }
        network.await?
    } else {
        // Both are let finish: what one has made is not undone under the other's feet.
        let (namespaces, network) = tokio::join!(namespaces, network);
        namespaces?;
        network?
    };
    sandbox.update(|record| {
        record.phase = Phase::Ready;
        record.ips = ips;
    })?;
    Ok(sandbox)
}

/// What can be done before the shim is asked: files, cgroups, the network namespace, the shim itself.
fn prepare(inner: &Inner, sandbox: &Sandbox, group: Option<&Cgroup>, shim_group: &Cgroup) -> Result<()> {
    let record = sandbox.record();
    let config = &record.config;
    let run = &record.run_dir;
    disk::make_dir(&run.join("ns")).map_err(io_error("making the sandbox's run directory"))?;
    if !config.log_directory.is_empty() {
        std::fs::create_dir_all(&config.log_directory).map_err(io_error("making the log directory"))?;
    }
    let hostname = hostname(config);
    write_file(&sandbox.dir.join("hostname"), &format!("{hostname}\n"))?;
    let host_file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    write_file(&sandbox.dir.join("hosts"), &host_file("/etc/hosts"))?;
    let resolv = match &config.dns_config {
        Some(dns) => resolv_conf(dns)?,
        None => host_file("/etc/resolv.conf"),
    };
    write_file(&sandbox.dir.join("resolv.conf"), &resolv)?;
    if !uses_host(config, |options| options.ipc()) {
        let shm = run.join("shm");
        disk::make_dir(&shm).map_err(io_error("making /dev/shm"))?;
        linux::mount::tmpfs(&shm, SHM).map_err(io_error("mounting /dev/shm"))?;
    }
    if !spec::on_host_network(config) && spec::user_namespace(config).is_none() {
        // With its loopback up.
        Netns::create_at(run.join("ns/net")).map_err(io_error("making a network namespace"))?;
    }
    if let Some(group) = group {
        group.create().map_err(io_error(format!("making cgroup {}", group.path())))?;
    }
    shim_group.create().map_err(io_error(format!("making cgroup {}", shim_group.path())))?;
    linux::steps::step("starting a shim");
    let options = shim::spawn::Options { dir: run, cgroups: &shim_group.dirs() };
    inner.program.start(&options).map_err(io_error("starting the pod's shim"))
}

fn uses_host(config: &PodSandboxConfig, mode: impl Fn(&NamespaceOption) -> NamespaceMode) -> bool {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    options.is_some_and(|options| mode(options) == NamespaceMode::Node)
}

/// The pod's, or this machine's for pods on its network.
pub(super) fn hostname(config: &PodSandboxConfig) -> String {
    if !config.hostname.is_empty() {
        return config.hostname.clone();
    }
    let own = rustix::system::uname();
    own.nodename().to_string_lossy().into_owned()
}

fn resolv_conf(dns: &DnsConfig) -> Result<String> {
    // A line break would start a directive of its own.
    let all = dns.servers.iter().chain(&dns.searches).chain(&dns.options);
    if let Some(bad) = all.clone().find(|word| word.chars().any(|c| c == '\n' || c == '\r')) {
        return Err(Error::invalid_argument(format!("invalid DNS configuration {bad:?}")));
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    Ok(text)
}

/// What the shim makes, and the cgroup of the pod's PID 1 if there is one.
fn shim_spec(inner: &Inner, record: &SandboxRecord) -> Result<(SandboxSpec, Option<Cgroup>)> {
    let config = &record.config;
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let options = security.namespace_options.unwrap_or_default();
    let on_host = options.network() == NamespaceMode::Node;
    let pin = |kind: &str| record.run_dir.join("ns").join(kind).to_string_lossy().into_owned();
    let users = spec::user_namespace(config);
    let map = |map: &IdMapping| protocol::IdMap {
        container: map.container_id,
        host: map.host_id,
        length: map.length,
    };
    let pid = match options.pid() {
        NamespaceMode::Pod => PidMode::Pod,
        NamespaceMode::Node => PidMode::Host,
        NamespaceMode::Container | NamespaceMode::Target => PidMode::Container,
    };
    let mut sysctls: Vec<(String, String)> = linux.sysctls.into_iter().collect();
    sysctls.sort();
    if !on_host && users.is_none() {
        // As containerd by default: no capability is needed for low ports and ping.
        for (name, value) in
            [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
        {
            if !sysctls.iter().any(|(given, _)| given == name) {
                sysctls.push((name.into(), value.into()));
            }
        }
    }
    let group = match pid {
        PidMode::Pod => Some(inner.group(&format!("{}/{}", record.cgroup_parent, record.id))?),
        _ => None,
    };
    let spec = SandboxSpec {
        id: record.id.clone(),
        hostname: if on_host { String::new() } else { hostname(config) },
        network: match (on_host, users) {
            (true, _) => protocol::Namespace::Host,
            (false, Some(_)) => protocol::Namespace::Create(pin("net")),
            (false, None) => protocol::Namespace::Path(pin("net")),
        },
        ipc: match options.ipc() {
            NamespaceMode::Node => protocol::Namespace::Host,
            _ => protocol::Namespace::Create(pin("ipc")),
        },
        uts: if on_host { protocol::Namespace::Host } else { protocol::Namespace::Create(pin("uts")) },
        pid,
        user: users.map(|users| protocol::UserNamespace {
            path: pin("user"),
            uids: users.uids.iter().map(map).collect(),
            gids: users.gids.iter().map(map).collect(),
        }),
        sysctls,
        cgroup: group.as_ref().map(spec::cgroup).unwrap_or_default(),
    };
    Ok((spec, group))
}

fn loopback_up(netns: &Path) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::unknown(format!("bringing the loopback up: {error}"));
    let netns = Netns::open(netns).map_err(|error| failed(&error))?;
    let mut routing = linux::netlink::route::Routing::open_in(&netns).map_err(|error| failed(&error))?;
    match routing.link("lo").map_err(|error| failed(&error))? {
        Some(lo) => routing.set_up(lo.index).map_err(|error| failed(&error)),
        None => Ok(()),
    }
}

fn network_sandbox(record: &SandboxRecord) -> NetworkSandbox {
    let metadata = record.config.metadata.clone().unwrap_or_default();
    let mappings = record.config.port_mappings.iter().filter(|mapping| mapping.host_port > 0);
    NetworkSandbox {
        id: record.id.clone(),
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        netns: record.run_dir.join("ns/net"),
        port_mappings: mappings.cloned().collect(),
        annotations: record.config.annotations.clone(),
    }
}

/// A failure of the shim as an error of the call.
pub(super) fn failure(failure: protocol::Failure) -> Error {
    match failure.kind {
        protocol::FailureKind::NotFound => Error::not_found(failure.message),
        protocol::FailureKind::InvalidState => Error::failed_precondition(failure.message),
        _ => Error::unknown(failure.message),
    }
}

pub(super) async fn stop(inner: Arc<Inner>, id: String) -> Result<()> {
    let sandbox = match inner.sandbox(&id) {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    let _turn = inner.turns.lock(&sandbox.id).await;
    end(&inner, &sandbox).await
}

/// Stops it, whatever state it is in. A second time there is nothing to do.
async fn end(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<()> {
    let before = sandbox.phase();
    if before == Phase::Ready {
        sandbox.end(Phase::Stopping)?;
    }
    clean_up(inner, sandbox).await?;
    if !matches!(before, Phase::NotReady | Phase::Removing) {
        sandbox.end(Phase::NotReady)?;
        inner.tell_sandbox(sandbox, ContainerEventType::ContainerStoppedEvent);
    }
    Ok(())
}

/// Ends every process and takes away everything but records, writable layers and logs.
async fn clean_up(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<()> {
    let record = sandbox.record();
    let shim = sandbox.shim.lock().take();
    if let Some(shim) = shim
        && let Err(failure) = shim.ask(Request::Shutdown).await
    {
        tracing::warn!(sandbox = %sandbox.id, error = %failure.message, "the shim did not shut down");
    }
    bury(inner, sandbox, "").await?;
    if !record.run_dir.exists() {
        return Ok(());
    }
    if !spec::on_host_network(&record.config)
        && let Some(network) = &inner.config.network
    {
        let torn = network.teardown(&network_sandbox(&record)).await;
        torn.map_err(|why| {
            Error::unknown(format!("failed to destroy network for sandbox {:?}: {why}", sandbox.id))
        })?;
    }
    let run_dir = record.run_dir.clone();
    blocking(move || remove_run_dir(&run_dir)).await
}

/// Kills what is left of a pod whose shim is gone, and gives every container an exit.
async fn bury(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, why: &str) -> Result<()> {
    let record = sandbox.record();
    let containers = inner.containers_of(&sandbox.id);
    let own = inner.group(&format!("{}/{}", record.cgroup_parent, record.id))?;
    let mut groups = vec![own];
    for container in &containers {
        groups.push(inner.group(&container.record().cgroup)?);
    }
    blocking(move || {
        for group in groups.iter().filter(|group| group.exists()) {
            let failed = |error| io_error(format!("ending the processes of {}", group.path()))(error);
            if !group.kill(DYING).map_err(failed)? {
                return Err(Error::unknown(format!("processes of {} do not die", group.path())));
            }
            group.remove().map_err(io_error(format!("removing cgroup {}", group.path())))?;
        }
        Ok(())
    })
    .await?;
    for container in containers {
        let was_started = container.live().started_at;
        if container.live().exit.is_none() && (was_started != 0 || container.phase() == Phase::Ready) {
            let exit = last_words(&container, was_started, why);
            inner.exited(&container, exit);
        }
    }
    Ok(())
}

/// What the shim has recorded; else that it was killed.
fn last_words(container: &Container, started_at: i64, why: &str) -> Exit {
    let path = container.dir.join(protocol::EXIT_FILE);
    if let Ok(Some(exit)) = disk::read_json::<Exit>(&path) {
        return exit;
    }
    let exit = Exit {
        code: 137,
        signal: libc::SIGKILL,
        started_at,
        finished_at: now(),
        message: why.to_owned(),
        ..Default::default()
    };
    if let Err(error) = disk::write_json(&path, &exit, disk::Durability::Crash) {
        tracing::warn!(container = %container.id, %error, "could not record an exit");
    }
    exit
}

/// The shim or the pod's PID 1 is gone: nothing of the pod may go on, and its containers have failed.
pub(super) async fn died(inner: Arc<Inner>, sandbox: Arc<Sandbox>) {
    let _turn = inner.turns.lock(&sandbox.id).await;
    if !sandbox.is_ready() {
        return;
    }
    // Before any exit is told: whoever hears of one must not try to go on in this sandbox.
    if let Err(error) = sandbox.end(Phase::Stopping) {
        tracing::error!(sandbox = %sandbox.id, %error, "could not record that a pod dies");
    }
    let shim = sandbox.shim.lock().take();
    if let Some(shim) = shim {
        // The shim may live if only PID 1 has gone.
        let _ = shim.ask(Request::Shutdown).await;
    }
    if let Err(error) = bury(&inner, &sandbox, "the pod's shim has died").await {
        tracing::error!(sandbox = %sandbox.id, %error, "could not end what is left of a pod");
    }
    match sandbox.end(Phase::NotReady) {
        Ok(_) => inner.tell_sandbox(&sandbox, ContainerEventType::ContainerStoppedEvent),
        Err(error) => tracing::error!(sandbox = %sandbox.id, %error, "could not record that a pod has died"),
    }
}

/// Unpins namespaces, unmounts, removes.
pub(super) fn remove_run_dir(run_dir: &Path) -> Result<()> {
    let known = ["ns/net", "ns/ipc", "ns/uts", "ns/user", "ns/pid", "shm"];
    let targets: Vec<PathBuf> = known.iter().map(|name| run_dir.join(name)).collect();
    for target in &targets {
        linux::mount::unmount(target).map_err(io_error(format!("unmounting {}", target.display())))?;
    }
    disk::remove_all(run_dir).map_err(io_error(format!("removing {}", run_dir.display())))
}

pub(super) async fn remove(inner: Arc<Inner>, id: String) -> Result<()> {
    let sandbox = match inner.sandbox(&id) {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    let _turn = inner.turns.lock(&sandbox.id).await;
    if inner.sandbox(&sandbox.id).is_err() {
        return Ok(());
    }
    end(&inner, &sandbox).await?;
    for container in inner.containers_of(&sandbox.id) {
        container::remove(inner.clone(), container.id.clone()).await?;
    }
    destroy(&inner, &sandbox).await?;
    inner.tell_sandbox(&sandbox, ContainerEventType::ContainerDeletedEvent);
    inner.sandboxes.lock().remove(&sandbox.id);
    inner.release(&sandbox.id);
    Ok(())
}

/// Takes away all of it, the record last.
pub(super) async fn destroy(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<()> {
    if sandbox.phase() != Phase::Creating {
        sandbox.end(Phase::Removing)?;
    }
    clean_up(inner, sandbox).await?;
    let dir = sandbox.dir.clone();
    blocking(move || disk::remove_all(&dir).map_err(io_error("removing the sandbox's directory"))).await
}

/// Takes over a sandbox from before; false if its shim is gone.
pub(super) async fn adopt(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Option<State> {
    let id = sandbox.id.clone();
    let listener = || Arc::new(PodListener { inner: Arc::downgrade(inner), sandbox: id }) as Arc<_>;
    match Shim::connect(&sandbox.record().run_dir, listener).await {
        Ok((shim, state)) if state.sandbox.as_ref().is_some_and(|state| state.ready) => {
            *sandbox.shim.lock() = Some(shim);
            Some(state)
        }
        Ok((shim, _)) => {
            *sandbox.shim.lock() = Some(shim);
            None
        }
        Err(failure) => {
            tracing::error!(sandbox = %sandbox.id, error = %failure.message, "the shim of a pod is gone");
            None
        }
    }
}

impl Inner {
    /// Where shims live: neither with the daemon nor with any pod.
    pub(crate) fn shim_group(&self) -> Result<Cgroup> {
        self.group(&format!("{}/shim", self.config.cgroup_root))
    }

    pub(crate) fn group(&self, path: &str) -> Result<Cgroup> {
        self.cgroups.group(path).map_err(|error| Error::invalid_argument(error.to_string()))
    }
}

/// What a call that starts something is answered with.
pub(super) fn expect_started(reply: Reply) -> Result<(i32, i64)> {
    match reply {
        Reply::Started { pid, at } => Ok((pid, at)),
        other => Err(Error::internal(format!("unexpected answer of the shim: {other:?}"))),
    }
}
