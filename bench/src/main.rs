//! The load generator and the benchmarks: speaks only the public API, takes any kubeconfig. One line per figure; what
//! the work is, each figure's module says.

mod cluster;
mod fanout;
mod latency;
mod leases;
mod load;
mod memory;
mod node;
mod pods;
mod process;
mod report;
mod schedule;
mod simulated;
mod target;
mod verbs;
mod watching;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use cluster::Cluster;
use load::Load;
use process::Pid;
use report::Figure;
use schedule::Until;
use std::path::PathBuf;
use std::time::Duration;
use target::{Http, Target};
use verbs::Setting;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Load on an API server, and what it comes to")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads of the load generator.
    #[arg(long, global = true, default_value_t = 1)]
    threads: usize,
    /// Version of HTTP.
    #[arg(long, global = true, value_enum, default_value = "1")]
    http: Http,
    /// Seconds of every figure that has no number of operations.
    #[arg(long, global = true, default_value_t = 10)]
    seconds: u64,
    /// Pods that reads, patches and watches go over.
    #[arg(long, global = true, default_value_t = 3000)]
    objects: usize,
    /// Bytes of a pod as it is answered.
    #[arg(long, global = true, default_value_t = 2500)]
    size: usize,
    #[arg(long, global = true, default_value = "bench")]
    namespace: String,
}

/// Which server.
#[derive(Debug, Args)]
struct Server {
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// The server's process, where it runs on this machine: its CPU time is shown.
    #[arg(long)]
    server_pid: Option<u32>,
}

/// Which figure of an API server, and how many clients.
#[derive(Debug, Subcommand)]
enum Command {
    /// Create pods, then delete them.
    Create {
        #[command(flatten)]
        server: Server,
        #[arg(long, default_value_t = 32)]
        clients: usize,
        #[arg(long, default_value_t = 20_000)]
        count: u64,
    },
    /// GET single pods.
    Get {
        #[command(flatten)]
        server: Server,
        #[arg(long, default_value_t = 32)]
        clients: usize,
    },
    /// LIST all pods.
    List {
        #[command(flatten)]
        server: Server,
        #[arg(long, default_value_t = 4)]
        clients: usize,
    },
    /// Merge-patch pods.
    Patch {
        #[command(flatten)]
        server: Server,
        #[arg(long, default_value_t = 32)]
        clients: usize,
    },
    /// Apply pods.
    Apply {
        #[command(flatten)]
        server: Server,
        #[arg(long, default_value_t = 32)]
        clients: usize,
    },
    /// Renew leases of nodes.
    Renew {
        #[command(flatten)]
        server: Server,
        #[arg(long, default_value_t = 32)]
        clients: usize,
    },
    /// Watch pods that are patched.
    Watch {
        #[command(flatten)]
        server: Server,
        #[arg(long, default_value_t = 200)]
        watchers: usize,
    },
    /// Schedule pods onto simulated nodes.
    Schedule {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        schedule: Crowd,
        /// The binary that simulates nodes.
        #[arg(long)]
        tiphys: PathBuf,
    },
    /// Start pods one by one and a Deployment on the cluster's own node.
    Pods {
        #[command(flatten)]
        server: Server,
        #[arg(long, default_value = "localhost/busybox:debian12")]
        image: String,
    },
    /// What definitions, idle watches and large lists add to the server's memory.
    Memory {
        #[command(flatten)]
        server: Server,
        #[arg(long, default_value_t = 100)]
        definitions: usize,
        #[arg(long, default_value_t = 10_000)]
        watches: usize,
        /// Lists at a time.
        #[arg(long, default_value_t = 32)]
        lists: usize,
        /// Megabytes of each.
        #[arg(long, default_value_t = 200)]
        megabytes: usize,
    },
    /// Watch an idle server.
    Idle {
        #[arg(long)]
        server_pid: u32,
    },
    /// Everything, on a fresh cluster of one that is started here.
    All {
        #[arg(long)]
        tiphys: PathBuf,
        /// An empty directory of its own.
        #[arg(long)]
        data_dir: PathBuf,
        /// Archive of the image that pods run.
        #[arg(long)]
        archive: PathBuf,
        #[arg(long, default_value = "localhost/busybox:debian12")]
        image: String,
        /// How often the start is measured.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        #[command(flatten)]
        schedule: Crowd,
        /// Further flags of `tiphys server`.
        #[arg(last = true)]
        flags: Vec<String>,
    },
}

/// The nodes, and the pods that come to them.
#[derive(Debug, Args)]
struct Crowd {
    #[arg(long, default_value_t = 300)]
    nodes: usize,
    #[arg(long, default_value_t = 3000)]
    pods: u64,
    /// Clients that create the pods.
    #[arg(long, default_value_t = 32)]
    creators: usize,
}

fn main() -> Result<()> {
    pki::tls::install_provider();
    let cli = Cli::parse();
    let runtime = match cli.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build()?,
    };
    runtime.block_on(run(cli))
}

impl Cli {
    fn setting(&self, server: &Server) -> Result<Setting> {
        self.on(Target::load(&server.kubeconfig, self.http)?, server.server_pid.map(Pid))
    }

