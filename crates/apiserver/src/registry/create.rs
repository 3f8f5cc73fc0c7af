//! Creates.

use super::{Registry, Stored, WriteContext, managed, meta_rules, store_error};
use crate::admission::Operation;
use crate::object;
use apimachinery::status::Status;
use serde_json::Value;
use store::{Expect, Life, Write};

/// How often a generated name is drawn anew before the client is asked to (KEP-4420).
const NAME_ATTEMPTS: usize = 8;

/// What a create has beside the object.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// The name in the address, for creates on a named object's subresource.
    pub name: String,
}

impl Registry {
    /// Creates an object from a tree in the hub version, decoded but not defaulted. Returns the object and warnings.
    pub async fn create(
        &self,
        context: &WriteContext<'_>,
        mut value: Value,
    ) -> Result<(Stored, Vec<String>), Status> {
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
            object::set_meta(&mut value, "name", generate(&prefix));
        }
        let name = object::name(&value).to_owned();
        managed::track(&self.resources, context, None, &mut value, now).await?;
        self.mutate(context, Operation::Create, &name, &mut value, None).await?;
        self.default(resource, &mut value);

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
        let hooks = context.hook_context(now);
        resource.strategy.prepare_for_create(&mut value, &hooks);

        let mut errors = meta_rules::validate(resource, &value);
        errors.extend(resource.strategy.validate(&value, &hooks));
        if !errors.is_empty() {
            return Err(Status::invalid(&resource.group_kind(), object::name(&value), &errors));
        }
        let warnings = resource.strategy.warnings(&value, None, &hooks);
        let name = object::name(&value).to_owned();
        self.check(context, Operation::Create, &name, Some(&mut value), None).await?;
        self.insert(context, value, generated.then_some(prefix)).await.map(|stored| (stored, warnings))
    }

    async fn insert(
        &self,
        context: &WriteContext<'_>,
        mut value: Value,
        generate_name: Option<String>,
    ) -> Result<Stored, Status> {
        let resource = context.resource;
        for _ in 0..NAME_ATTEMPTS {
            let name = object::name(&value).to_owned();
            let key = resource.key(context.namespace, &name);
            let body = self.encode(resource, &value).await?;
            let outcome = if context.dry_run {
                match self.store.pending(&key) {
                    Some(_) => Err(None),
                    None => Ok(None),
                }
            } else {
                let life =
                    if resource.row.kind == "Event" { Life::Ttl(self.event_ttl) } else { Life::Forever };
                let write = Write::put(key, body.stored().clone(), Expect::Absent).living(life);
                match self.store.commit(write).await {
                    Ok(event) => Ok(Some(event)),
                    Err(store::Error::Conflict { .. }) => Err(None),
                    Err(error) => Err(Some(store_error(error))),
                }
            };
            match outcome {
                Ok(None) => return Ok(Stored { value, body, revision: 0, stale: false }),
                Ok(Some(event)) => return self.written(resource, value, body, &event.entry).await,
                Err(Some(status)) => return Err(status),
                Err(None) => match &generate_name {
                    Some(prefix) => object::set_meta(&mut value, "name", generate(prefix)),
                    None => return Err(Status::already_exists(&resource.group_resource(), &name)),
                },
            }
        }
        Err(Status::generate_name_conflict(&resource.group_resource(), object::name(&value), 1))
    }
}

/// Puts the request's namespace into the object, or refuses one that differs.
pub fn ensure_namespace(context: &WriteContext<'_>, value: &mut Value) -> Result<(), Status> {
    if !context.resource.row.namespaced {
        return Ok(());
    }
    match object::namespace(value) {
        "" => object::set_meta(value, "namespace", context.namespace),
        same if same == context.namespace => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

fn generate(prefix: &str) -> String {
    apimachinery::rand_name::generate_name(prefix)
}
