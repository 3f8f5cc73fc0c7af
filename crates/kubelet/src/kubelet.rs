//! The kubelet put together: what it needs is given, what it does is a handful of tasks that end with the shutdown token.

use crate::cgroups::Cgroups;
use crate::claims::Claims;
use crate::config::Config;
use crate::context::{Context, RuntimeInfo};
use crate::cpus::Cpus;
use crate::devices::Devices;
use crate::error::Error;
use crate::events::Events;
use crate::images::providers::Providers;
use crate::images::records::Records;
use crate::images::verification::Verification;
use crate::images::{Images, gc};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::node::machine::Machine;
use crate::node::{self, report};
use crate::objects::Objects;
use crate::pods::Pods;
use crate::server;
use crate::topology::Topology;
use crate::topology::numa::Numa;
use crate::user_namespaces::UserNamespaces;
use crate::volumes::Volumes;
use crate::{
    certificates, claims, devices, eviction, logs, node_shutdown, orphans, plugins, pod_resources,
    pod_source, runtime_events,
};
use api::core::v1::Node;
use client::{Client, Informers, Recorder};
use cri::observed::Observed;
use cri::{ImageService, RuntimeService, Streams};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a kubelet is made of.
pub struct Parts {
    /// Speaks as `system:node:<name>`.
    pub client: Client,
    /// Of the same user.
    pub informers: Informers,
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
    /// Exec, attach and port-forward of a runtime in this process; without it the runtime's own URLs are used.
    pub streams: Option<Arc<dyn Streams>>,
    /// The server's certificate, and whom it believes; without it no server is started.
    pub serving: Option<server::Serving>,
    /// What the node calls with at first, where its certificate to call with is renewed.
    pub bootstrap: Option<certificates::Pair>,
    /// Where that certificate is taken from; without it, nobody calls with it.
    pub calling: Option<certificates::Calling>,
}

/// A kubelet, ready to run.
pub struct Kubelet {
    config: Config,
    parts: Parts,
}

impl Kubelet {
    pub fn new(config: Config, parts: Parts) -> Self {
        Kubelet { config, parts }
    }

