//! Deletes: at once, gracefully, or held up by finalizers.

use super::commit::Written;
use super::{Registry, Stored, WriteContext};
use crate::object;
use apimachinery::gvk::GroupResource;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::status::Status;
use apimachinery::time::Duration;
use apimachinery::value::Value;
use store::{Expect, Revision, Write};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a delete came to.
#[derive(Debug)]
pub enum DeleteOutcome {
    /// The object is gone; its last state.
    Gone(Stored),
    /// The object is still there, being deleted.
    Pending(Stored),
}

/// The `Status` that answers a completed deletion.
pub fn delete_message(context: &WriteContext<'_>, stored: &Stored) -> Status {
    let mut status = Status::success();
    // Upstream leaves the code to the answer's head here.
    status.code = 0;
    status.details = Some(Box::new(apimachinery::status::StatusDetails {
        name: object::name(&stored.value).to_owned(),
        group: context.resource.row.group.to_string(),
        kind: context.resource.row.resource.to_string(),
        uid: object::uid(&stored.value).to_owned(),
        ..Default::default()
    }));
    status
}

impl Registry {
    /// Deletes one object as `options` ask.
    pub async fn delete(
        &self,
        context: &WriteContext<'_>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<DeleteOutcome, Status> {
        let key = context.resource.key(context.namespace, name);
        loop {
            let Some(outcome) = self.try_delete(context, name, options).await.transpose() else { continue };
            if !matches!(outcome, Ok(DeleteOutcome::Gone(_))) {
                self.settled(&key).await?;
            }
            return outcome;
        }
    }

    /// One attempt; `None` when somebody else wrote in between.
    async fn try_delete(
        &self,
        context: &WriteContext<'_>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Option<DeleteOutcome>, Status> {
        let resource = context.resource;
        let key = resource.key(context.namespace, name);
        let Some(mut current) = self.newest(resource, &key).await? else {
            return Err(resource.not_found(name));
        };
        preconditions(context, name, options, &current)?;
        // A deletion by a subresource, which an eviction is, was admitted as the creation of that.
        if context.subresource.is_empty() {
            self.check_deletion(context, name, &current.value).await?;
        }

        let mut value = current.value.clone();
        let deleting = object::is_being_deleted(&value);
        if !deleting {
            let labels = |key: &str| self.namespace_label(context.namespace, key);
            resource
                .strategy
                .begin_deletion(&mut value, &context.hook_context(self.now(), &labels, &*self.gates, None));
        }
        let wanted = finalizers(context, &value, options);
        object::set_finalizers(&mut value, wanted);
        let asked = options.grace_period_seconds;
        let mut grace = resource.strategy.deletion_grace_period(&value, asked);
        let held = !object::finalizers(&value).is_empty()
            || hooks::holds_itself(&resource.row.group, &resource.row.kind, &value);
        if deleting {
            // A second delete may only shorten the time that is left.
            let left = object::deletion_grace_period(&value).unwrap_or(0);
            if let Some(wish) = grace {
                if wish >= left && left > 0 {
                    return Ok(Some(DeleteOutcome::Pending(current)));
                }
                grace = Some(wish.min(left));
            }
        }
        let grace = grace.unwrap_or(0).max(0);
        if grace == 0 && !held {
            if hooks::shows_end(&resource.row.group, &resource.row.kind) {
                self.mark(&mut value, deleting, grace);
                current.body = self.encode(resource, &value).await?;
                current.value = value;
            }
            if context.dry_run {
                return Ok(Some(DeleteOutcome::Gone(current)));
            }
            let write = Write::delete(key, Expect::Revision(Revision(current.revision)));
            return match self.commit(context, write, Some(&current.value), None).await? {
                Written::Done(event) => {
                    let mut last = current;
                    last.revision = event.revision.0;
                    object::set_meta(&mut last.value, "resourceVersion", last.revision.to_string());
                    Ok(Some(DeleteOutcome::Gone(last)))
                }
                Written::Lost { .. } | Written::Taken => Ok(None),
            };
        }
        self.mark(&mut value, deleting, grace);
        hooks::mark_deleted(&resource.row.group, &resource.row.kind, &mut value);
        let body = self.encode(resource, &value).await?;
        if context.dry_run || body.json() == current.body.json() {
            return Ok(Some(DeleteOutcome::Pending(Stored {
                value,
                body,
                revision: current.revision,
                stale: false,
            })));
        }
        let write = Write::put(key, body.stored().clone(), Expect::Revision(Revision(current.revision)));
        match self.commit(context, write, Some(&current.value), Some(&value)).await? {
            Written::Done(event) => {
                let stored = self.written(resource, value, body, &event.entry).await?;
                Ok(Some(DeleteOutcome::Pending(stored)))
            }
            Written::Lost { .. } | Written::Taken => Ok(None),
        }
    }
}

impl Registry {
    /// Says in an object when its deletion ends, and that it is another state of it when that was not yet known.
    fn mark(&self, value: &mut Value, deleting: bool, grace: i64) {
        if deleting && object::deletion_grace_period(value).unwrap_or(grace) == grace {
            return;
        }
        let end = self.now().plus(Duration::from_seconds(grace));
        object::set_meta(value, "deletionTimestamp", end.to_string());
        object::set_meta(value, "deletionGracePeriodSeconds", grace);
        if !deleting && object::generation(value) > 0 {
            let generation = object::generation(value) + 1;
            object::set_meta(value, "generation", generation);
        }
    }
}

fn preconditions(
    context: &WriteContext<'_>,
    name: &str,
    options: &DeleteOptions,
    current: &Stored,
) -> Result<(), Status> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    // Upstream mostly names the kind here where it otherwise names the resource.
    let row = &context.resource.row;
    let (group, kind) = hooks::precondition_resource(&row.group, &row.kind);
    let kind = GroupResource::new(group.to_owned(), kind.to_owned());
    let conflict = |what: &str, wanted: &str, have: &str, why: &str| {
        let said = if hooks::precondition_of_storage(&row.group, &row.kind) {
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {have}")
        } else {
            format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({have}). The object might have been {why}"
            )
        };
        Err(Status::conflict(&kind, name, said))
    };
    let uid = object::uid(&current.value);
    if let Some(wanted) = wanted.uid.as_deref().filter(|w| *w != uid) {
        return conflict("UID", wanted, uid, "deleted and then recreated");
    }
    let revision = current.revision.to_string();
    if let Some(wanted) = wanted.resource_version.as_deref().filter(|w| *w != revision) {
        return conflict("ResourceVersion", wanted, &revision, "modified");
    }
    Ok(())
}

/// The object's finalizers, with those of the garbage collector as the propagation policy asks.
fn finalizers(context: &WriteContext<'_>, value: &Value, options: &DeleteOptions) -> Vec<String> {
    let mut list: Vec<String> = object::finalizers(value).into_iter().map(Into::into).collect();
    let policy = match (options.orphan_dependents, options.propagation_policy.as_deref()) {
        (Some(true), _) | (None, Some("Orphan")) => Some(ORPHAN),
        (None, Some("Foreground")) => Some(FOREGROUND),
        (Some(false), _) | (None, Some("Background")) => None,
        // No wish: what is already there stays.
        _ if hooks::orphans_by_default(&context.resource.row.group, &context.resource.row.kind)
            && !object::is_being_deleted(value) =>
        {
            Some(ORPHAN)
        }
        _ => return list,
    };
    list.retain(|f| f != ORPHAN && f != FOREGROUND);
    list.extend(policy.map(Into::into));
    list
}
