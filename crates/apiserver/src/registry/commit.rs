//! One write, with what has to be written with it, in one transaction; and how long somebody waits for it.

use super::{Registry, WriteContext, managed, store_error};
use crate::object;
use crate::resources::Served;
use crate::storage::measures::Operation;
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Event, Expect, Write};

/// How long a store may take to answer a write. Its outcome is unknown then, as it is to upstream's clients.
const PATIENCE: Duration = Duration::from_secs(10);

/// An object as the client wants it, to be completed with what it takes from a stock.
#[derive(Debug)]
pub struct Asked<'a> {
    pub resource: &'a Arc<Served>,
    pub old: Option<&'a Value>,
    pub new: &'a mut Value,
    pub dry_run: bool,
}

/// A change of an object that takes from a stock, or gives back.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Absent when it is created.
    pub old: Option<&'a Value>,
    /// Absent when it is deleted.
    pub new: Option<&'a Value>,
}

/// What is written with an object.
#[derive(Debug)]
pub enum Companion {
    /// A new object, named and without system fields.
    Create(Arc<Served>, Value),
    /// Any other write.
    Write(Write),
}

/// Something that there is only so much of, and that objects hold as long as they live. What an object takes and gives
/// back is written in the transaction that writes the object, so that several servers never give out a thing twice, and
/// nothing is left behind by one that dies.
pub trait Stock: Send + Sync {
    /// Whether objects of this resource take from it.
    fn concerns(&self, resource: &Served) -> bool;

    /// Completes the new object with what it takes. The kind's rules judge it afterwards.
    fn complete<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<(), Status>>;

    /// What goes with the write of an object, from what is newest; nothing when somebody else has taken what the object
    /// was completed with.
    fn companions<'a>(&'a self, change: Change<'a>) -> BoxFuture<'a, Result<Option<Vec<Companion>>, Status>>;
}

/// What a write came to.
pub(super) enum Written {
    Done(Arc<Event>),
    /// The object is not what it was thought to be.
    Lost {
        /// It is not there at all.
        gone: bool,
    },
    /// What it took from a stock is somebody else's by now.
    Taken,
}

impl Registry {
    /// The stock that objects of a resource take from.
    pub(super) fn stock(&self, resource: &Served) -> Option<&dyn Stock> {
        self.stocks.iter().find(|stock| stock.concerns(resource)).map(|stock| &**stock)
    }

    /// Writes an object that was `old` and becomes `new`.
    pub(super) async fn commit(
        &self,
        context: &WriteContext<'_>,
        write: Write,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Written, Status> {
        let key = write.key.clone();
        let operation = match (old, new) {
            (None, _) => Operation::Create,
            (_, Some(_)) => Operation::Update,
            (_, None) => Operation::Delete,
        };
        let Some(stock) = self.stock(context.resource) else {
            let began = Instant::now();
            let event = match &context.user.pin {
                None => patiently(self.store.commit(write)).await,
                pin => patiently(self.store.commit_pinned(vec![write], pin.as_ref()))
                    .await
                    .map(|events| events.and_then(first)),
            };
            measure(context.resource, operation, began, &event);
            return outcome(context, &key, event?);
        };
        let name = new.or(old).map(object::name).unwrap_or_default();
        let change = Change { namespace: context.namespace, name, old, new };
        loop {
            let Some(companions) = stock.companions(change).await? else { return Ok(Written::Taken) };
            let mut writes = vec![write.clone()];
            for companion in companions {
                writes.push(self.write_of(context, companion).await?);
            }
            let pin = context.user.pin.as_ref();
            let began = Instant::now();
            let events = patiently(self.store.commit_pinned(writes, pin)).await;
            measure(context.resource, operation, began, &events);
            match events?.and_then(first) {
                // Somebody else took from the stock: the companions are made anew.
                Err(store::Error::Conflict { key: lost, .. })
                    if lost != key && pin.is_none_or(|pin| lost != pin.key) => {}
                event => return outcome(context, &key, event),
            }
        }
    }

    /// Waits until everybody can see the state of an object that an answer speaks of without writing it.
    pub(super) async fn settled(&self, key: &store::Key) -> Result<(), Status> {
        patiently(self.store.settled(key)).await?.map_err(store_error)
    }

    async fn write_of(&self, context: &WriteContext<'_>, companion: Companion) -> Result<Write, Status> {
        let (resource, mut value) = match companion {
            Companion::Write(write) => return Ok(write),
            Companion::Create(resource, value) => (resource, value),
        };
        let now = self.now();
        object::set_meta(&mut value, "creationTimestamp", now.to_string());
        object::set_meta(&mut value, "uid", uuid::Uuid::new_v4().to_string());
        let own = WriteContext::own(context.user, &resource, "", "");
        managed::track(&self.resources, &own, None, &mut value, now).await?;
        let body = self.encode(&resource, &value).await?;
        let key = resource.key(object::namespace(&value), object::name(&value));
        Ok(Write::put(key, body.stored().clone(), Expect::Absent))
    }
}

/// Counts a write. That somebody else wrote before is no failure.
fn measure<T>(
    resource: &Served,
    operation: Operation,
    began: Instant,
    came: &Result<store::Result<T>, Status>,
) {
    if let Some(measures) = resource.measures.get() {
        let failed = !matches!(came, Ok(Ok(_) | Err(store::Error::Conflict { .. })));
        measures.asked(operation, began, failed);
    }
}

/// The event of the first of several writes.
fn first(events: Vec<Arc<Event>>) -> store::Result<Arc<Event>> {
    events.into_iter().next().ok_or(store::Error::Closed)
}

fn outcome(
    context: &WriteContext<'_>,
    key: &store::Key,
    came: store::Result<Arc<Event>>,
) -> Result<Written, Status> {
    let pin = context.user.pin.as_ref();
    match came {
        Ok(event) => Ok(Written::Done(event)),
        Err(store::Error::Conflict { key: lost, .. }) if pin.is_some_and(|pin| lost == pin.key) => {
            // No conflict, which is tried again at once.
            let leases = GroupResource::new("coordination.k8s.io", "leases");
            Err(Status::forbidden(&leases, &lost.name, "somebody else leads by now"))
        }
        Err(store::Error::Conflict { key: lost, current }) if lost == *key => {
            Ok(Written::Lost { gone: current.is_none() })
        }
        Err(error) => Err(store_error(error)),
    }
}

/// Waits for the store, but not for ever: a disk that does not answer is no reason for clients to hang.
async fn patiently<T>(write: impl Future<Output = T>) -> Result<T, Status> {
    let late = |_| Status::timeout("request did not complete within the allotted timeout", 0);
    tokio::time::timeout(PATIENCE, write).await.map_err(late)
}
