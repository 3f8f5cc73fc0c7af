//! The pods that are bound to this node, from the API.

use crate::context::Context;
use crate::labels;
use crate::pods::Pods;
use api::core::v1::Pod;
use client::source::Query;
use client::{Change, Informers, Projection};
use std::sync::Arc;

/// Keeps nothing beside the bytes: a worker holds its own pod.
struct Bound;

impl Projection for Bound {
    type Kind = Pod;

    fn project(_: &Pod) -> Self {
        Bound
    }
}

/// Starts a worker for each, and keeps them told. Returns when all present ones are known.
pub(crate) async fn start(context: &Arc<Context>, informers: &Informers, pods: &Arc<Pods>) {
    let query = Query::of::<Pod>().fields(format!("spec.nodeName={}", context.config.node_name));
    let informer = informers.query::<Bound>(query);
    informer.synced().await;
    let pods = pods.clone();
    let context = context.clone();
    informer.subscribe(move |change| {
        let object = change.object();
        let pod = match object.decode() {
            Ok(pod) => pod,
            Err(error) => {
                tracing::error!(key = %object.key(), %error, "a pod could not be read");
                return;
            }
        };
        if labels::is_mirror_pod(&pod) {
            super::manifests::mirror_changed(&context, &pods, pod, matches!(change, Change::Deleted(_)));
            return;
        }
        match change {
            Change::Deleted(_) => pods.remove(&pod.metadata.uid),
            _ => pods.apply(Arc::new(pod)),
        }
    });
}
