//! `matchConditions`: CEL over the request, all of which must hold for a webhook to be asked.

use super::config::Hook;
use super::matching::Invocation;
use crate::admission::Attributes;
use crate::admission::policy::{
    Asked, Bindings, Expression, FailurePolicy, Request, Variables, conditions_hold,
};
use crate::authz::Authorizer;
use api::admissionregistration::v1::MatchCondition;
use apimachinery::status::Status;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// The conditions of a webhook.
struct Conditions {
    /// Webhooks define none.
    variables: Variables,
    expressions: Vec<Expression>,
}

/// Conditions by the state of their webhook.
pub(super) struct Compiled {
    authorizers: Vec<Arc<dyn Authorizer>>,
    known: Mutex<HashMap<String, Arc<Conditions>>>,
}

impl Compiled {
    pub(super) fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Compiled { authorizers, known: Mutex::default() }
    }

    fn of(&self, hook: &Hook) -> Arc<Conditions> {
        if let Some(known) = self.known.lock().get(&hook.key) {
            return known.clone();
        }
        let variables = Variables::new(&[], false);
        let condition = |(name, expression): &(String, String)| MatchCondition {
            name: name.clone(),
            expression: expression.clone(),
        };
        let conditions: Vec<MatchCondition> = hook.conditions.iter().map(condition).collect();
        let made = Arc::new(Conditions { expressions: variables.conditions(&conditions), variables });
        let mut known = self.known.lock();
        // Webhooks of old states are never asked again.
        if known.len() > 512 {
            known.clear();
        }
        known.insert(hook.key.clone(), made.clone());
        made
    }

    /// Whether all conditions of the webhook hold; a false one decides before an error does.
    pub(super) async fn hold(
        &self,
        hook: &Hook,
        invocation: &Invocation,
        a: &Attributes<'_>,
    ) -> Result<Result<bool, String>, Status> {
        if hook.conditions.is_empty() {
            return Ok(Ok(true));
        }
        let conditions = self.of(hook);
        let request = Request::new(a, &invocation.resource).await?;
        let asked = Asked { authorizers: &self.authorizers, user: a.user };
        let asking: &dyn cel::library::authz::Authorizer = &asked;
        let bindings = Bindings::new(&request, None, None, Some(asking), &conditions.variables);
        Ok(conditions_hold(&bindings, &conditions.expressions, FailurePolicy::Fail))
    }
}
