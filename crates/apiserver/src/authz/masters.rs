//! `system:masters` may do everything: the group that breaks glass. No component is in it.

use super::{Attributes, Authorizer, Decision};
use futures::future::BoxFuture;

#[derive(Debug)]
pub struct Masters;

impl Authorizer for Masters {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        let decision = if attributes.user.in_group(crate::user::MASTERS) {
            Decision::Allow { reason: String::new() }
        } else {
            Decision::NoOpinion { reason: String::new() }
        };
        Box::pin(std::future::ready(decision))
    }
}
