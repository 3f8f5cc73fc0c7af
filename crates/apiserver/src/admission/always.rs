//! AlwaysAdmit and AlwaysDeny: all requests, or none. Upstream calls both deprecated, and of no real meaning.

use super::{Attributes, Plugin};
use apimachinery::status::Status;
use futures::future::BoxFuture;

/// Whether everything is let in.
#[derive(Debug)]
pub(super) enum Always {
    Admit,
    Deny,
}

impl Always {
    /// Says in the log that the plugin should not be asked for.
    pub(super) fn warned(self) -> Self {
        tracing::warn!(
            "{} admission controller is deprecated. Please remove this controller from your configuration files and scripts.",
            self.name()
        );
        self
    }

    fn judge(&self, a: &Attributes<'_>) -> Result<(), Status> {
        match self {
            Always::Admit => Ok(()),
            Always::Deny => Err(a.forbidden("admission control is denying all modifications")),
        }
    }
}

impl Plugin for Always {
    fn name(&self) -> &'static str {
        match self {
            Always::Admit => "AlwaysAdmit",
            Always::Deny => "AlwaysDeny",
        }
    }

    fn admit<'a>(&'a self, a: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(self.judge(a)))
    }

    fn validate<'a>(&'a self, a: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(self.judge(a)))
    }
}
