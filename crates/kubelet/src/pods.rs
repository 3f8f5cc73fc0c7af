//! All pods of the node: who wants them, and the worker of each. Upstream: the pod manager and the dispatch half of
//! `pod_workers.go`.

use crate::context::Context;
use crate::pod_worker::{Mailbox, Worker};
use crate::resize::{Resources, Trigger};
use api::core::v1::Pod;
use parking_lot::Mutex;
use rules::pod_conditions::is_terminal;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The pods by uid.
pub(crate) struct Pods {
    pub(crate) context: Arc<Context>,
    mailboxes: Mutex<HashMap<String, Arc<Mailbox>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    /// The uids of pods that ask for other resources than they have.
    pub(crate) resizes: Mutex<Vec<String>>,
    /// Static pods that wait until another of their name has ended, by its uid.
    successors: Mutex<HashMap<String, Arc<Pod>>>,
}

impl Pods {
    pub(crate) fn new(context: Arc<Context>, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Pods {
            context,
            mailboxes: Mutex::default(),
            tasks: TaskTracker::new(),
            shutdown,
            resizes: Mutex::default(),
            successors: Mutex::default(),
        })
    }

    /// A static pod is wanted. Two of one name would fight for what both have: the new one begins when the one whose
    /// manifest is gone has ended, which may even be the same pod as before. Upstream: `allowStaticPodStart`.
    pub(crate) fn apply_static(self: &Arc<Self>, pod: Arc<Pod>) {
        let mut successors = self.successors.lock();
        let of_name = |mailbox: &Arc<Mailbox>| {
            let letter = mailbox.letter();
            let (new, old) = (&pod.metadata, &letter.pod.metadata);
            let same = (&new.namespace, &new.name) == (&old.namespace, &old.name);
            (same && letter.gone).then(|| old.uid.clone())
        };
        let before = self.mailboxes.lock().values().find_map(of_name);
        match before {
            Some(before) => drop(successors.insert(before, pod)),
            None => {
                drop(successors);
                self.begin(pod);
            }
        }
    }

    fn begin(self: &Arc<Self>, pod: Arc<Pod>) {
        self.apply(pod.clone());
        crate::pod_source::manifests::show(&self.context, self, pod);
    }

    /// A pod is wanted, or wanted otherwise than before.
    pub(crate) fn apply(self: &Arc<Self>, pod: Arc<Pod>) {
        let uid = pod.metadata.uid.clone();
        let mut mailboxes = self.mailboxes.lock();
        if let Some(mailbox) = mailboxes.get(&uid) {
            let mailbox = mailbox.clone();
            drop(mailboxes);
            self.update(&mailbox, pod);
            return;
        }
        let mailbox = Mailbox::new(pod.clone());
        let record = crate::resize::record::load(&self.context.config, &uid);
        let known = record.is_some();
        if let Some(record) = record {
            mailbox.change_resizing(|resizing| {
                resizing.allocated = Some(record.allocated);
                resizing.actuated = record.actuated;
            });
        }
        mailboxes.insert(uid.clone(), mailbox.clone());
        drop(mailboxes);
        self.context.objects.register(&pod, &mailbox);
        self.start(uid.clone(), mailbox);
        if known {
            // It may have been changed while nobody looked.
            self.resize_wanted(&uid);
        }
    }

    /// A pod that is in the runtime only must end.
    pub(crate) fn apply_gone(self: &Arc<Self>, pod: Arc<Pod>, uid: &str) {
        self.context.metrics.orphaned_runtime_pods.inc();
        let mailbox = Mailbox::new(pod);
        mailbox.write(|letter| letter.gone = true);
        self.mailboxes.lock().insert(uid.to_owned(), mailbox.clone());
        self.start(uid.to_owned(), mailbox);
    }

    fn start(self: &Arc<Self>, uid: String, mailbox: Arc<Mailbox>) {
        let worker = Worker::new(self.context.clone(), mailbox, Arc::downgrade(self), self.shutdown.clone());
        let pods = Arc::downgrade(self);
        self.tasks.spawn(async move {
            worker.run().await;
            // A worker that stops because the kubelet does leaves its pod running, and known: whoever looks for orphans
            // at that moment must not take it for one.
            if let Some(pods) = pods.upgrade().filter(|pods| !pods.shutdown.is_cancelled()) {
                let next = {
                    // Who comes now either finds the pod, and waits for it, or does not.
                    let mut successors = pods.successors.lock();
                    pods.mailboxes.lock().remove(&uid);
                    successors.remove(&uid)
                };
                if let Some(next) = next {
                    if next.metadata.uid == uid {
                        pods.context.metrics.restarted_pods.with(&["true"]).inc();
                    }
                    pods.begin(next);
                }
                pods.weigh();
                pods.retry_resizes(Trigger::PodsRemoved);
            }
        });
        self.weigh();
    }

    fn update(&self, mailbox: &Arc<Mailbox>, pod: Arc<Pod>) {
        let old = mailbox.letter().desired;
        let meta = |p: &Pod| (p.metadata.labels.clone(), p.metadata.annotations.clone());
        let spec_changed = old.spec != pod.spec;
        let shown_changed = meta(&old) != meta(&pod);
        let end_changed = old.metadata.deletion_timestamp != pod.metadata.deletion_timestamp
            || old.metadata.deletion_grace_period_seconds != pod.metadata.deletion_grace_period_seconds;
        let conditions_changed =
            old.status.conditions != pod.status.conditions && !pod.spec.readiness_gates.is_empty();
        if spec_changed {
            self.context.objects.register(&pod, mailbox);
        }
        // What comes back of our own status is taken note of, but is no news.
        if spec_changed || end_changed || conditions_changed || shown_changed {
            let uid = pod.metadata.uid.clone();
            let resized = Resources::of(&old) != Resources::of(&pod);
            mailbox.replace(pod);
            mailbox.wake();
            if shown_changed {
                mailbox.volumes_changed();
            }
            if resized {
                self.context.metrics.resizes.requested(&old, &mailbox.letter().desired);
                self.resize_wanted(&uid);
                self.weigh();
            }
        } else {
            mailbox.replace(pod);
        }
    }

    /// Nobody wants the pod any more.
    pub(crate) fn remove(&self, uid: &str) {
        self.successors.lock().retain(|_, pod| pod.metadata.uid != uid);
        if let Some(mailbox) = self.get(uid) {
            mailbox.write(|letter| letter.gone = true);
        }
    }

    /// Something happened to the pod in the runtime.
    pub(crate) fn wake(&self, uid: &str) {
        if let Some(mailbox) = self.get(uid) {
            mailbox.wake();
        }
    }

    pub(crate) fn wake_all(&self) {
        self.mailboxes.lock().values().for_each(|mailbox| mailbox.wake());
    }

    pub(crate) fn get(&self, uid: &str) -> Option<Arc<Mailbox>> {
        self.mailboxes.lock().get(uid).cloned()
    }

    /// All pods with their newest status.
    pub(crate) fn list(&self) -> Vec<Arc<Mailbox>> {
        self.mailboxes.lock().values().cloned().collect()
    }

    /// The pod of this name; when one is on its way out and another has taken its name, the newer.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<Arc<Mailbox>> {
        let named = |mailbox: &Arc<Mailbox>| {
            let pod = mailbox.letter().pod;
            pod.metadata.namespace == namespace && pod.metadata.name == name
        };
        let all = self.list();
        all.into_iter().filter(named).max_by_key(|mailbox| mailbox.letter().pod.metadata.creation_timestamp)
    }

    /// The pods that hold resources of the node already, as admission sees them.
    pub(crate) fn admitted_before(&self, pod: &Pod) -> Vec<Arc<Pod>> {
        let others = self
            .list()
            .into_iter()
            .filter(|mailbox| mailbox.is_admitted() && !is_terminal(&mailbox.status().phase));
        others
            .map(|mailbox| mailbox.letter().pod)
            .filter(|other| other.metadata.uid != pod.metadata.uid)
            .collect()
    }

    /// Waits for all workers to stop, which they do at shutdown, leaving containers as they are.
    pub(crate) async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn weigh(&self) {
        let pods: Vec<Arc<Pod>> = self.list().iter().map(|mailbox| mailbox.letter().pod).collect();
        let active = pods.iter().map(AsRef::as_ref).filter(|pod: &&Pod| !is_terminal(&pod.status.phase));
        if let Err(error) = self.context.cgroups.weigh_burstable(active) {
            tracing::debug!(%error, "the burstable tier could not be weighed");
        }
    }
}
