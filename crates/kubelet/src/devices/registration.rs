//! `device-plugins/kubelet.sock`, where device plugins register. A plugin that sees the socket made anew registers again,
//! so it is made anew at every start. Upstream: `devicemanager/plugin/v1beta1/server.go`.

use super::{Devices, VERSION, checkpoint};
use crate::plugins::device_plugin::registration_server::{Registration, RegistrationServer};
use crate::plugins::device_plugin::{Empty, RegisterRequest};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Takes registrations until shutdown.
pub(crate) async fn serve(devices: Arc<Devices>) -> io::Result<()> {
    clean(&devices.dir)?;
    let incoming = crate::plugins::listen(&devices.dir.join("kubelet.sock"))?;
    let shutdown = devices.shutdown.clone();
    tonic::transport::Server::builder()
        .add_service(RegistrationServer::new(Door(devices)))
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
        .map_err(io::Error::other)
}

/// Sockets of before: whoever lives makes a new one.
fn clean(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() != checkpoint::FILE && !entry.file_type()?.is_dir() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

struct Door(Arc<Devices>);

#[tonic::async_trait]
impl Registration for Door {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        self.0.metrics.registrations.with(&[&request.resource_name]).inc();
        if request.version != VERSION {
            return Err(Status::unknown(format!(
                "requested API version {:?} is not supported by kubelet. Supported version is [{VERSION:?}]",
                request.version
            )));
        }
        if !is_extended_resource(&request.resource_name) {
            return Err(Status::unknown(format!("the ResourceName {:?} is invalid", request.resource_name)));
        }
        // A name, not a way out of the directory.
        let endpoint = Path::new(&request.endpoint);
        if endpoint.components().count() != 1 || endpoint.file_name().is_none() {
            return Err(Status::unknown(format!("the endpoint {:?} is invalid", request.endpoint)));
        }
        let socket = self.0.dir.join(endpoint);
        self.0.connect(&request.resource_name, &socket).await.map_err(Status::unknown)?;
        Ok(Response::new(Empty {}))
    }
}

/// A resource with a domain that is not Kubernetes' own. Upstream: `IsExtendedResourceName`.
pub(super) fn is_extended_resource(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else { return false };
    let native = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    let plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
            && text.bytes().last().is_some_and(|byte| byte.is_ascii_alphanumeric())
    };
    // As a quota's name it still must fit.
    !native
        && !name.starts_with("requests.")
        && plain(domain)
        && domain.len() + 9 <= 253
        && plain(rest)
        && rest.len() <= 63
}

#[cfg(test)]
mod tests {
    use super::is_extended_resource;

    #[test]
    fn names_of_resources() {
        for (name, want) in [
            ("example.com/gpu", true),
            ("nvidia.com/gpu-2.x", true),
            ("cpu", false),
            ("kubernetes.io/x", false),
            ("x.kubernetes.io/x", false),
            ("requests.example.com/x", false),
            ("example.com/", false),
            ("example.com/a/b", false),
            ("example.com/-a", false),
        ] {
            assert_eq!(is_extended_resource(name), want, "{name}");
        }
    }
}
