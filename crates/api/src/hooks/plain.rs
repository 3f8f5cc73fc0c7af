//! Kinds with a few facts beyond their schema: defaults, columns, what may not change.

use super::templates::immutable;
use super::{Column, Context, SelectableField, Strategy};
use apimachinery::field::ErrorList;
use apimachinery::time::Time;
use serde_json::Value;

/// The facts of a kind; what is not said is as for all kinds.
pub(super) struct Plain {
    pub default: fn(&mut Value),
    pub prepare_for_create: fn(&mut Value),
    pub validate: fn(&Value) -> ErrorList,
    /// Paths of fields that an update leaves as they are.
    pub immutable: &'static [&'static [&'static str]],
    pub columns: &'static [Column],
    pub cells: fn(&Value, Time) -> Vec<Value>,
    pub fields: &'static [SelectableField],
    pub has_generation: bool,
}

impl Plain {
    /// Nothing said.
    pub(super) const NEW: Plain = Plain {
        default: |_| {},
        prepare_for_create: |_| {},
        validate: |_| ErrorList::new(),
        immutable: &[],
        columns: &[],
        cells: |_, _| Vec::new(),
        fields: &[],
        has_generation: true,
    };
}

impl Strategy for Plain {
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _: &Context) {
        (self.prepare_for_create)(object);
    }

    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        (self.validate)(object)
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &Context) -> ErrorList {
        if context.subresource == Some("status") {
            return ErrorList::new();
        }
        let mut errors = (self.validate)(object);
        self.immutable.iter().for_each(|path| immutable(&mut errors, object, old, path));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        self.columns
    }

    fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        (self.cells)(object, now)
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        self.fields
    }

    fn has_generation(&self) -> bool {
        self.has_generation
    }
}
