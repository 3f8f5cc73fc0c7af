//! What a kind does beyond its schema: one file per kind, in a folder per group, one line in that folder's list.
//!
//! The generic path does for every kind what rows and metadata say (decoding, table defaults, pruning, metadata
//! validation, generation, separation of spec and status). A strategy adds the rest. Defaulting and preparing edit the
//! tree, so that nothing unknown is lost on the way; validation reads structs. All of it is pure.

mod admission_policies;
mod admissionregistration;
mod admissionregistration_validation;
pub mod apiextensions;
mod apiextensions_stored;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod check;
mod core;
mod counts;
mod deletion;
mod deprecations;
mod diff;
mod discovery;
mod discovery_validation;
pub mod expressions;
mod flowcontrol;
mod flowcontrol_validation;
mod inside;
mod judged;
mod metadata;
mod names;
mod networking;
mod networking_validation;
mod pem_blocks;
mod plain;
mod pod_certificates;
mod policy;
mod put;
mod rbac;
mod reset;
mod resource;
mod shown;
mod signer_name;
mod small_groups;
mod storage;
mod storage_validation;
mod templates;
mod tree;
mod trust_bundles;
mod versions;
mod views;
mod webhook_client;

pub use apps::hidden_annotation;
pub use core::toleration_errors;
pub use deletion::{
    deletion_warning, holds_itself, mark_deleted, orphans_by_default, precondition_of_storage,
    precondition_resource, shows_end,
};
pub use deprecations::{deprecation, removed_release};
pub use judged::Judged;
pub use metadata::{Finalizers, Judgement, finalizers, judges_metadata_last, metadata_judgements};
pub use names::{name_errors, randomizes};
pub use put::{put_creates, put_needs_version};
pub use reset::{Fields, OF_CUSTOM_STATUS, kept_fields, reset_fields};
pub use tree::object_age;
pub use views::{has_table, unknown_field};

use apimachinery::field::ErrorList;
use apimachinery::time::Time;
use apimachinery::value::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Looks up labels of the namespace that a request is about; few rules ask for them.
#[derive(Clone, Copy)]
pub struct NamespaceLabels<'a>(pub &'a (dyn Fn(&str) -> Option<String> + Send + Sync));

impl std::fmt::Debug for NamespaceLabels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamespaceLabels").finish_non_exhaustive()
    }
}

/// Whether a feature gate is on; for what the table's gates cannot say.
#[derive(Clone, Copy)]
pub struct Gates<'a>(pub &'a (dyn Fn(&str) -> bool + Send + Sync));

impl std::fmt::Debug for Gates<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gates").finish_non_exhaustive()
    }
}

/// Everything a hook may know beside the object.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub user: &'a str,
    pub uid: &'a str,
    pub groups: &'a [String],
    pub extra: &'a BTreeMap<String, Vec<String>>,
    pub now: Time,
    pub namespace: NamespaceLabels<'a>,
    pub gates: Gates<'a>,
    /// The apiVersion of the request.
    pub api_version: &'a str,
    /// `status`, `scale`, `resize`, …; absent for the object itself.
    pub subresource: Option<&'a str>,
    /// Where the typed form of the object is left, if somebody wants it afterwards.
    pub judged: Option<&'a Judged>,
}

/// A column of `kubectl get` (metav1.TableColumnDefinition).
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub ty: &'static str,
    pub format: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    pub description: &'static str,
}