    fn on(&self, target: Target, server: Option<Pid>) -> Result<Setting> {
        let namespace = self.namespace.clone();
        Ok(Setting { target, server, namespace, objects: self.objects, size: self.size })
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn load(&self, clients: usize) -> Load {
        Load { clients, total: None, time: self.time() }
    }
}

fn show(mut figure: Figure) {
    println!("{}", figure.line());
}

async fn run(cli: Cli) -> Result<()> {
    match &cli.command {
        Command::Create { server, clients, count } => {
            let load = creates(*clients, *count);
            verbs::create_and_delete(&cli.setting(server)?, load, show).await?;
        }
        Command::Get { server, clients } => {
            show(verbs::get(&cli.setting(server)?, cli.load(*clients)).await?);
        }
        Command::List { server, clients } => {
            show(verbs::list(&cli.setting(server)?, cli.load(*clients)).await?);
        }
        Command::Patch { server, clients } => {
            show(verbs::patch(&cli.setting(server)?, cli.load(*clients)).await?);
        }
        Command::Apply { server, clients } => {
            show(verbs::apply(&cli.setting(server)?, cli.load(*clients)).await?);
        }
        Command::Renew { server, clients } => {
            show(leases::renew(&cli.setting(server)?, cli.load(*clients)).await?);
        }
        Command::Watch { server, watchers } => {
            show(fanout::fan_out(&cli.setting(server)?, *watchers, cli.time()).await?);
        }
        Command::Schedule { server, schedule, tiphys } => {
            scheduled(&cli.setting(server)?, tiphys, &server.kubeconfig, schedule).await?;
        }
        Command::Pods { server, image } => {
            let setting = cli.setting(server)?;
            node::pod_start(&setting.target, setting.server, image, 20).await?;
            node::deployment(&setting.target, image, 30).await?;
        }
        Command::Memory { server, definitions, watches, lists, megabytes } => {
            let setting = cli.setting(server)?;
            memory::definitions(&setting, *definitions, 50_000).await?;
            memory::idle_watches(&setting, *watches).await?;
            memory::large_lists(&setting, *lists, megabytes << 20).await?;
        }
        Command::Idle { server_pid } => node::idle(Pid(*server_pid), cli.time()).await?,
        Command::All { tiphys, data_dir, archive, image, rounds, schedule, flags } => {
            let cluster = Cluster { tiphys: tiphys.clone(), data: data_dir.clone(), flags: flags.clone() };
            let (server, target) = node::startup(&cluster, archive, image, *rounds, cli.http).await?;
            let done = all(&cli, &cluster, target, server.pid, image, schedule).await;
            // Whatever came of it, the server ends in order.
            server.stop().await.context("stopping the server")?;
            done?;
        }
    }
    Ok(())
}

fn creates(clients: usize, count: u64) -> Load {
    Load { clients, total: Some(count), time: Duration::from_secs(600) }
}

async fn scheduled(
    setting: &Setting,
    tiphys: &std::path::Path,
    kubeconfig: &std::path::Path,
    flags: &Crowd,
) -> Result<()> {
    for (until, run_pods) in [(Until::Bound, false), (Until::Running, true)] {
        let nodes =
            simulated::Nodes::start(&setting.target, tiphys, kubeconfig, flags.nodes, run_pods).await?;
        let load = creates(flags.creators, flags.pods);
        let figure = schedule::schedule(setting, &nodes, load, until).await;
        nodes.remove().await?;
        show(figure?);
    }
    Ok(())
}

async fn all(
    cli: &Cli,
    cluster: &Cluster,
    target: Target,
    pid: Pid,
    image: &str,
    flags: &Crowd,
) -> Result<()> {
    // Give the first pod's end and the caches' start time to be over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    node::idle(pid, 3 * cli.time()).await?;
    node::pod_start(&target, Some(pid), image, 20).await?;
    node::deployment(&target, image, 30).await?;
    let setting = cli.on(target, Some(pid))?;
    verbs::create_and_delete(&setting, creates(32, 20_000), show).await?;
    show(verbs::get(&setting, cli.load(32)).await?);
    show(verbs::list(&setting, cli.load(4)).await?);
    show(verbs::patch(&setting, cli.load(32)).await?);
    show(verbs::apply(&setting, cli.load(32)).await?);
    show(leases::renew(&setting, cli.load(32)).await?);
    show(fanout::fan_out(&setting, 200, cli.time()).await?);
    let other = match cli.http {
        Http::One => Http::Two,
        Http::Two => Http::One,
    };
    let over = Setting { target: setting.target.over(other), ..setting.clone() };
    show(verbs::get(&over, cli.load(32)).await?);
    show(verbs::list(&over, cli.load(4)).await?);
    show(fanout::fan_out(&over, 200, cli.time()).await?);
    let mut connection = setting.target.connect().await?;
    pods::remove_namespace(&mut connection, &setting.namespace).await?;
    scheduled(&setting, &cluster.tiphys, &cluster.kubeconfig(), flags).await
}
