//! Updates: replace, patch, apply and every subresource that edits the object.

use super::commit::{Asked, Written};
use super::create::ensure_namespace;
use super::{Registry, Stored, WriteContext, managed, meta_rules};
use crate::admission::Operation;
use crate::object;
use crate::resources::Served;
use apimachinery::status::Status;
use apimachinery::value::{Key, Value};
use futures::future::BoxFuture;
use store::{Expect, Write};

/// How an update may behave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpdateOptions {
    /// Create the object when it is absent (apply, and kinds that allow it).
    pub create: bool,
    /// The change replaces the whole object, so that its resourceVersion is the client's precondition.
    pub replace: bool,
}

/// Makes the new object from the current one (absent when it does not exist), both in the hub version and in the form
/// that decoding gives. It may run more than once.
pub type Change<'a> = dyn Fn(Option<&Value>) -> BoxFuture<'a, Result<Value, Status>> + Send + Sync + 'a;

/// The words upstream's `Conflict` has when a resourceVersion does not match.
const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// What an update came to.
#[derive(Debug)]
pub struct Updated {
    pub stored: Stored,
    pub created: bool,
}

enum Attempt {
    Done(Updated),
    /// Somebody else wrote in between, and the client did not ask for a certain version.
    Again,
}

impl Registry {
    /// Changes one object. The loop ends with the first attempt that nobody got ahead of.
    pub async fn update(
        &self,
        context: &WriteContext<'_>,
        name: &str,
        options: UpdateOptions,
        change: &Change<'_>,
    ) -> Result<Updated, Status> {
        loop {
            match self.attempt(context, name, options, change).await {
                Ok(Attempt::Done(updated)) => return Ok(updated),
                Ok(Attempt::Again) => {}
                Err(refusal) => {
                    self.settled(&context.resource.key(context.namespace, name)).await?;
                    return Err(refusal);
                }
            }
        }
    }

    /// Edits an object in a way that only the server can: without admission and the kind's update rules, which speak of
    /// what clients may do. Returns the object as stored.
    pub async fn edit(
        &self,
        context: &WriteContext<'_>,
        name: &str,
        edit: &(dyn Fn(&mut Value) -> Result<(), Status> + Send + Sync),
    ) -> Result<Stored, Status> {
        let resource = context.resource;
        let key = resource.key(context.namespace, name);
        loop {
            let current = self.newest(resource, &key).await?.ok_or_else(|| resource.not_found(name))?;
            let mut value = current.value.clone();
            edit(&mut value)?;
            let value = schema::decode::normalise(
                &resource.table,
                resource.hub_ty,
                value,
                schema::decode::FieldValidation::Ignore,
            );
            let value = value.map_err(Status::internal_error)?.value;
            let body = self.encode(resource, &value).await?;
            if context.dry_run || body.json() == current.body.json() && !current.stale {
                self.settled(&key).await?;
                return Ok(Stored { value, body, revision: current.revision, stale: false });
            }
            let write = Write::put(
                key.clone(),
                body.stored().clone(),
                Expect::Revision(store::Revision(current.revision)),
            );
            if let Written::Done(event) =
                self.commit(context, write, Some(&current.value), Some(&value)).await?
            {
                return self.written(resource, value, body, &event.entry).await;
            }
        }
    }

    async fn attempt(
        &self,
        context: &WriteContext<'_>,
        name: &str,
        options: UpdateOptions,
        change: &Change<'_>,
    ) -> Result<Attempt, Status> {
        let resource = context.resource;
        let key = resource.key(context.namespace, name);
        let Some(current) = self.newest(resource, &key).await? else {
            if !options.create {
                return Err(resource.not_found(name));
            }
            let mut value = change(None).await?;
            let uid = object::uid(&value);
            if !uid.is_empty() {
                let why = if options.replace {
                    format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ")
                } else {
                    format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    )
                };
                return Err(Status::conflict(&resource.group_resource(), name, why));
            }
            object::remove_meta(&mut value, "resourceVersion");
            object::set_meta(&mut value, "name", name);
            let stored = self.creation(context, value).await?;
            return Ok(Attempt::Done(Updated { stored, created: true }));
        };
        let old = &current.value;
        let mut value = change(Some(old)).await?;
        ensure_namespace(context, &mut value)?;

