//! Subcommands and flags.

use crate::node_flags::{ClusterFlags, NodeFlags};
use crate::places::Places;
use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use client::leader::Timing;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Parser)]
#[command(name = "tiphys", about = "Kubernetes, whole, in one binary", version = crate::server::VERSION)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log verbosity, as upstream's -v.
    #[arg(short = 'v', long = "v", global = true, default_value_t = 2)]
    verbosity: u8,
    /// Sets the log format.
    #[arg(long, global = true, value_enum, default_value = "text")]
    logging_format: LogFormat,
}

/// Upstream's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl From<LogFormat> for component::logs::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => component::logs::Format::Text,
            LogFormat::Json => component::logs::Format::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Control plane and node in one process: a cluster of one.
    Server(Box<Server>),
    /// A node of a cluster whose server is elsewhere.
    Agent(Box<crate::agent::Agent>),
    /// Tokens that nodes join with.
    Token {
        #[command(flatten)]
        find: Find,
        #[command(subcommand)]
        command: crate::bootstrap_token::TokenCommand,
    },
    /// The API server alone, with upstream's flags.
    Apiserver(Box<crate::apiserver::ApiServer>),
    /// The embedded container runtime alone, on a socket that speaks CRI v1: for crictl, critest and other kubelets.
    Runtime(Box<Runtime>),
    /// Print the administrator's kubeconfig.
    Kubeconfig {
        #[command(flatten)]
        find: Find,
    },
    /// The node's container images.
    Image {
        #[command(flatten)]
        find: Find,
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// The store's snapshots: the whole cluster in one file.
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// The store itself.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// End every pod that a stopped server left running, and remove what it made on this machine but for its data.
    Reset {
        #[command(flatten)]
        find: Find,
        /// The kubelet's directory, if the server was given one.
        #[arg(long)]
        root_dir: Option<PathBuf>,
        /// Remove the data directory and the kubelet's, too.
        #[arg(long)]
        remove_data: bool,
    },
    /// Thousands of hollow nodes against any API server.
    Simulator(Box<crate::simulator::Simulator>),
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Import docker-archive or OCI-layout archives; `-` is standard input.
    Import {
        #[arg(required = true)]
        archives: Vec<PathBuf>,
        /// One more name for the image of a single archive.
        #[arg(long)]
        name: Vec<String>,
    },
    /// Pull images from their registries.
    Pull {
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// List images.
    List,
    /// Remove images.
    Rm {
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save the cluster's state, whether its server runs or not.
    Save {
        file: PathBuf,
        #[command(flatten)]
        find: Find,
        #[command(flatten)]
        storage: Box<StoreFlags>,
    },
    /// Begin a new data directory, or fill an empty etcd, with a saved state.
    Restore {
        file: PathBuf,
        #[command(flatten)]
        find: Find,
        #[command(flatten)]
        storage: Box<StoreFlags>,
    },
    /// Verify a snapshot and say what it holds.
    Inspect { file: PathBuf },
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Walk log and snapshots of an embedded store, and say what is damaged and what can be saved.
    Verify {
        #[command(flatten)]
        find: Find,
    },
    /// Carry a stopped cluster from the embedded store to an empty etcd, or back into a new data directory.
    Move {
        #[arg(long, value_enum)]
        to: StoreEngine,
        #[command(flatten)]
        find: Find,
        #[command(flatten)]
        storage: Box<StoreFlags>,
    },
}

/// How a subcommand finds its server.
#[derive(Debug, Args)]
pub(crate) struct Find {
    #[arg(long, default_value = "/var/lib/tiphys", global = true)]
    pub data_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreEngine {
    Embedded,
    Etcd,
}

/// Where objects are kept; upstream's names where upstream has one.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreFlags {
    #[arg(long, value_enum, default_value = "embedded")]
    pub store: StoreEngine,
    /// List of etcd servers to connect with (scheme://ip:port), comma separated.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// SSL Certificate Authority file used to secure etcd communication.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// SSL certification file used to secure etcd communication.
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// SSL key file used to secure etcd communication.
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// The prefix to prepend to all resource paths in etcd.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// The interval of compaction requests. If 0, the compaction request from apiserver is disabled.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub etcd_compaction_interval: Duration,
    /// File with apiserver egress selector configuration.
    #[arg(long)]
    pub egress_selector_config_file: Option<PathBuf>,
    /// The file containing configuration for encryption providers to be used for storing secrets in etcd.
    #[arg(long)]
    pub encryption_provider_config: Option<PathBuf>,
    /// Determines if the file set by --encryption-provider-config should be automatically reloaded if the disk contents
    /// change.
    #[arg(
        long, requires = "encryption_provider_config", default_value = "false", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set
    )]
    pub encryption_provider_config_automatic_reload: bool,
}

/// How servers over one etcd agree on whose scheduler and controllers work: upstream's names and defaults.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ElectionFlags {
    /// The duration that non-leader candidates will wait after observing a leadership renewal until attempting to acquire
    /// leadership of a led but unrenewed leader slot.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    /// The interval between attempts by the acting master to renew a leadership slot before it stops leading.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    /// The duration the clients should wait between attempting acquisition and renewal of a leadership.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,
}

