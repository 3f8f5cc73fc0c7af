//! Pod workers, probes, volumes and node status over the CRI.
//!
//! [`Kubelet`] puts the parts together and runs them. A pod's way: [`pod_source`] → [`pods`] → its worker in
//! [`pod_worker`] (plan and status are pure, act is the only IO) → the runtime, and back through [`runtime_events`].

/// The kubelet's own certificates.
pub mod certificates;
mod cgroups;
/// Claims of pods, and the drivers of their devices.
mod claims;
mod clock;
/// What a kubelet must be told.
pub mod config;
/// What a kubelet is told by a file.
pub mod configuration;
/// From a pod to what the runtime is asked to make.
mod container_config;
mod context;
/// Processors for one container alone.
pub mod cpus;
/// As much of D-Bus as logind needs.
pub mod dbus;
/// Device plugins.
mod devices;
/// Why a kubelet cannot start.
pub mod error;
mod events;
/// What goes when the node runs short.
mod eviction;
pub mod file_watch;
mod hooks;
mod http_client;
mod images;
mod kubelet;
mod labels;
/// Reading, following and rotating containers' logs.
mod logs;
/// Memory of NUMA nodes for one container alone.
pub mod memory;
/// What a kubelet counts.
mod metrics;
/// Registering and reporting the node.
mod node;
/// Ending pods in good order when the machine shuts down.
mod node_shutdown;
mod objects;
mod orphans;
/// Plugins of the node, and what they and the kubelet say to each other.
pub mod plugins;
/// Keys of pods, and certificates that signers issue for them.
mod pod_certificates;
/// Who was given which devices and processors.
mod pod_resources;
/// The API and the manifest directory.
mod pod_source;
/// The task of one pod.
mod pod_worker;
mod pods;
/// Startup, liveness and readiness.
mod probes;
/// Resizing pods in place.
mod resize;
mod runtime_events;
mod runtime_pod;
/// Files that survive a restart.
mod saved;
/// The HTTPS server on port 10250.
pub mod server;
mod termination_message;
/// Tokens of service accounts.
mod tokens;
/// Whose devices, processors and memory are to be near each other.
pub mod topology;
/// Authorities that the cluster publishes, for volumes.
mod trust_bundles;
/// What pods use.
mod usage;
/// The users of pods that have their own.
mod user_namespaces;
/// The volumes of pods.
mod volumes;

pub use config::Config;
pub use error::Error;
pub use kubelet::{Kubelet, Parts};
