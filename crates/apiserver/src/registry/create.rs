//! Creates.

use super::commit::{Asked, Written};
use super::{Registry, Stored, WriteContext, managed, meta_rules};
use crate::admission::Operation;
use crate::object;
use crate::resources::Served;
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use store::{Expect, Write};

/// How often a generated name is drawn anew before the client is asked to (KEP-4420).
const NAME_ATTEMPTS: usize = 8;

/// How often an object is completed anew when somebody else took the same.
const STOCK_ATTEMPTS: usize = 64;

/// What a create has beside the object.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// The name in the address, for creates on a named object's subresource.
    pub name: String,
}

impl Registry {
    /// Like [`Self::create`], on the heap: for those who seldom create.
    pub(crate) fn creation<'a>(
        &'a self,
        context: &'a WriteContext<'_>,
        value: Value,
    ) -> BoxFuture<'a, Result<Stored, Status>> {
        Box::pin(self.create(context, value))
    }

    /// Creates an object from a tree in the hub version, decoded but not defaulted.
    pub async fn create(&self, context: &WriteContext<'_>, mut value: Value) -> Result<Stored, Status> {
        let resource = context.resource;
        let now = self.now();
        if !object::meta_str(&value, "resourceVersion").is_empty() && !context.dry_run {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        if let Some(why) = resource.strategy.forbids_create() {
            return Err(Status::forbidden(&resource.group_resource(), object::name(&value), why));
        }
        ensure_namespace(context, &mut value)?;
        for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            object::remove_meta(&mut value, key);
        }
        object::set_meta(&mut value, "creationTimestamp", now.to_string());
        object::set_meta(&mut value, "uid", uuid::Uuid::new_v4().to_string());
        self.default(resource, &mut value);
        let prefix = object::meta_str(&value, "generateName").to_owned();
        let generated = object::name(&value).is_empty() && !prefix.is_empty();
        if generated {
            object::set_meta(&mut value, "name", generate(resource, &prefix));
        }
        let name = object::name(&value).to_owned();
        managed::track(&self.resources, context, None, &mut value, now).await?;
        self.mutate(context, Operation::Create, &name, &mut value, None).await?;
        let generate_name = generated.then_some(prefix);
        if self.stock(resource).is_none() {
            return self.finish(context, value, &generate_name).await?.ok_or_else(taken);
        }
        // What one attempt takes from a stock is not asked of the next.
        for _ in 0..STOCK_ATTEMPTS {
            if let Some(created) = self.finish(context, value.clone(), &generate_name).await? {
                return Ok(created);
            }
        }
        Err(taken())
    }

    /// Completes, judges and writes a new object; nothing when somebody else took what it was completed with.
    async fn finish(
        &self,
        context: &WriteContext<'_>,
        mut value: Value,
        generate_name: &Option<String>,
    ) -> Result<Option<Stored>, Status> {
        let (resource, now) = (context.resource, self.now());
        if let Some(stock) = self.stock(resource) {
            let asked = Asked { resource, old: None, new: &mut value, dry_run: context.dry_run };
            stock.complete(asked).await?;
        }
        if resource.strategy.has_generation() {
            object::set_meta(&mut value, "generation", 1);
        }
        if resource.has_status()
            && !resource.strategy.takes_status_on_create()
            && let Some(map) = value.as_object_mut()
        {
            // Status is the business of the status subresource; what the strategy needs there, it sets.
            map.remove("status");
        }
        schema::gates::drop_disabled(&resource.table, resource.hub_ty, &mut value, None, &|g| {
            (self.gates)(g)
        });
        let labels = |key: &str| self.namespace_label(context.namespace, key);
        let judged = hooks::Judged::default();
        let hooks = context.hook_context(now, &labels, &*self.gates, Some(&judged));
        resource.strategy.prepare_for_create(&mut value, &hooks);

        let mut errors = resource.strategy.validate_first(&value, &hooks);
        let rest = resource.strategy.validate(&value, &hooks);
        // Kinds judge metadata themselves, before the rest, but for a few: theirs is looked at when nothing else is wrong.
        let right = errors.is_empty() && rest.is_empty();
        if right || !hooks::judges_metadata_last(&resource.row.group, &resource.row.kind) {
            errors.extend(meta_rules::validate(resource, &value));
        }
        errors.extend(rest);
        if !errors.is_empty() {
            return Err(Status::invalid(&resource.group_kind_of(&value), object::name(&value), &errors));
        }
        resource.strategy.warnings(&value, None, &hooks).into_iter().for_each(crate::context::warn);
        let name = object::name(&value).to_owned();
        self.check(context, Operation::Create, &name, &mut value, None).await?;
        self.insert(context, value, judged, generate_name).await
    }

    async fn insert(
        &self,
        context: &WriteContext<'_>,
        mut value: Value,
        judged: hooks::Judged,
        generate_name: &Option<String>,
    ) -> Result<Option<Stored>, Status> {
        let resource = context.resource;
        // Of the name that was judged.
        let mut judged = judged.into_inner();
        for _ in 0..NAME_ATTEMPTS {
            let name = object::name(&value).to_owned();
            let key = resource.key(context.namespace, &name);
            let body = self.encode(resource, &value).await?;
            let outcome = if context.dry_run {
                match self.store.pending(&key) {
                    Some(_) => {
                        self.settled(&key).await?;
                        Written::Lost { gone: false }
                    }
                    // What the client says of its version is not looked at.
                    None => {
                        let revision = object::meta_str(&value, "resourceVersion").parse().unwrap_or(0);
                        return Ok(Some(Stored { value, body, revision, stale: false }));
                    }
                }
            } else {
                self.offer(&body, judged.take());
                let write =
                    Write::put(key, body.stored().clone(), Expect::Absent).living(self.life(resource));
                self.commit(context, write, None, Some(&value)).await?
            };
            match outcome {
                Written::Done(event) => {
                    return self.written(resource, value, body, &event.entry).await.map(Some);
                }
                Written::Taken => return Ok(None),
                Written::Lost { .. } => match generate_name {
                    Some(prefix) => object::set_meta(&mut value, "name", generate(resource, prefix)),
                    None => return Err(Status::already_exists(&resource.group_resource(), &name)),
                },
            }
        }
        Err(Status::generate_name_conflict(&resource.group_resource(), object::name(&value), 1))
    }
}

fn taken() -> Status {
    Status::service_unavailable("what the object takes is given out faster than it can be found; try again")
}

/// Puts the request's namespace into the object, or refuses one that differs.
pub fn ensure_namespace(context: &WriteContext<'_>, value: &mut Value) -> Result<(), Status> {
    if !context.resource.row.namespaced {
        object::remove_meta(value, "namespace");
        return Ok(());
    }
    same_namespace(context.namespace, value)?;
    if object::namespace(value).is_empty() {
        object::set_meta(value, "namespace", context.namespace);
    }
    Ok(())
}

/// Refuses an object that names another namespace than the request does.
pub(crate) fn same_namespace(namespace: &str, value: &Value) -> Result<(), Status> {
    match object::namespace(value) {
        other if !other.is_empty() && !namespace.is_empty() && other != namespace => {
            Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ))
        }
        _ => Ok(()),
    }
}

fn generate(resource: &Served, prefix: &str) -> String {
    match hooks::randomizes(&resource.row.group, &resource.row.kind) {
        true => apimachinery::rand_name::generate_name(prefix),
        false => prefix.to_owned(),
    }
}
