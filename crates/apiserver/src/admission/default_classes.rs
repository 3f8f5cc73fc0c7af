//! DefaultStorageClass and DefaultIngressClass: claims and Ingresses that name no class get the default one, if there is
//! one; the newest where there are several.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use apimachinery::status::Status;
use std::sync::Arc;

/// One of the two plugins.
pub(super) struct DefaultClass {
    pub name: &'static str,
    pub classes: Arc<Objects>,
    /// The group and resource that has a class.
    pub of: (&'static str, &'static str),
    /// The member of the spec that names it.
    pub member: &'static str,
    /// The annotation that names it as well.
    pub annotation: &'static str,
    /// What marks a default class.
    pub marks: &'static [&'static str],
}

pub(super) const STORAGE_MARKS: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
pub(super) const INGRESS_MARKS: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];

impl Immediate for DefaultClass {
    fn name(&self) -> &'static str {
        self.name
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let Some(object) = a.written_mut(self.of.0, self.of.1) else { return Ok(()) };
        let named = !object["spec"].get(self.member).is_none_or(|v| v.is_null())
            || object["metadata"]["annotations"].get(self.annotation).is_some();
        if !named && let Some(class) = self.classes.default(self.marks)? {
            object["spec"][self.member] = class["metadata"]["name"].clone();
        }
        Ok(())
    }
}
