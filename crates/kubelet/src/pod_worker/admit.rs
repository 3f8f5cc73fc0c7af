//! Whether a pod may come in: the node's pressures and resources, what it asks for in particular, and who would have to go
//! for it. Upstream: `HandlePodAdditions`, the admit handlers.

use super::status::Forced;
use super::{Worker, admission, app_armor, preemption, sysctls};
use crate::resize::{self, Resources};
use crate::runtime_pod::RuntimePod;
use crate::topology::Provider;
use crate::{eviction, node_shutdown};
use api::core::v1::Pod;
use std::sync::Arc;
use std::time::Instant;

impl Worker {
    /// Asked once, before anything of the pod was made: what already runs was admitted before.
    pub(super) async fn admit(&mut self, pod: &Arc<Pod>, runtime: &RuntimePod) -> Result<(), Forced> {
        if self.admitted {
            return Ok(());
        }
        if runtime.sandboxes.is_empty() {
            let others = self.pods.upgrade().map_or_else(Vec::new, |pods| pods.admitted_before(pod));
            let mut node = api::core::v1::Node::clone(&self.context.node.borrow());
            // The object may lag behind what plugins have just told.
            for device in self.context.devices.counts() {
                if let Ok(count) = device.allocatable.to_string().parse() {
                    node.status.allocatable.insert(device.resource, count);
                }
            }
            let pressures = self.context.pressures.borrow().clone();
            let going = *self.context.shutting_down.borrow();
            let admitted = eviction::admit(pod, &pressures)
                .and_then(|()| sysctls::admit(pod, &self.context.config.allowed_unsafe_sysctls))
                .and_then(|()| node_shutdown::admit(going))
                .and_then(|()| app_armor::admit(pod, self.context.machine.app_armor))
                .and_then(|()| admission::admit(&self.context.config, pod, &node, &others));
            let admitted = match admitted {
                Err(refused) if refused.reason.starts_with("OutOf") && preemption::is_critical(pod) => {
                    self.make_room(pod, &node, refused).await
                }
                other => other,
            };
            let admitted = match admitted {
                Ok(()) => self.allocate(pod).await,
                refused => refused,
            };
            if let Err(refused) = admitted {
                self.context.metrics.rejections.with(&[&refused.reason]).inc();
                self.context.events.warning(pod, &refused.reason, refused.message.clone());
                let message = format!("Pod was rejected: {}", refused.message);
                return Err(Forced { message, ..refused });
            }
        }
        self.admitted = true;
        if self.mailbox.resizing().allocated.is_none() {
            self.mailbox.change_resizing(|resizing| resizing.allocated = Some(Resources::of(pod)));
            resize::pending::save(&self.context.config, &self.mailbox);
        }
        self.mailbox.set_admitted();
        Ok(())
    }

    /// Makes others go for a critical pod that would fit otherwise, and waits until they have.
    async fn make_room(&self, pod: &Pod, node: &api::core::v1::Node, refused: Forced) -> Result<(), Forced> {
        let Some(pods) = self.pods.upgrade() else { return Err(refused) };
        let others = pods.admitted_before(pod);
        // Nobody goes for a pod that would be refused all the same.
        admission::suits(pod, node, &others)?;
        let lacks = admission::lacks(&self.context.config, pod, node, &others);
        let chosen = preemption::choose(pod, &lacks, &others).map_err(|error| Forced {
            reason: "UnexpectedAdmissionError".into(),
            message: format!("Unexpected error while attempting to recover from admission failure: {error}"),
            ..Default::default()
        })?;
        let resource = lacks.first().map(|lack| lack.resource.clone()).unwrap_or_default();
        let mut victims = Vec::new();
        for other in &chosen {
            let Some(victim) = pods.get(&other.metadata.uid) else { continue };
            let forced = preemption::forced(other);
            self.context.events.warning(other, &forced.reason, forced.message.clone());
            self.context.metrics.preemptions.with(&[&resource]).inc();
            victim.write(|letter| letter.forced = Some(forced));
            victims.push(victim);
        }
        for victim in &victims {
            victim.ended().await;
        }
        admission::admit(&self.context.config, pod, node, &pods.admitted_before(pod))
    }

    /// Devices, processors and memory, which a pod has before it begins.
    async fn allocate(&self, pod: &Pod) -> Result<(), Forced> {
        let context = &self.context;
        let mut providers: Vec<&dyn Provider> = vec![&*context.devices];
        providers.extend(context.cpus.as_ref().map(|cpus| cpus as &dyn Provider));
        providers.extend(context.memory.as_ref().map(|memory| memory as &dyn Provider));
        // Where things are may not change between the question and the taking.
        let _turn = context.topology.turn().await;
        let began = Instant::now();
        let metrics = &context.metrics.managers;
        let admitted = context.topology.admit(pod, &providers, metrics).await;
        metrics.topology_requests.inc();
        metrics.topology_durations.observe(began.elapsed().as_secs_f64() * 1000.0);
        if admitted.is_err() {
            metrics.topology_errors.inc();
        }
        admitted
    }
}