        // The client's resourceVersion is a precondition; without one the write applies to whatever is there.
        let asked = object::meta_str(&value, "resourceVersion").to_owned();
        let conditional =
            !asked.is_empty() && asked != "0" && (options.replace || asked != current.revision.to_string());
        if !asked.is_empty() && asked != "0" && asked.parse::<u64>().is_err() {
            return Err(Status::bad_request(format!(
                "resourceVersion: Invalid value: {asked:?}: strconv.ParseUint: parsing {asked:?}: invalid syntax"
            )));
        }
        let uid = object::uid(&value).to_owned();
        if options.replace && !uid.is_empty() && uid != object::uid(old) {
            return Err(another(resource, (context.namespace, name), &uid, old));
        }
        if matches!(asked.as_str(), "" | "0") && options.replace && resource.put_needs_version() {
            let at = apimachinery::field::Path::new("metadata").child("resourceVersion");
            let error = apimachinery::field::Error::invalid(&at, 0, "must be specified for an update");
            // Upstream names the resource where it otherwise names the kind.
            let resource = resource.group_resource();
            let named = apimachinery::gvk::GroupKind::new(resource.group, resource.resource);
            return Err(Status::invalid(&named, name, &error.into()));
        }
        if conditional && asked != current.revision.to_string() {
            return Err(Status::conflict(&resource.group_resource(), name, MODIFIED));
        }
        self.default(resource, &mut value);
        keep_system_fields(&mut value, old);
        managed::track(&self.resources, context, Some(old), &mut value, self.now()).await?;
        self.mutate(context, Operation::Update, name, &mut value, Some(old)).await?;
        keep_system_fields(&mut value, old);
        self.separate(context, &mut value, old);
        schema::gates::drop_disabled(&resource.table, resource.hub_ty, &mut value, Some(old), &|g| {
            (self.gates)(g)
        });
        if let Some(stock) = self.stock(resource).filter(|_| context.subresource.is_empty()) {
            let asked = Asked { resource, old: Some(old), new: &mut value, dry_run: context.dry_run };
            stock.complete(asked).await?;
        }
        let labels = |key: &str| self.namespace_label(context.namespace, key);
        let judged = hooks::Judged::default();
        let hooks = context.hook_context(self.now(), &labels, &*self.gates, Some(&judged));
        resource.strategy.prepare_for_update(&mut value, old, &hooks);
        if context.subresource != "status" && resource.strategy.has_generation() && spec_differs(&value, old)
        {
            object::set_meta(&mut value, "generation", object::generation(old) + 1);
        }

        let mut errors = meta_rules::validate_update(resource, context.subresource, &value, old);
        errors.extend(resource.strategy.validate_update(&value, old, &hooks));
        if !errors.is_empty() {
            return Err(Status::invalid(&resource.group_kind_of(&value), name, &errors));
        }
        resource.strategy.warnings(&value, Some(old), &hooks).into_iter().for_each(crate::context::warn);
        self.check(context, Operation::Update, name, &mut value, Some(old)).await?;

        // Upstream drops it where it stores, and only there.
        if !context.dry_run {
            object::remove_meta(&mut value, "selfLink");
        }
        managed::keep_times(&mut value, old);

