//! The CEL rules of a definition that is written: they compile, and cannot cost more than they may.

use super::rules::{Compiled, Node};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::value::Value;
use schema::custom::Check;

/// The largest estimated cost of one rule, and of all rules of a schema.
const PER_RULE: u64 = 10_000_000;
const PER_SCHEMA: u64 = 100_000_000;
const MAX_REQUEST: u64 = 3 * 1024 * 1024;
/// How many of the most expensive rules are named.
const NAMED: usize = 4;

fn too_much(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100x".to_owned(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// The rule as Go's internal type has it.
fn shown(compiled: &Compiled) -> BadValue {
    let rule = &compiled.rule;
    let text = |text: &str| Value::from(text).to_string();
    let reason = if rule.reason.is_empty() { "null".to_owned() } else { text(&rule.reason) };
    let optional = rule.optional_old_self.map_or("null".to_owned(), |value| value.to_string());
    BadValue::verbatim(format!(
        r#"{{"Rule":{},"Message":{},"MessageExpression":{},"Reason":{reason},"FieldPath":{},"OptionalOldSelf":{optional}}}"#,
        text(&rule.rule),
        text(&rule.message),
        text(&rule.message_expression),
        text(&rule.field_path),
    ))
}

struct Judge {
    errors: ErrorList,
    total: u64,
    costs: Vec<(u64, Path)>,
}

impl Judge {
    fn rule(
        &mut self,
        node: &Node,
        compiled: &Compiled,
        at: &Path,
        old_from: Option<&Path>,
        occurs: Option<u64>,
    ) {
        let at_rule = at.child("rule");
        let Some(decl) = &node.decl else { return };
        let occurs = occurs.unwrap_or_else(|| {
            let smallest = u64::try_from(decl.min_serialized_size).unwrap_or(0);
            MAX_REQUEST / (smallest + 1)
        });
        match &compiled.checked {
            Err(why) => self.errors.push(Error::invalid(&at_rule, shown(compiled), why.clone())),
            Ok(checked) => {
                let cost = checked.estimate(&**decl).max.saturating_mul(occurs);
                if cost > PER_RULE {
                    let why = too_much("estimated rule cost", cost, PER_RULE);
                    self.errors.push(Error::forbidden(&at_rule, why));
                }
                self.observe(cost, &at_rule);
            }
        }
        match &compiled.message {
            Some(Err(why)) => {
                let at = at.child("messageExpression");
                self.errors.push(Error::invalid(&at, shown(compiled), why.clone()));
            }
            Some(Ok(checked)) => {
                let at = at.child("messageExpression");
                let cost = checked.estimate(&**decl).max;
                if cost > PER_RULE {
                    let why = too_much("estimated messageExpression cost", cost, PER_RULE);
                    self.errors.push(Error::forbidden(&at, why));
                }
                self.observe(cost, &at);
            }
            None => {}
        }
        if compiled.uses_old {
            if let Some(from) = old_from {
                let why = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {from}"
                );
                self.errors.push(Error::invalid(&at_rule, &*compiled.rule.rule, why));
            }
        } else if let Some(value) = compiled.rule.optional_old_self.filter(|_| compiled.checked.is_ok()) {
            let at = at.child("optionalOldSelf");
            self.errors.push(Error::invalid(&at, value, "may not be set if oldSelf is not used in rule"));
        }
    }

    fn observe(&mut self, cost: u64, at: &Path) {
        self.total = self.total.saturating_add(cost);
        // What costs little is not named.
        if cost >= PER_SCHEMA / 100 {
            self.costs.push((cost, at.clone()));
        }
    }
}

/// All that is wrong with the rules of a schema, but for those in parts of it that have `mistakes` otherwise: what is
/// wrong with such rules may not be when those are mended.
pub(super) fn judge(schema: &Value, path: &Path, mistakes: &ErrorList) -> ErrorList {
    let within = |field: &str, at: &str| {
        field.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let mut judge = Judge { errors: ErrorList::new(), total: 0, costs: Vec::new() };
    if let Some(root) = Node::of(schema, &Check::of(schema)) {
        root.walk(path, None, Some(1), &mut |node, at, old_from, occurs| {
            let place = at.to_string();
            if mistakes.iter().any(|mistake| within(&mistake.field, &place)) {
                return;
            }
            for (i, compiled) in node.rules.iter().enumerate() {
                let at = at.child("x-kubernetes-validations").index(i);
                judge.rule(node, compiled, &at, old_from, occurs);
            }
        });
    }
    if judge.total > PER_SCHEMA {
        judge.costs.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, at) in judge.costs.iter().take(NAMED) {
            let why =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            judge.errors.push(Error::forbidden(at, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        judge.errors.push(Error::forbidden(path, too_much(what, judge.total, PER_SCHEMA)));
    }
    judge.errors
}
