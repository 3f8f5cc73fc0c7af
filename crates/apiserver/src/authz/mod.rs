//! Authorization: may this user do this? The Node authorizer, then RBAC; `system:masters` may do everything.

pub mod escalation;
mod graph;
pub mod masters;
pub mod node;
pub mod rbac;
pub mod rules;

use crate::request::RequestInfo;
use crate::user::User;
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use futures::future::BoxFuture;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// As the request has them, for authorizers that let a narrow list pass.
    pub label_selector: &'a str,
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    pub fn of(user: &'a User, info: &'a RequestInfo) -> Self {
        Attributes {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            label_selector: info.query.get("labelSelector").unwrap_or_default(),
            field_selector: info.query.get("fieldSelector").unwrap_or_default(),
        }
    }

    /// Refuses with upstream's words what is not allowed.
    pub fn judge(&self, decision: Decision) -> Result<(), Status> {
        match decision {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                let mut text = self.refusal();
                if !reason.is_empty() {
                    text = format!("{text}: {reason}");
                }
                let resource = GroupResource::new(self.group.to_owned(), self.resource.to_owned());
                Err(Status::forbidden(&resource, self.name, text))
            }
        }
    }

    /// The words of a refusal (upstream's forbiddenMessage), without the resource that `Status::forbidden` puts first.
    pub fn refusal(&self) -> String {
        let user = &self.user.name;
        if !self.is_resource {
            return format!("User \"{user}\" cannot {} path \"{}\"", self.verb, self.path);
        }
        let resource = if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        };
        let mut text = format!(
            "User \"{user}\" cannot {} resource \"{resource}\" in API group \"{}\"",
            self.verb, self.group
        );
        if self.namespace.is_empty() {
            text.push_str(" at the cluster scope");
        } else {
            text.push_str(&format!(" in the namespace \"{}\"", self.namespace));
        }
        text
    }
}

/// An authorizer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow {
        reason: String,
    },
    Deny {
        reason: String,
    },
    /// Ask the next one; refused when nobody has an opinion.
    NoOpinion {
        reason: String,
    },
}

impl Decision {
    /// Why, for people.
    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow { reason } | Decision::Deny { reason } | Decision::NoOpinion { reason } => reason,
        }
    }
}

/// Says whether a user may do something.
pub trait Authorizer: Send + Sync {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision>;
}