        // The last finalizer of an object that is being deleted is gone: so is the object.
        if deleted_by(&value) {
            if !context.dry_run {
                let write = Write::delete(key, Expect::Revision(store::Revision(current.revision)));
                match self.commit(context, write, Some(old), None).await? {
                    Written::Done(_) => {}
                    Written::Lost { .. } if conditional => {
                        return Err(Status::conflict(&resource.group_resource(), name, MODIFIED));
                    }
                    Written::Lost { .. } | Written::Taken => return Ok(Attempt::Again),
                }
            }
            let body = self.encode(resource, &value).await?;
            let stored = Stored { value, body, revision: current.revision, stale: false };
            return Ok(Attempt::Done(Updated { stored, created: false }));
        }
        let body = self.encode(resource, &value).await?;
        if body.json() == current.body.json() && !current.stale {
            self.settled(&key).await?;
            let stored =
                Stored { value, body: current.body.clone(), revision: current.revision, stale: false };
            return Ok(Attempt::Done(Updated { stored, created: false }));
        }
        if context.dry_run {
            let stored = Stored { value, body, revision: current.revision, stale: false };
            return Ok(Attempt::Done(Updated { stored, created: false }));
        }
        self.offer(&body, judged.into_inner());
        let expected = Expect::Revision(store::Revision(current.revision));
        let write = Write::put(key, body.stored().clone(), expected).living(self.life(resource));
        match self.commit(context, write, Some(old), Some(&value)).await? {
            Written::Done(event) => {
                let stored = self.written(resource, value, body, &event.entry).await?;
                Ok(Attempt::Done(Updated { stored, created: false }))
            }
            Written::Lost { gone: true } => Err(resource.not_found(name)),
            Written::Lost { .. } if conditional => {
                Err(Status::conflict(&resource.group_resource(), name, MODIFIED))
            }
            Written::Lost { .. } | Written::Taken => Ok(Attempt::Again),
        }
    }

    /// What the way of this write cannot set stays as it is.
    fn separate(&self, context: &WriteContext<'_>, value: &mut Value, old: &Value) {
        let row = &context.resource.row;
        let has_status = context.resource.has_status();
        if context.subresource == "status" {
            // All that is neither metadata nor status is somebody else's.
            for (key, kept) in old.as_object().into_iter().flatten() {
                if !matches!(key.as_str(), "metadata" | "status" | "kind" | "apiVersion") {
                    value[key] = kept.clone();
                }
            }
            if let Some(map) = value.as_object_mut() {
                map.retain(|key, _| key == "status" || old.get(key).is_some());
            }
        }
        for path in hooks::kept_fields(&row.group, &row.kind, context.subresource, has_status) {
            match path {
                ["metadata"] => METADATA_OF_CLIENTS.iter().for_each(|key| object::copy_meta(value, old, key)),
                ["metadata", key] => object::copy_meta(value, old, key),
                [key] => object::copy_member(value, old, key),
                [outer, key] => match old[outer].get(key) {
                    Some(kept) => value[outer][key] = kept.clone(),
                    None => {
                        if let Some(map) = value[outer].as_object_mut() {
                            map.remove(key);
                        }
                    }
                },
                _ => {}
            }
        }
    }
}

/// The metadata that clients set and status updates of some kinds keep (upstream's ResetObjectMetaForStatus).
const METADATA_OF_CLIENTS: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];

/// What only the server sets.
fn keep_system_fields(value: &mut Value, old: &Value) {
    for key in ["creationTimestamp", "generation"] {
        object::copy_meta(value, old, key);
    }
    if object::uid(value).is_empty() {
        object::copy_meta(value, old, "uid");
    }
    // A deletion that has begun goes on; who tries to begin one so hears of it in validation.
    if object::is_being_deleted(old) {
        object::copy_meta(value, old, "deletionTimestamp");
    }
    if object::deletion_grace_period(value).is_none() {
        object::copy_meta(value, old, "deletionGracePeriodSeconds");
    }
    if object::name(value).is_empty() {
        object::copy_meta(value, old, "name");
    }
}

/// Whether anything but metadata and status changed.
fn spec_differs(value: &Value, old: &Value) -> bool {
    const IGNORED: [&str; 4] = ["metadata", "status", "kind", "apiVersion"];
    fn outside(v: &Value) -> impl Iterator<Item = (&Key, &Value)> {
        v.as_object().into_iter().flatten().filter(|(k, _)| !IGNORED.contains(&k.as_str()))
    }
    !outside(value).eq(outside(old))
}

/// Whether the object is deleted by this write: it is being deleted, its grace period is over, no finalizer is left.
fn deleted_by(value: &Value) -> bool {
    object::is_being_deleted(value)
        && object::finalizers(value).is_empty()
        && object::deletion_grace_period(value).is_none_or(|g| g == 0)
        // A namespace has finalizers of its own in its spec.
        && value["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty)
}

/// The refusal of an update of another object than the one that has the name.
pub(crate) fn another(resource: &Served, (namespace, name): (&str, &str), uid: &str, old: &Value) -> Status {
    let key = format!("{}{}", resource.prefix, resource.key_name(namespace, name));
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
        key.strip_prefix("/registry").unwrap_or(&key),
        object::uid(old)
    );
    Status::conflict(&resource.group_resource(), name, why)
}
