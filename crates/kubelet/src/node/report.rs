//! The node's heartbeat: every ten seconds the lease, and the status when it changed or has not been written for five
//! minutes; more often until the node is ready for the first time. Upstream: `syncNodeStatus`, `fastStatusUpdateOnce`.

use super::events::Telling;
use super::{conditions, lease, register, status};
use crate::context::Context;
use crate::metrics::startup;
use api::core::v1::{Node, NodeStatus};
use client::recorder::EventType;
use client::{Informers, Patch, PatchParams};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Registers the node and reports until shutdown. `port` is where the server listens.
pub(crate) async fn run(context: Arc<Context>, informers: Informers, port: u16, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = report(&context, &informers, port) => {}
    }
}

async fn observe(context: &Context, old: &NodeStatus, port: u16) -> NodeStatus {
    let answer = context.runtime.status(cri::v1::StatusRequest { verbose: false }).await;
    let (runtime, handlers, features) = match answer {
        Ok(answer) => {
            let status = answer.status.ok_or_else(|| "the runtime has no status".to_owned());
            (status, answer.runtime_handlers, answer.features)
        }
        Err(error) => (Err(error.to_string()), Vec::new(), None),
    };
    if conditions::is_well(runtime.as_ref().ok()) {
        context.pulse.beat();
    }
    let images = context.images.service.list_images(cri::v1::ListImagesRequest::default()).await;
    let images = images.map(|answer| answer.images).unwrap_or_default();
    let pressures = context.pressures.borrow().clone();
    let observed = status::Observed {
        runtime,
        handlers,
        features,
        images,
        pressures,
        shutting_down: *context.shutting_down.borrow(),
        devices: context.devices.counts(),
        port,
        now: crate::clock::time(),
    };
    status::status(&context.config, &context.machine, &context.runtime_info, old, observed)
}

async fn report(context: &Arc<Context>, informers: &Informers, port: u16) {
    let config = &context.config;
    let first = observe(context, &NodeStatus::default(), port).await;
    let (node, before) = register::register(context, first).await;
    let mut telling = Telling::since(&before);
    context.node.send_replace(Arc::new(node.clone()));
    register::follow(context, informers);
    context.events.node(&config.node_name, EventType::Normal, "Starting", "Starting kubelet.");
    // The kubelet does not run without the cgroup of all pods.
    let enforced = "Updated Node Allocatable limit across pods";
    context.events.node(&config.node_name, EventType::Normal, "NodeAllocatableEnforced", enforced);
    let mut known = node.status.clone();
    let mut reported = Instant::now();
    let mut held = None;
    let mut renewed: Option<Instant> = None;
    let mut pause = Duration::from_millis(50);
    let mut pressures = context.pressures.subscribe();
    let mut devices = context.devices.subscribe();
    let mut shutting_down = context.shutting_down.subscribe();
    loop {
        if renewed
            .is_none_or(|at| at.elapsed() >= config.node_lease_duration / 4 - Duration::from_millis(100))
        {
            let node = context.node.borrow().clone();
            match lease::renew(context, held.take(), &node).await {
                Ok(lease) => {
                    held = Some(lease);
                    renewed = Some(Instant::now());
                }
                Err(error) => tracing::warn!(%error, "the node's lease was not renewed"),
            }
        }
        let status = observe(context, &known, port).await;
        let overdue = reported.elapsed() >= config.node_status_report_frequency;
        let patch = match status::patch(&known, &status) {
            None if overdue => apimachinery::value::to_value(&status.conditions)
                .ok()
                .map(|c| apimachinery::json!({ "conditions": c })),
            changed => changed,
        };
        if let Some(patch) = patch {
            match write(context, patch).await {
                Ok(_) => {
                    known = status;
                    reported = Instant::now();
                }
                Err(error) if error.is_not_found() => {
                    // Somebody deleted the node while it lives.
                    let (node, before) = register::register(context, status).await;
                    (known, telling) = (node.status, Telling::since(&before));
                }
                Err(error) => tracing::warn!(%error, "the node's status was not written"),
            }
        }
        let unschedulable = context.node.borrow().spec.unschedulable;
        for event in telling.changes(&known, unschedulable) {
            let message = format!("Node {} status is now: {event}", config.node_name);
            context.events.node(&config.node_name, EventType::Normal, event, message);
        }
        let ready = conditions::is_ready(&known.conditions);
        if ready {
            context.metrics.startup.ready(startup::up());
        }
        let wait = tokio::time::sleep(if ready { config.node_status_update_frequency } else { pause });
        tokio::select! {
            () = wait => {}
            // A node that runs short says so at once.
            _ = pressures.changed() => {}
            _ = shutting_down.changed() => {}
            _ = devices.changed() => {}
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn write(context: &Context, status: apimachinery::value::Value) -> client::Result<Node> {
    let patch = Patch::Strategic(apimachinery::json!({ "status": status }));
    context
        .client
        .all::<Node>()
        .patch_status(&context.config.node_name, &patch, &PatchParams::default())
        .await
}
