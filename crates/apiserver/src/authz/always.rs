//! AlwaysAllow and AlwaysDeny: for tests of everything else.

use super::{Attributes, Authorizer, Decision, Rules};
use crate::user::User;
use api::rbac::v1::PolicyRule;
use futures::future::BoxFuture;

/// Everybody may do everything.
#[derive(Debug)]
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize<'a>(&'a self, _: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(Decision::Allow { reason: String::new() }))
    }

    fn rules_for(&self, _: &User, _: &str) -> Rules {
        let any = || vec!["*".to_owned()];
        let rules = vec![
            PolicyRule { verbs: any(), api_groups: any(), resources: any(), ..Default::default() },
            PolicyRule { verbs: any(), non_resource_urls: any(), ..Default::default() },
        ];
        Rules { rules, ..Default::default() }
    }
}

/// Nobody may do anything.
#[derive(Debug)]
pub struct AlwaysDeny;

impl Authorizer for AlwaysDeny {
    fn authorize<'a>(&'a self, _: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        let reason = "Everything is forbidden.".to_owned();
        Box::pin(std::future::ready(Decision::NoOpinion { reason }))
    }
}
