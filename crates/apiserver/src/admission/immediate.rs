//! Plugins that wait for nothing: most of them. They say what they say in plain functions.

use super::{Attributes, Plugin, When};
use apimachinery::status::Status;
use futures::future::BoxFuture;

/// A [`Plugin`] whose word is known at once.
pub(super) trait Immediate: Send + Sync {
    /// See [`Plugin::name`].
    fn name(&self) -> &'static str;

    /// See [`Plugin::when`].
    fn when(&self) -> When;

    /// Changes the object, or refuses the request.
    fn admit(&self, _a: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses the request, or lets it pass.
    fn validate(&self, _a: &Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl<P: Immediate> Plugin for P {
    fn name(&self) -> &'static str {
        Immediate::name(self)
    }

    fn when(&self) -> When {
        Immediate::when(self)
    }

    fn admit<'a>(&'a self, a: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Immediate::admit(self, a)))
    }

    fn validate<'a>(&'a self, a: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Immediate::validate(self, a)))
    }
}
