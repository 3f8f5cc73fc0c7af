//! Counts in the statuses of kinds that keep pods: none is below zero, none above what it is a part of, and collisions
//! are only ever added.

use super::check::Check;
use super::tree::{at, int};
use apimachinery::field::{ErrorList, Path};
use apimachinery::value::Value;

const COLLISIONS: &str = "collisionCount";

/// The counts of a kind.
pub(super) struct Counts {
    /// In upstream's order.
    pub fields: &'static [&'static str],
    /// What is no more than what, and what is said where it is.
    pub within: &'static [(&'static str, &'static str, &'static str)],
}

impl Counts {
    /// A status, and the one before it.
    pub(super) fn validate(&self, object: &Value, old: &Value) -> ErrorList {
        let mut check = Check::default();
        let path = Path::new("status");
        let count = |field: &str| int(object, &["status", field]);
        self.fields.iter().for_each(|field| check.not_negative(&path.child(*field), count(field)));
        for (field, whole, why) in self.within {
            if count(field) > count(whole) {
                check.invalid(&path.child(*field), count(field), *why);
            }
        }
        let collisions = |object| at(object, &["status", COLLISIONS]).and_then(Value::as_i64);
        let fewer = match (collisions(object), collisions(old)) {
            (Some(now), Some(then)) => now < then,
            (now, then) => now.is_none() && then.is_some(),
        };
        if fewer && self.fields.contains(&COLLISIONS) {
            check.invalid(&path.child(COLLISIONS), count(COLLISIONS), "cannot be decremented");
        }
        check.0
    }
}
