//! What the workers and the monitors share: the graph, the kinds there are, and the two queues.

use super::graph::{Graph, Todo};
use super::names::Uid;
use super::resources::Resources;
use client::recorder::EventType;
use client::{Queue, Recorder};
use parking_lot::Mutex;

pub(super) struct World {
    pub graph: Mutex<Graph>,
    pub resources: Resources,
    /// Objects that may have to be deleted.
    pub delete: Queue<Uid>,
    /// Objects whose dependents are to be let go.
    pub orphan: Queue<Uid>,
    pub recorder: Recorder,
}

impl World {
    /// Changes the graph, and passes on what that makes necessary.
    pub(super) fn change(&self, change: impl FnOnce(&mut Graph) -> Vec<Todo>) {
        let todo = change(&mut self.graph.lock());
        for todo in todo {
            match todo {
                Todo::Delete(uid) => self.delete.add(uid),
                Todo::DeleteLater(uid) => self.delete.add_rate_limited(uid),
                Todo::Orphan(uid) => self.orphan.add(uid),
                Todo::Report { dependent, owner } => {
                    let about = api::core::v1::ObjectReference {
                        kind: dependent.kind.kind.clone(),
                        api_version: dependent.kind.api_version.clone(),
                        namespace: dependent.namespace.to_string(),
                        name: dependent.name.to_string(),
                        uid: dependent.uid.to_string(),
                        ..Default::default()
                    };
                    let text = format!(
                        "ownerRef {owner} does not exist in namespace {}",
                        apimachinery::quote::quote(&dependent.namespace)
                    );
                    self.recorder.event(&about, EventType::Warning, "OwnerRefInvalidNamespace", text);
                }
            }
        }
    }
}
