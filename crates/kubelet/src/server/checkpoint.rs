//! `POST /checkpoint/{namespace}/{pod}/{container}`: has the runtime write down a container as it runs, which needs CRIU on the
//! node (Debian's package `criu`) and a runtime that works with it; ours says that it does not, in containerd's words. Upstream: `checkpoint`.

use super::Inner;
use super::answer::{Response, query, text, value, with_type};
use super::route::Target;
use crate::runtime_pod::{ExitedCache, observe};
use api::core::v1::Pod;
use cri::v1::CheckpointContainerRequest;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

pub(super) async fn answer(inner: &Inner, target: Target, request: &Request<Incoming>) -> Response {
    let config = &inner.context.config;
    if !config.feature("ContainerCheckpoint") {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    }
    let Target { namespace, pod, container } = target;
    let Some(mailbox) = inner.pods.named(&namespace, &pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let object = mailbox.letter().pod;
    if !has(&object, &container) {
        return text(StatusCode::NOT_FOUND, format!("container {container} does not exist"));
    }
    let pairs = query(request.uri().query());
    let Ok(timeout) = value(&pairs, "timeout").map_or(Ok(0), str::parse) else {
        return text(StatusCode::NOT_FOUND, "cannot parse value of timeout parameter");
    };
    let name = format!("checkpoint-{pod}_{namespace}-{container}-{}.tar", crate::clock::time());
    let location = config.checkpoints_dir().join(name).display().to_string();
    let failed = |error: &dyn std::fmt::Display| {
        let what = format!("checkpointing of {namespace}/{pod}/{container} failed ({error})");
        text(StatusCode::INTERNAL_SERVER_ERROR, what)
    };
    let runtime = &*inner.context.runtime;
    let found = match observe(runtime, &object.metadata.uid, &mut ExitedCache::new()).await {
        Ok(runtime_pod) => runtime_pod.container(&container).map(|found| found.id.clone()),
        Err(error) => return failed(&error),
    };
    let Some(container_id) = found else { return failed(&format!("container {container} not found")) };
    if let Err(error) = make_private(&config.checkpoints_dir()) {
        return failed(&error);
    }
    let request = CheckpointContainerRequest { container_id, location: location.clone(), timeout };
    match runtime.checkpoint_container(request).await {
        Ok(_) => {
            let made = apimachinery::json!({ "items": [location] });
            with_type(StatusCode::OK, "application/json", made.to_string())
        }
        Err(error) => failed(&error),
    }
}

/// What a container had in memory is root's to read.
fn make_private(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn has(pod: &Pod, name: &str) -> bool {
    let spec = &pod.spec;
    spec.containers.iter().chain(&spec.init_containers).any(|container| container.name == name)
        || spec.ephemeral_containers.iter().any(|container| container.name == name)
}
