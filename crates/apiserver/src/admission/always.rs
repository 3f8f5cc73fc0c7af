//! AlwaysAdmit and AlwaysDeny: all requests, or none. Upstream calls both deprecated, and of no real meaning.

use super::immediate::Immediate;
use super::{Attributes, When};
use apimachinery::status::Status;

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

impl Immediate for Always {
    fn name(&self) -> &'static str {
        match self {
            Always::Admit => "AlwaysAdmit",
            Always::Deny => "AlwaysDeny",
        }
    }

    fn when(&self) -> When {
        When::ALWAYS
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        self.judge(a)
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        self.judge(a)
    }
}
