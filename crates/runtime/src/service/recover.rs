//! The start: records are read; what was half made is undone, what was half removed is finished; shims that live are
//! adopted with their containers, exits of the meantime are taken note of; of a pod without its shim nothing is left.

use super::sandbox::{adopt, died};
use super::{Container, Inner, Runtime, Sandbox, container, events, io_error, sandbox};
use crate::config::Config;
use crate::disk;
use crate::images::Images;
use crate::keyed::Keyed;
use crate::record::{self, CONTAINER_FILE, ContainerRecord, Phase, SANDBOX_FILE, SandboxRecord};
use cri::{Error, Result};
use linux::cgroup::Cgroups;
use parking_lot::Mutex;
use shim::protocol::{EXIT_FILE, Exit, State, Status};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::broadcast;

/// What the paths of sockets leave for the run directory.
const MAX_RUN_DIR: usize = 50;

impl Runtime {
    /// Opens the runtime: adopts what runs, finishes what a crash has left half done. One per data directory.
    pub async fn open(config: Config) -> Result<Runtime> {
        if config.run_dir.as_os_str().len() > MAX_RUN_DIR {
            let path = config.run_dir.display();
            return Err(Error::invalid_argument(format!(
                "run directory {path} is longer than {MAX_RUN_DIR} bytes"
            )));
        }
        let (inner, containers) = super::blocking(move || prepare(config)).await?;
        let inner = Arc::new(inner);
        let records: Vec<Arc<Sandbox>> = inner.sandboxes.lock().values().cloned().collect();
        // Each pod on its own: one that is stuck does not keep the others waiting.
        let pods = records.into_iter().map(|sandbox| {
            let of_sandbox = containers.get(&sandbox.id).cloned().unwrap_or_default();
            tokio::spawn(recover(inner.clone(), sandbox, of_sandbox))
        });
        for pod in futures::future::join_all(pods).await {
            pod.map_err(|error| Error::internal(error.to_string()))?;
        }
        // Containers of sandboxes that no longer are.
        let orphans: Vec<Arc<Container>> = {
            let known = inner.sandboxes.lock();
            containers.into_values().flatten().filter(|c| !known.contains_key(&c.sandbox)).collect()
        };
        for orphan in orphans {
            give_up(&inner, &orphan).await;
        }
        Ok(Runtime { inner })
    }
}

type ContainersBySandbox = HashMap<String, Vec<Arc<Container>>>;

fn prepare(config: Config) -> Result<(Inner, ContainersBySandbox)> {
    disk::make_dir(&config.data_dir).map_err(io_error("making the data directory"))?;
    lock(&config)?;
    for dir in
        [config.data_dir.join("sandboxes"), config.data_dir.join("containers"), config.run_dir.join("pods")]
    {
        disk::make_dir(&dir).map_err(io_error(format!("making {}", dir.display())))?;
    }
    let load = io_error("reading records");
    let (sandboxes, broken) =
        record::load_all::<SandboxRecord>(&config.data_dir.join("sandboxes"), SANDBOX_FILE).map_err(load)?;
    let load = io_error("reading records");
    let (containers, broken_containers) =
        record::load_all::<ContainerRecord>(&config.data_dir.join("containers"), CONTAINER_FILE)
            .map_err(load)?;
    for dir in broken.iter().chain(&broken_containers) {
        // Records come first and go last: there was nothing beside.
        disk::remove_all(dir).map_err(io_error(format!("removing {}", dir.display())))?;
    }
    let pins = containers.iter().map(|record| (record.id.clone(), record.chain.clone())).collect();
    let images =
        Images::open(&config.data_dir.join("images"), config.limits, config.registries.clone(), pins)?;
    let boot = record::boot_id();
    let program = shim::spawn::Program::new(crate::SHIM).map_err(io_error("loading the shim"))?;
    let user_namespaces = match program.probe_idmap(&config.data_dir) {
        Ok(()) => true,
        Err(error) => {
            tracing::info!(%error, "pods cannot have user namespaces here");
            false
        }
    };
    let cgroups = Cgroups::detect().map_err(io_error("finding the cgroups"))?;
    let inner = Inner {
        images: Arc::new(images),
        cgroups,
        program,
        boot,
        user_namespaces,
        sandboxes: Mutex::default(),
        containers: Mutex::default(),
        names: Mutex::default(),
        turns: Keyed::default(),
        events: broadcast::channel(events::BACKLOG).0,
        door: std::sync::OnceLock::new(),
        config,
    };
    let mut of_sandbox = ContainersBySandbox::new();
    for record in sandboxes {
        let meta = record.config.metadata.clone().unwrap_or_default();
        let name = format!("{}_{}_{}_{}", meta.name, meta.namespace, meta.uid, meta.attempt);
        let sandbox = Sandbox::new(inner.sandboxes_dir().join(&record.id), record);
        inner.names.lock().insert(format!("sandbox {name}"), sandbox.id.clone());
        inner.sandboxes.lock().insert(sandbox.id.clone(), Arc::new(sandbox));
    }
    for record in containers {
        let container = Arc::new(Container::new(inner.containers_dir().join(&record.id), record));
        if let Ok(sandbox) = inner.sandbox(&container.sandbox) {
            let pod = sandbox.record().config.metadata.clone().unwrap_or_default();
            let meta = container.record().config.metadata.clone().unwrap_or_default();
            let name = format!("{}_{}_{}_{}_{}", meta.name, pod.name, pod.namespace, pod.uid, meta.attempt);
            inner.names.lock().insert(format!("container {name}"), container.id.clone());
        }
        // An exit that was recorded is final, whoever else may be asked.
        if let Ok(Some(exit)) = disk::read_json::<Exit>(&container.dir.join(EXIT_FILE)) {
            container.set_exited(exit);
        }
        inner.containers.lock().insert(container.id.clone(), container.clone());
        of_sandbox.entry(container.sandbox.clone()).or_default().push(container);
    }
    Ok((inner, of_sandbox))
}