impl ElectionFlags {
    /// The timing, if a leader that cannot renew stops before another may begin.
    pub(crate) fn timing(self) -> Result<Timing> {
        let timing = Timing {
            lease: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry: self.leader_elect_retry_period,
        };
        if timing.lease <= timing.renew_deadline {
            bail!("leaseDuration must be greater than renewDeadline");
        }
        // Upstream's jitter factor of 1.2.
        if timing.renew_deadline * 5 <= timing.retry * 6 {
            bail!("renewDeadline must be greater than retryPeriod*JitterFactor");
        }
        if timing.retry.is_zero() {
            bail!("retryPeriod must be greater than zero");
        }
        Ok(timing)
    }
}

/// A duration as upstream's flags take it: `90s`, `5m0s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: apimachinery::time::Duration = text.parse().map_err(|error| format!("{error}"))?;
    parsed.to_std().ok_or_else(|| format!("{text:?} is negative"))
}

/// The contract that scripts and checks rely on.
#[derive(Debug, Args)]
pub(crate) struct Server {
    #[command(flatten)]
    pub node: NodeFlags,
    #[command(flatten)]
    pub cluster: ClusterFlags,
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Control plane only.
    #[arg(long)]
    pub no_node: bool,
    /// Write the administrator's kubeconfig here, mode 0600.
    #[arg(long)]
    pub write_kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub audit: crate::audit::AuditFlags,
    #[command(flatten)]
    pub limits: crate::limits::LimitFlags,
    #[command(flatten)]
    pub admission: crate::admission::AdmissionFlags,
    #[command(flatten)]
    pub metrics: crate::metric_flags::MetricFlags,
    #[command(flatten)]
    pub traces: crate::tracing_flags::TracingFlags,
    #[command(flatten)]
    pub connections: crate::connections::ConnectionFlags,
    #[command(flatten)]
    pub auth: Box<crate::auth_flags::AuthFlags>,
    /// A CIDR notation IP range from which to assign service cluster IPs.
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cidr: String,
    #[command(flatten)]
    pub services: crate::service_flags::ServiceFlags,
    #[command(flatten)]
    pub settled: Box<crate::settled_flags::SettledFlags>,
    /// The max length of duration signed certificates will be given. Individual CSRs may request shorter certs by setting
    /// spec.expirationSeconds.
    #[arg(long, default_value = "8760h", value_parser = duration)]
    pub cluster_signing_duration: Duration,
    #[command(flatten)]
    pub storage: StoreFlags,
    #[command(flatten)]
    pub election: ElectionFlags,
    /// Serve what a snapshot's file holds, for looking back: nothing is written, no node or controller runs.
    #[arg(long)]
    pub snapshot: Option<PathBuf>,
    /// The state of that snapshot at an older revision, as far as its history reaches.
    #[arg(long, requires = "snapshot")]
    pub at_revision: Option<u64>,
    /// A directory of manifests (.yaml, .yml, .json): what they declare is applied at start, when they change, and when
    /// somebody changes it. What they declare no more stays as it is.
    #[arg(long, conflicts_with = "snapshot")]
    pub manifests: Option<PathBuf>,
}

/// The embedded runtime without a cluster.
#[derive(Debug, Args)]
pub(crate) struct Runtime {
    /// State of the runtime; one server or runtime has it at a time.
    #[arg(long, default_value = "/var/lib/tiphys")]
    pub data_dir: PathBuf,
    /// The socket, unix://… [default: cri.sock in the run directory].
    #[arg(long)]
    pub listen: Option<String>,
    /// The range of the built-in pod network, until a kubelet tells another one.
    #[arg(long, default_value = "10.244.0.0/24")]
    pub pod_cidr: String,
}

fn log(verbosity: u8, format: LogFormat) -> Result<()> {
    let options = component::logs::Options { verbosity, format: format.into(), ..Default::default() };
    component::logs::init(&options).map_err(anyhow::Error::msg)
}

/// Runs a subcommand to its end.
pub(crate) fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Server(flags) => {
            log(cli.verbosity, cli.logging_format)?;
            crate::server::run(*flags)
        }
        Command::Agent(flags) => {
            log(cli.verbosity, cli.logging_format)?;
            crate::agent::run(*flags)
        }
        Command::Token { find, command } => {
            crate::bootstrap_token::run(&Places::of(&find.data_dir, None)?, command)
        }
        Command::Apiserver(flags) => {
            log(cli.verbosity, cli.logging_format)?;
            crate::apiserver::run(*flags)
        }
        Command::Runtime(flags) => {
            log(cli.verbosity, cli.logging_format)?;
            crate::runtime_socket::run(*flags)
        }
        Command::Kubeconfig { find } => crate::server::print_kubeconfig(&find.data_dir),
        Command::Image { find, command } => {
            crate::images::command::run(&Places::of(&find.data_dir, None)?, command)
        }
        Command::Reset { find, root_dir, remove_data } => {
            log(0, cli.logging_format)?;
            crate::reset::run(&Places::of(&find.data_dir, root_dir.as_deref())?, remove_data)
        }
        Command::Simulator(flags) => {
            log(cli.verbosity, cli.logging_format)?;
            crate::simulator::run(*flags)
        }
        Command::Snapshot { command } => crate::snapshot::run(command),
        Command::Store { command } => crate::snapshot::run_store(command),
        Command::Version => {
            println!("tiphys {}", crate::server::VERSION);
            Ok(())
        }
    }
}
