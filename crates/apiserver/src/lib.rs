//! The API server: filters, authentication, authorization, admission, verb handlers, registry, reads.
//!
//! The way of a request is in [`server`]. Where to look:
//! - who: [`authn`]; may they: [`authz`]; what the cluster adds or refuses: [`admission`];
//! - verbs: [`handlers`]; the exceptions of some resources: [`rooms`]; what is no resource: [`documents`];
//! - writes: [`registry`]; addresses and ports of Services: [`services`]; lists, watches and feeds: [`cache`]; objects at rest: [`storage`]; definitions of custom
//!   resources: [`custom`];
//! - what is done to every request before and around that: [`gate`]; what is recorded of it: [`audit`]; whose turn it is: [`flowcontrol`]; what is counted: [`observed`]; what browsers are told: [`browsers`]; what those deep inside it
//!   say of it: [`context`];
//! - other servers' APIs: [`aggregation`]; calls to others: [`outbound`], and by URL or kubeconfig [`remote`], as whom: [`caller`]; which way these go: [`egress`]; connections: [`serve`]; clients of the same process: [`inprocess`]; what a new cluster has: [`bootstrap`].

pub mod admission;
pub mod aggregation;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
pub mod browsers;
pub mod cache;
pub mod call_body;
mod caller;
mod compress;
pub mod config_metrics;
pub mod context;
pub mod custom;
pub mod documents;
pub mod egress;
pub mod features;
pub mod flowcontrol;
pub mod gate;
mod grpc;
pub mod handlers;
pub mod inprocess;
/// What nodes and pods use.
pub mod metrics_api;
pub mod object;
pub mod observed;
pub mod openid;
pub mod outbound;
mod pod_resources;
pub mod registry;
pub mod remote;
pub mod request;
pub mod resources;
pub mod review_hook;
pub mod rooms;
pub mod serve;
pub mod server;
pub mod services;
pub mod spans;
pub mod storage;
mod strict;
pub mod terms;
pub mod user;
