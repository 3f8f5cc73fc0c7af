//! `matchConditions`: CEL over the request, all of which must hold for a webhook to be asked.

use super::config::Hook;
use cel::env::Environment;
use cel::program::Program;
use cel::types::Type;
use cel::value::Val;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// The cost one request may have (upstream's RuntimeCELCostBudgetMatchConditions).
const BUDGET: u64 = 2_500_000;

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    ["object", "oldObject", "request"]
        .into_iter()
        .fold(Environment::kubernetes(), |env, name| env.variable(name, Type::Dyn))
});

/// Programs by the state of their webhook.
#[derive(Default)]
pub(super) struct Compiled(Mutex<HashMap<String, Arc<Vec<(String, Program)>>>>);

impl Compiled {
    fn of(&self, hook: &Hook) -> Result<Arc<Vec<(String, Program)>>, String> {
        if let Some(known) = self.0.lock().get(&hook.key) {
            return Ok(known.clone());
        }
        let mut programs = Vec::new();
        for (name, expression) in &hook.conditions {
            let checked = ENVIRONMENT.compile(expression).map_err(|e| format!("compilation error: {e}"))?;
            programs.push((name.clone(), checked.program()?));
        }
        let programs = Arc::new(programs);
        let mut known = self.0.lock();
        // Webhooks of old states are never asked again.
        if known.len() > 512 {
            known.clear();
        }
        known.insert(hook.key.clone(), programs.clone());
        Ok(programs)
    }

    /// Whether all conditions of the webhook hold; a false one decides before an error does.
    pub(super) fn hold(&self, hook: &Hook, request: &Value) -> Result<bool, String> {
        if hook.conditions.is_empty() {
            return Ok(true);
        }
        let programs = self.of(hook)?;
        let null = Value::Null;
        let member = |key: &str| request.get(key).unwrap_or(&null);
        let variables = [
            ("object", Val::from(member("object"))),
            ("oldObject", Val::from(member("oldObject"))),
            ("request", Val::from(request)),
        ];
        let mut errors = Vec::new();
        let mut left = BUDGET;
        for (name, program) in programs.iter() {
            let outcome = program.evaluate(&variables, left);
            left = left.saturating_sub(outcome.cost);
            match outcome.result {
                Ok(Val::Bool(true)) => {}
                Ok(Val::Bool(false)) => return Ok(false),
                Ok(_) => errors.push(format!("match condition {name:?} did not evaluate to a bool")),
                Err(error) => errors.push(format!("{error}")),
            }
        }
        match apimachinery::field::aggregate(errors) {
            None => Ok(true),
            Some(errors) => Err(errors),
        }
    }
}
