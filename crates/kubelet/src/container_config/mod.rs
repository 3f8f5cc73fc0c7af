//! From a pod and its node to what the runtime is asked to make: sandbox and container configurations.
//! Each file holds one aspect; [`sandbox::sandbox_config`] and [`container::container_config`] put them together.

pub(crate) mod container;
pub(crate) mod dns;
pub(crate) mod env;
mod env_file;
pub(crate) mod expansion;
pub(crate) mod field_ref;
pub(crate) mod hostname;
pub(crate) mod hosts_file;
pub(crate) mod mounts;
pub(crate) mod resources;
pub(crate) mod sandbox;
pub(crate) mod security;
pub(crate) mod service_env;
pub(crate) mod swap;