    /// Runs until shutdown. Containers go on running when it ends, and the next one adopts them.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Kubelet { config, mut parts } = self;
        let metrics = Metrics::new();
        parts.runtime = Arc::new(Observed::new(parts.runtime, metrics.observer()));
        parts.images = Arc::new(Observed::new(parts.images, metrics.observer()));
        let version = parts.runtime.version(cri::v1::VersionRequest { version: "v1".into() }).await?;
        let features = handler_features(&*parts.runtime).await;
        let info = RuntimeInfo {
            name: version.runtime_name,
            version: version.runtime_version,
            recursive_read_only: features.is_some_and(|f| f.recursive_read_only_mounts),
            user_namespaces: features.is_some_and(|f| f.user_namespaces),
        };
        let machine = prepare(&config)?;
        let cgroups = Cgroups::new(&config);
        refuse_ground(&config, cgroups.is_v2())?;
        let reserved = |name: &str| config.reserved.get(name);
        let cpu = machine.cpus * 1000 - reserved("cpu").map_or(0, |cpu| cpu.milli_value());
        let memory = machine.memory - reserved("memory").map_or(0, |memory| memory.value());
        cgroups
            .set_up(cpu.max(0), config.enforce_pods.then_some(memory.max(0)))
            .map_err(|source| Error::Prepare { what: "the cgroup kubepods".into(), source })?;
        let events = Events(Recorder::new(parts.client.clone(), "kubelet", &config.node_name));
        let objects = Arc::new(Objects::new(&config, parts.client.clone(), events.clone(), shutdown.clone()));
        let unprepared = |what: &str, error: String| Error::Prepare {
            what: what.into(),
            source: std::io::Error::other(error),
        };
        let memory = u64::try_from(machine.memory).unwrap_or(0);
        let numa = Numa::read(&config.system_devices, memory);
        let (system, root) = (&config.system_devices, &config.root_dir);
        let reserved_cpus = config.reserved.get("cpu").map_or(0, |cpu| (cpu.milli_value() + 999) / 1000);
        let reserved_cpus = (&config.reserved_cpus, usize::try_from(reserved_cpus).unwrap_or(0));
        let policy = (config.cpu_manager_policy, config.cpu_manager_options);
        if policy.1.by_socket && config.topology.policy == crate::topology::Policy::SingleNumaNode {
            let error = "Topolgy manager single-numa-node policy is incompatible with CPUManager align-by-socket policy option";
            return Err(unprepared("the CPU manager", error.into()));
        }
        let cpus = Cpus::load(policy, system, root, reserved_cpus, metrics.managers.of_cpus());
        let cpus = cpus.map_err(|error| unprepared("the CPU manager", error))?;
        let kept = u64::try_from(node::status::kept_memory(&config, &machine)).unwrap_or(0);
        let pinned = || metrics.managers.memory.clone();
        let memory = config.memory_manager.as_ref();
        let memory = memory.map(|reserved| Memory::load(root, &numa, (reserved, kept), pinned()));
        let memory = memory.transpose().map_err(|error| unprepared("the memory manager", error))?;
        let topology = Topology::new(config.topology, numa);
        let topology = topology.map_err(|error| unprepared("the topology manager", error))?;
        let records = Records::open(&config.root_dir)
            .map_err(|source| Error::Prepare { what: "image_manager".into(), source })?;
        let providers = Providers::load(&config.credential_providers, &parts.client, &metrics)
            .map_err(|error| unprepared("the credential provider plugins", error))?;
        let context = Arc::new(Context {
            user_namespaces: UserNamespaces::load(&config),
            images: Images::new(
                parts.images,
                events.clone(),
                config.parallel_image_pulls,
                Verification::new(config.image_verification.clone(), records),
                providers,
                metrics.clone(),
            ),
            volumes: Volumes::new(
                parts.client.clone(),
                objects.clone(),
                events.clone(),
                metrics.storage.clone(),
            ),
            services: parts.informers.get(),
            node: watch::Sender::new(Arc::new(Node::default())),
            started_at: crate::clock::now(),
            claims: Claims::load(parts.client.clone(), &config, metrics.dra.clone(), shutdown.clone()),
            client: parts.client,
            runtime: parts.runtime,
            runtime_info: info,
            devices: Devices::load(&config, metrics.managers.clone(), shutdown.clone()),
            cpus,
            memory,
            topology,
            config,
            events,
            metrics,
            objects,
            machine,
            cgroups,
            plugins: Arc::default(),
            pulse: Arc::default(),
            pressures: watch::Sender::new(Vec::new()),
            shutting_down: watch::Sender::new(false),
            static_pods_known: watch::Sender::new(false),
        });
        context.images.adopt_pulls().await;
        let pods = Pods::new(context.clone(), shutdown.clone());
        let mut tasks = tokio::task::JoinSet::new();
        let mut port = context.config.address.port();
        let calling = match context.config.rotate_certificates {
            true => Some(parts.calling.unwrap_or_else(certificates::Calling::unused)),
            false => None,
        };
        let client_certificate = calling.as_ref().map(|calling| calling.slot.clone());
        if let Some(calling) = calling {
            let manager = certificates::Manager::client(context.clone(), calling, parts.bootstrap.as_ref());
            tasks.spawn(manager.run(shutdown.clone()));
        }
        if let Some(serving) = parts.serving {
            if context.config.server_tls_bootstrap {
                let manager = certificates::Manager::server(context.clone(), serving.identity.clone());
                tasks.spawn(manager.run(shutdown.clone()));
            }
            let server = server::Server::bind(
                context.clone(),
                pods.clone(),
                parts.streams,
                serving,
                client_certificate,
            );
            let server = server.await?;
            port = server.port();
            tasks.spawn(server.run(shutdown.clone()));
        }
        if context.config.healthz.port() != 0 {
            tasks.spawn(server::healthz::serve(context.config.healthz, shutdown.clone()));
        }
        tasks.spawn(report::run(context.clone(), parts.informers.clone(), port, shutdown.clone()));
        tasks.spawn(runtime_events::run(context.runtime.clone(), pods.clone(), shutdown.clone()));
        let serving = devices::serve(context.devices.clone());
        tasks.spawn(told("device plugins cannot register", serving));
        let following = devices::follow(context.devices.clone(), pods.clone(), shutdown.clone());
        tasks.spawn(following);
        tasks.spawn(claims::follow(context.claims.clone(), pods.clone()));
        let serving = pod_resources::serve(context.clone(), pods.clone(), shutdown.clone());
        tasks.spawn(told("the pod-resources API is not served", serving));
        let handlers: Vec<Arc<dyn plugins::watcher::Handler>> = vec![
            Arc::new(devices::ByRegistry(context.devices.clone())),
            Arc::new(claims::Registered(context.claims.clone())),
        ];
        let registry = context.config.root_dir.join("plugins_registry");
        let known = context.plugins.clone();
        tasks.spawn(plugins::watcher::run(registry, handlers, known, shutdown.clone()));
        tasks.spawn(follow_cpus(context.clone(), shutdown.clone()));
        tasks.spawn(eviction::run(context.clone(), pods.clone(), shutdown.clone()));
        tasks.spawn(node_shutdown::run(context.clone(), pods.clone(), shutdown.clone()));
        tasks.spawn(gc::run(context.clone(), shutdown.clone()));
        tasks.spawn(logs::rotate::run(context.clone(), shutdown.clone()));
        tasks.spawn(start_pods(context.clone(), parts.informers, pods.clone(), shutdown.clone()));
        while tasks.join_next().await.is_some() {}
        pods.stopped().await;
        Ok(())
    }
}

