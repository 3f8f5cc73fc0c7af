//! `authorizer` in expressions: the authorizers of the server, asked for the user of the request or a service account.

use crate::authz::{Attributes, Authorizer, Decision};
use crate::user::User;
use cel::library::authz::{Decision as Answer, Question};
use futures::FutureExt as _;
use std::sync::Arc;

pub(in crate::admission) struct Asked<'a> {
    pub(in crate::admission) authorizers: &'a [Arc<dyn Authorizer>],
    pub(in crate::admission) user: &'a User,
}

impl cel::library::authz::Authorizer for Asked<'_> {
    fn authorize(&self, question: &Question) -> Answer {
        let account = question.service_account.as_ref().map(|(namespace, name)| User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
            ..User::default()
        });
        let attributes = Attributes {
            user: account.as_ref().unwrap_or(self.user),
            verb: &question.verb,
            is_resource: question.path.is_none(),
            group: &question.group,
            version: if question.path.is_none() { "*" } else { "" },
            resource: &question.resource,
            subresource: &question.subresource,
            namespace: &question.namespace,
            name: &question.name,
            path: question.path.as_deref().unwrap_or_default(),
            label_selector: &question.label_selector,
            field_selector: &question.field_selector,
        };
        match at_once(crate::authz::decide(self.authorizers, &attributes)) {
            None => {
                let error = "the authorizer did not answer at once".to_owned();
                Answer { allowed: false, reason: String::new(), error: Some(error) }
            }
            Some(Decision::Allow { reason }) => Answer { allowed: true, reason, error: None },
            Some(Decision::Deny { reason } | Decision::NoOpinion { reason }) => {
                Answer { allowed: false, reason, error: None }
            }
            Some(Decision::Error { reason, error, .. }) => {
                Answer { allowed: false, reason, error: Some(error) }
            }
        }
    }
}

/// What comes of a question that is mostly answered at once: by those in this process. A webhook is waited for on a
/// thread that others can take over; there is none in a runtime of a single thread.
fn at_once<T>(question: impl Future<Output = T>) -> Option<T> {
    let mut question = std::pin::pin!(question);
    if let Some(answer) = question.as_mut().now_or_never() {
        return Some(answer);
    }
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    if runtime.runtime_flavor() != tokio::runtime::RuntimeFlavor::MultiThread {
        return None;
    }
    Some(tokio::task::block_in_place(|| runtime.block_on(question)))
}
