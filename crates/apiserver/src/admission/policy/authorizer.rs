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
        let mut reasons = Vec::new();
        for authorizer in self.authorizers {
            // Those in this process answer at once. One that would wait must not hold up the thread of all others.
            let Some(decision) = authorizer.authorize(&attributes).now_or_never() else {
                let error = "the authorizer did not answer at once".to_owned();
                return Answer { allowed: false, reason: String::new(), error: Some(error) };
            };
            match decision {
                Decision::Allow { reason } => return Answer { allowed: true, reason, error: None },
                Decision::Deny { reason } => return Answer { allowed: false, reason, error: None },
                Decision::NoOpinion { reason } if !reason.is_empty() => reasons.push(reason),
                Decision::NoOpinion { .. } => {}
            }
        }
        Answer { allowed: false, reason: reasons.join("\n"), error: None }
    }
}
