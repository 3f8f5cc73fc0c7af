//! `matchConditions` of webhook authorizers: which reviews are for the webhook.

use apimachinery::field::{Error, ErrorList, Path, aggregate};
use apimachinery::json;
use apimachinery::value::Value;
use cel::cost::PER_CALL_LIMIT;
use cel::env::Environment;
use cel::program::Program;
use cel::schema::DeclType;
use cel::types::Type;
use cel::value::Val;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use super::configuration::MatchCondition;

const MOST: usize = 64;

fn object(name: &str, fields: &[(&'static str, &Arc<DeclType>)]) -> Arc<DeclType> {
    DeclType::object(name, fields.iter().map(|(name, decl)| (*name, (*decl).clone())))
}

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let string = DeclType::simple(Type::String);
    let strings = DeclType::list(string.clone(), -1);
    let requirement = object(
        "kubernetes.SelectorRequirement",
        &[("key", &string), ("operator", &string), ("values", &strings)],
    );
    let requirements = DeclType::list(requirement, -1);
    let selector = |name| object(name, &[("rawSelector", &string), ("requirements", &requirements)]);
    let resource = object(
        "kubernetes.ResourceAttributes",
        &[
            ("namespace", &string),
            ("verb", &string),
            ("group", &string),
            ("version", &string),
            ("resource", &string),
            ("subresource", &string),
            ("name", &string),
            ("fieldSelector", &selector("kubernetes.FieldSelectorAttributes")),
            ("labelSelector", &selector("kubernetes.LabelSelectorAttributes")),
        ],
    );
    let path = object("kubernetes.NonResourceAttributes", &[("path", &string), ("verb", &string)]);
    let extra = DeclType::map(string.clone(), strings.clone(), -1);
    let request = object(
        "kubernetes.SubjectAccessReviewSpec",
        &[
            ("resourceAttributes", &resource),
            ("nonResourceAttributes", &path),
            ("user", &string),
            ("groups", &strings),
            ("extra", &extra),
            ("uid", &string),
        ],
    );
    Environment::kubernetes().declare(&request).variable("request", request.celtype.clone())
});

/// Conditions that compiled.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    programs: Vec<(String, Program)>,
    uses_field_selector: bool,
    uses_label_selector: bool,
}

/// Whether a review is for the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Matches,
    Excluded,
    Failed(String),
}

impl Conditions {
    /// Compiles conditions; what is wrong with them comes beside.
    pub fn compile(conditions: &[MatchCondition], path: &Path) -> (Self, ErrorList) {
        let mut errors = ErrorList::default();
        let mut this = Conditions::default();
        let path = path.child("matchConditions");
        if conditions.len() > MOST {
            errors.push(Error::too_many(&path, Some(conditions.len()), MOST));
            return (this, errors);
        }
        let mut seen = BTreeSet::new();
        for (at, MatchCondition { expression }) in conditions.iter().enumerate() {
            let path = path.index(at).child("expression");
            if expression.trim().is_empty() {
                errors.push(Error::required(&path, ""));
            } else if !seen.insert(expression) {
                errors.push(Error::duplicate(&path, expression));
            } else if let Err(why) = this.add(expression) {
                errors.push(Error::invalid(&path, expression, why));
            }
        }
        (this, errors)
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let checked = ENVIRONMENT.compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
        if *checked.output() != Type::Bool {
            return Err(format!("must evaluate to bool but got {}", checked.output()));
        }
        let program = checked.program().map_err(|e| format!("program instantiation failed: {e}"))?;
        self.uses_field_selector |= checked.selects(None, "fieldSelector");
        self.uses_label_selector |= checked.selects(None, "labelSelector");
        self.programs.push((text.to_owned(), program));
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// Whether all conditions hold of a review's spec; a false one decides before an error does.
    pub fn evaluate(&self, spec: &Value) -> Verdict {
        let request = self.shown(spec);
        let mut errors = Vec::new();
        for (text, program) in &self.programs {
            let failed = |why: &str| format!("cel evaluation error: expression '{text}' {why}");
            match program.evaluate(&[("request", Val::from(&request))], PER_CALL_LIMIT).result {
                Ok(Val::Bool(true)) => {}
                Ok(Val::Bool(false)) => return Verdict::Excluded,
                Ok(other) => {
                    errors.push(failed(&format!("eval result type should be bool but got {}", other.kind())))
                }
                Err(error) => errors.push(failed(&format!("resulted in error: {error}"))),
            }
        }
        aggregate(errors).map_or(Verdict::Matches, Verdict::Failed)
    }

    /// The spec with all members that strings and lists have, empty ones too; selectors only where they are looked at.
    fn shown(&self, spec: &Value) -> Value {
        let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
        let mut request = json!({
            "user": text(spec, "user"),
            "uid": text(spec, "uid"),
            "groups": spec.get("groups").cloned().unwrap_or_else(|| json!([])),
            "extra": spec.get("extra").cloned().unwrap_or_else(|| json!({})),
        });
        if let Some(asked) = spec.get("resourceAttributes") {
            let mut shown = json!({});
            for key in ["namespace", "verb", "group", "version", "resource", "subresource", "name"] {
                shown[key] = text(asked, key).into();
            }
            for (key, used) in
                [("fieldSelector", self.uses_field_selector), ("labelSelector", self.uses_label_selector)]
            {
                if let Some(selector) = asked.get(key).filter(|_| used) {
                    shown[key] = selector.clone();
                }
            }
            request["resourceAttributes"] = shown;
        }
        if let Some(asked) = spec.get("nonResourceAttributes") {
            request["nonResourceAttributes"] =
                json!({"path": text(asked, "path"), "verb": text(asked, "verb")});
        }
        request
    }
}
