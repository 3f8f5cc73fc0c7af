//! Kinds with a few facts beyond their schema: defaults, columns, what may not change.

use super::templates::immutable;
use super::{Column, Context, SelectableField, Strategy};
use apimachinery::field::ErrorList;
use apimachinery::time::Time;
use apimachinery::value::Value;

/// The facts of a kind; what is not said is as for all kinds.
pub(super) struct Plain {
    pub default: fn(&mut Value),
    pub prepare_for_create: fn(&mut Value, &Context),
    pub prepare_for_update: fn(&mut Value, &Value, &Context),
    pub validate: fn(&Value) -> ErrorList,
    /// What a new object must keep beside that.
    pub validate_create: fn(&Value, &Context) -> ErrorList,
    /// What an update must keep beside the immutable fields; `validate` where nothing is said.
    pub validate_update: fn(&Value, &Value, &Context) -> ErrorList,
    /// Paths of fields that an update leaves as they are.
    pub immutable: &'static [&'static [&'static str]],
    /// Of the new object and the old one.
    pub warnings: fn(&Value, Option<&Value>) -> Vec<String>,
    pub columns: &'static [Column],
    pub cells: fn(&Value, Time) -> Vec<Value>,
    pub fields: &'static [SelectableField],
    pub has_generation: bool,
}

impl Plain {
    /// Nothing said.
    pub(super) const NEW: Plain = Plain {
        default: |_| {},
        prepare_for_create: |_, _| {},
        prepare_for_update: |_, _, _| {},
        validate: |_| ErrorList::new(),
        validate_create: |_, _| ErrorList::new(),
        validate_update: |_, _, _| ErrorList::new(),
        immutable: &[],
        warnings: |_, _| Vec::new(),
        columns: &[],
        cells: |_, _| Vec::new(),
        fields: &[],
        has_generation: false,
    };
}

impl Strategy for Plain {
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn prepare_for_create(&self, object: &mut Value, context: &Context) {
        (self.prepare_for_create)(object, context);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &Context) {
        (self.prepare_for_update)(object, old, context);
    }

    fn validate(&self, object: &Value, context: &Context) -> ErrorList {
        let mut errors = (self.validate)(object);
        errors.extend((self.validate_create)(object, context));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &Context) -> ErrorList {
        let own = (self.validate_update)(object, old, context);
        if context.subresource == Some("status") {
            return own;
        }
        let mut errors = (self.validate)(object);
        errors.extend(own);
        self.immutable.iter().for_each(|path| immutable(&mut errors, object, old, path));
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, context: &Context) -> Vec<String> {
        if context.subresource.is_some() { Vec::new() } else { (self.warnings)(object, old) }
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