/// A field that field selectors may name, and its value in an object (empty when absent).
pub type SelectableField = (&'static str, fn(&Value) -> String);

/// Where an object has the numbers of its `scale` subresource, as names from the root.
#[derive(Debug, Clone, Default)]
pub struct ScalePaths {
    pub spec_replicas: Vec<String>,
    pub status_replicas: Vec<String>,
    /// A label selector as text.
    pub selector: Option<Vec<String>>,
}

/// What a kind does beyond its schema.
pub trait Strategy: Send + Sync {
    /// Fills in what depends on more than one field, or on the kind's own rules. Runs after the table's defaults, on
    /// every decoded version and again after webhooks; must be idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Clears and sets what the server owns before a create (upstream's PrepareForCreate).
    fn prepare_for_create(&self, _object: &mut Value, _context: &Context) {}

    /// The same before an update (PrepareForUpdate). The generic path has already kept the status on an update of the
    /// object, and kept everything but the status on an update of `status`.
    fn prepare_for_update(&self, _object: &mut Value, _old: &Value, _context: &Context) {}

    /// What is wrong with a new object and is told before what is wrong with its metadata.
    fn validate_first(&self, _object: &Value, _context: &Context) -> ErrorList {
        ErrorList::default()
    }

    /// All that is wrong with a new object.
    fn validate(&self, _object: &Value, _context: &Context) -> ErrorList {
        ErrorList::default()
    }

    /// All that is wrong with a changed object, or with the change.
    fn validate_update(&self, _object: &Value, _old: &Value, _context: &Context) -> ErrorList {
        ErrorList::default()
    }

    /// Texts for the `Warning` header.
    fn warnings(&self, _object: &Value, _old: Option<&Value>, _context: &Context) -> Vec<String> {
        Vec::new()
    }

    /// Columns after which `cells` are ordered; empty for Name and Age alone.
    fn columns(&self) -> &'static [Column] {
        &[]
    }

    /// One cell per column.
    fn cells(&self, _object: &Value, _now: Time) -> Vec<Value> {
        Vec::new()
    }

    /// What is to be said of an object's row beside its cells, each with type, status, reason and message.
    fn row_conditions(&self, _object: &Value) -> Vec<Value> {
        Vec::new()
    }

    /// The column definitions of the kind's table; none for Name and Age alone.
    fn column_definitions(&self) -> Option<Value> {
        let one = |c: &Column| {
            apimachinery::json!({
                "name": c.name, "type": c.ty, "format": c.format, "description": c.description,
                "priority": c.priority,
            })
        };
        let columns = self.columns();
        (!columns.is_empty()).then(|| columns.iter().map(one).collect())
    }

    /// Selectable fields beside `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self) -> &'static [SelectableField] {
        &[]
    }

    /// The selectable field that field selectors of an API version name so.
    fn selectable<'a>(&self, _api_version: &str, field: &'a str) -> Option<Cow<'a, str>> {
        self.selectable_fields().iter().any(|(name, _)| *name == field).then_some(Cow::Borrowed(field))
    }

    /// The selectable fields of an object.
    fn selected(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        self.selectable_fields().iter().map(|(name, read)| (Cow::Borrowed(*name), read(object))).collect()
    }

    /// Edits an object whose deletion begins: finalizers of the server's own.
    fn begin_deletion(&self, _object: &mut Value, _context: &Context) {}

    /// Why nothing of this kind may be created now.
    fn forbids_create(&self) -> Option<&str> {
        None
    }

    /// Where the numbers of the `scale` subresource stand; none for `spec.replicas` and its companions.
    fn scale_paths(&self) -> Option<&ScalePaths> {
        None
    }

    /// The grace period a deletion of this object gets, in seconds; `None` deletes at once (all but pods).
    /// `asked` is the client's wish.
    fn deletion_grace_period(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether the part of the object outside `metadata` and `status` counts for `metadata.generation`; kinds without a
    /// spec have none.
    fn has_generation(&self) -> bool {
        true
    }

    /// Whether objects live for a while only (the server's `--event-ttl`), however often they are written.
    fn expires(&self) -> bool {
        false
    }

    /// Whether an object may be created with a status: what registers itself brings its own.
    fn takes_status_on_create(&self) -> bool {
        false
    }
}

/// The strategy of a kind that has no file of its own.
#[derive(Debug)]
pub struct SchemaOnly;

impl Strategy for SchemaOnly {
    fn has_generation(&self) -> bool {
        false
    }
}

/// Group, kind, and what the kind does.
type Row = (&'static str, &'static str, &'static dyn Strategy);

/// The strategies of each group's folder.
const STRATEGIES: &[&[Row]] = &[
    admission_policies::STRATEGIES,
    admissionregistration::STRATEGIES,
    apiextensions::STRATEGIES,
    apiregistration::STRATEGIES,
    apps::STRATEGIES,
    autoscaling::STRATEGIES,
    batch::STRATEGIES,
    certificates::STRATEGIES,
    core::STRATEGIES,
    discovery::STRATEGIES,
    flowcontrol::STRATEGIES,
    networking::STRATEGIES,
    pod_certificates::STRATEGIES,
    policy::STRATEGIES,
    rbac::STRATEGIES,
    resource::STRATEGIES,
    small_groups::STRATEGIES,
    storage::STRATEGIES,
    trust_bundles::STRATEGIES,
];

fn row(group: &str, kind: &str) -> Option<&'static Row> {
    STRATEGIES.iter().copied().flatten().find(|(g, k, _)| *g == group && *k == kind)
}

/// The strategy of a kind; kinds without a file are served by schema alone.
pub fn strategy(group: &str, kind: &str) -> &'static dyn Strategy {
    row(group, kind).map_or(&SchemaOnly, |(_, _, s)| *s)
}

/// Turns an object of one version into another version of its kind.
pub type Conversion = fn(Value) -> Value;

/// Group and kind, from version, to version, and how. A version without a row to and from its hub is not served.
type ConversionRow = (&'static str, &'static str, &'static str, &'static str, Conversion);

/// The conversions of each group's folder.
const CONVERSIONS: &[&[ConversionRow]] =
    &[apiextensions_stored::CONVERSIONS, autoscaling::CONVERSIONS, core::CONVERSIONS, versions::CONVERSIONS];

/// Whether objects of a kind can be brought from one version to another.
pub fn converts(group: &str, kind: &str, from: &str, to: &str) -> bool {
    from == to
        || versions::ONE_SHAPE.contains(&(group, kind))
        || CONVERSIONS
            .iter()
            .copied()
            .flatten()
            .any(|(g, k, f, t, _)| *g == group && *k == kind && *f == from && *t == to)
}

/// Converts an object between served versions and sets its `apiVersion` to `to`.
pub fn convert(group: &str, kind: &str, from: &str, to: &str, object: Value) -> Value {
    let found = CONVERSIONS
        .iter()
        .copied()
        .flatten()
        .find(|(g, k, f, t, _)| *g == group && *k == kind && *f == from && *t == to);
    let mut object = match found {
        Some((.., conversion)) => conversion(object),
        None => object,
    };
    object["apiVersion"] = to.into();
    object
}