/// Two runtimes on one directory would fight. The lock is the process's: held until it ends.
fn lock(config: &Config) -> Result<()> {
    use rustix::fs::{FlockOperation, Mode, OFlags};
    static HELD: Mutex<BTreeMap<std::path::PathBuf, OwnedFd>> = Mutex::new(BTreeMap::new());
    let path = config.data_dir.join("lock");
    let mut held = HELD.lock();
    if held.contains_key(&path) {
        return Ok(());
    }
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| io_error("opening the lock")(error.into()))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::failed_precondition(format!("another runtime uses {}", config.data_dir.display()))
    })?;
    held.insert(path, file);
    Ok(())
}

async fn recover(inner: Arc<Inner>, sandbox: Arc<Sandbox>, containers: Vec<Arc<Container>>) {
    let record = sandbox.record();
    match record.phase {
        Phase::Creating | Phase::Removing => {
            for container in containers {
                give_up(&inner, &container).await;
            }
            // A shim that lives is told to end its pod.
            adopt(&inner, &sandbox).await;
            match sandbox::destroy(&inner, &sandbox).await {
                Ok(()) => {
                    inner.sandboxes.lock().remove(&sandbox.id);
                    inner.release(&sandbox.id);
                }
                Err(error) => {
                    tracing::error!(sandbox = %sandbox.id, %error, "could not undo a half-made sandbox");
                }
            }
            return;
        }
        Phase::Ready if record.boot == inner.boot => match adopt(&inner, &sandbox).await {
            Some(state) => apply(&inner, &containers, state),
            None => {
                mark_started(&containers);
                died(inner.clone(), sandbox.clone()).await;
            }
        },
        Phase::Ready | Phase::Stopping => {
            // Of another boot, or on its way out: nobody is left who would know.
            mark_lost(&inner, &record, &containers);
            adopt(&inner, &sandbox).await;
            if let Err(error) = sandbox::stop(inner.clone(), sandbox.id.clone()).await {
                tracing::error!(sandbox = %sandbox.id, %error, "could not stop a pod of before");
            }
        }
        Phase::NotReady => {}
    }
    for container in containers {
        if matches!(container.phase(), Phase::Creating | Phase::Removing) {
            give_up(&inner, &container).await;
        }
    }
}

/// The shim's word about containers.
fn apply(inner: &Inner, containers: &[Arc<Container>], state: State) {
    for container in containers.iter().filter(|container| container.phase() == Phase::Ready) {
        let known = state.containers.iter().find(|state| state.id == container.id);
        match known {
            Some(state) if state.status == Status::Running => {
                inner.started(container, state.pid, state.started_at)
            }
            Some(state) if state.status == Status::Exited => {
                container.set_exited(state.exit.clone().unwrap_or_default());
            }
            Some(_) => {}
            None => {
                container.set_exited(lost(container));
            }
        }
    }
}

/// Containers of a shim that cannot be asked: were they ever started, they have failed; `died` finds the exits.
fn mark_started(containers: &[Arc<Container>]) {
    for container in containers.iter().filter(|container| container.phase() == Phase::Ready) {
        let created = container.record().created_at;
        container.set_started(0, created);
    }
}

fn mark_lost(inner: &Inner, sandbox: &SandboxRecord, containers: &[Arc<Container>]) {
    if sandbox.boot != inner.boot {
        for container in containers {
            container.set_exited(lost(container));
        }
    }
}

/// As containerd has it for a container whose end nobody has seen.
fn lost(container: &Container) -> Exit {
    Exit {
        code: 255,
        started_at: container.record().created_at,
        finished_at: record::now(),
        message: "the container's end was not seen".into(),
        ..Default::default()
    }
}

/// Removes a container that was half made or half removed.
async fn give_up(inner: &Arc<Inner>, container: &Arc<Container>) {
    match container::destroy(inner, container).await {
        Ok(()) => {
            inner.containers.lock().remove(&container.id);
            inner.release(&container.id);
        }
        Err(error) => {
            tracing::error!(container = %container.id, %error, "could not remove what is left of a container");
        }
    }
}