/// A socket that cannot be served (its path may be too long) is no reason to run no pods.
async fn told(what: &str, serving: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::warn!(%error, "{what}");
    }
}

async fn follow_cpus(context: Arc<Context>, shutdown: CancellationToken) {
    let Some(cpus) = &context.cpus else { return };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = cpus.follow(context.runtime.clone()) => {}
    }
}

/// Pods start when it is known which are wanted and which run.
async fn start_pods(
    context: Arc<Context>,
    informers: Informers,
    pods: Arc<Pods>,
    shutdown: CancellationToken,
) {
    let starting = async {
        // Environment variables of Services must not depend on who was faster.
        context.services.synced().await;
        // Whether a pod fits is judged by the node object.
        let known = |node: &Arc<Node>| !node.metadata.name.is_empty();
        drop(context.node.subscribe().wait_for(known).await);
        pod_source::api::start(&context, &informers, &pods).await;
        let mut manifests = context.config.static_pod_path.clone().map(pod_source::manifests::Manifests::new);
        // Static pods that run are nobody's orphans; those of older manifests are, and go first.
        let wanted = manifests.as_ref().map(|manifests| manifests.uids(&context)).unwrap_or_default();
        if let Err(error) = orphans::end(&*context.runtime, &pods, &wanted).await {
            tracing::warn!(%error, "orphaned pods could not be looked for");
        }
        match &mut manifests {
            Some(manifests) => manifests.look(&context, &pods),
            None => drop(context.static_pods_known.send_replace(true)),
        }
        orphans::clean(&context, &pods).await;
        // What pods had that are no more.
        let known = |uid: &str| pods.get(uid).is_some();
        context.devices.retain(known);
        if let Some(cpus) = &context.cpus {
            cpus.retain(known);
        }
        if let Some(memory) = &context.memory {
            memory.retain(known);
        }
        if let Some(manifests) = manifests {
            manifests.run(&context, &pods).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = starting => {}
    }
}

/// What the runtime's usual handler can.
async fn handler_features(runtime: &dyn RuntimeService) -> Option<cri::v1::RuntimeHandlerFeatures> {
    let answer = runtime.status(cri::v1::StatusRequest { verbose: false }).await.ok()?;
    let default = answer.runtime_handlers.iter().find(|h| h.name.is_empty());
    default.and_then(|h| h.features)
}

/// What the kubelet was told not to run on.
fn refuse_ground(config: &Config, v2: bool) -> Result<(), Error> {
    let refused = |why: &str| Error::Prepare { what: "the node".into(), source: std::io::Error::other(why) };
    if config.fail_cgroup_v1 && !v2 {
        return Err(refused(
            "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release",
        ));
    }
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if config.fail_swap_on && swaps.lines().count() > 1 {
        return Err(refused(
            "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false",
        ));
    }
    Ok(())
}

fn prepare(config: &Config) -> Result<Machine, Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    for (dir, mode) in [
        (config.root_dir.clone(), 0o750),
        (config.root_dir.join("pods"), 0o750),
        (config.root_dir.join("plugins"), 0o750),
        (config.root_dir.join("plugins_registry"), 0o750),
        (config.seccomp_root(), 0o755),
        (config.pod_logs_dir.clone(), 0o755),
        (config.container_logs_dir.clone(), 0o755),
    ] {
        let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(&dir);
        made.map_err(|source| Error::Prepare { what: dir.display().to_string(), source })?;
    }
    Ok(Machine::read(&config.root_dir))
}
