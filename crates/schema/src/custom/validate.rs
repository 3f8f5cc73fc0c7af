//! Values against their schema: upstream's messages and order. On updates, what did not change is not judged again
//! (ratcheting).

use super::check::{Additional, Check, Kind, Limits};
use super::formats;
use crate::row::ListType;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::quote::quote;
use apimachinery::value::go_float;
use apimachinery::value::{Map, Value};

/// What a value is compared with.
#[derive(Debug, Clone, Copy)]
pub enum Ratchet<'a> {
    /// Every value is judged.
    Off,
    /// Values that are the same in the old object pass.
    Against(&'a Value),
}

/// All that is wrong with a value; `path` is where it stands in its object.
pub fn validate(check: &Check, value: &Value, ratchet: Ratchet<'_>, path: &Path) -> ErrorList {
    let old = match ratchet {
        Ratchet::Off => None,
        Ratchet::Against(old) => Some(old),
    };
    let walk = Walk { base: path };
    let mut errors = ErrorList::default();
    errors.extend(walk.value(check, value, old, "").failures.into_iter().map(|f| f.error));
    errors
}

/// One failure, known by its message: the same message twice is told once.
struct Failure {
    message: String,
    error: Error,
}

/// Failures, and how much matched: alternatives are compared by it.
#[derive(Default)]
struct Outcome {
    failures: Vec<Failure>,
    matches: usize,
}

/// Beyond so many, duplicates are not looked for.
const COMPARED: usize = 64;

impl Outcome {
    fn add(&mut self, failure: Failure) {
        if self.failures.len() > COMPARED || !self.failures.iter().any(|f| f.message == failure.message) {
            self.failures.push(failure);
        }
    }

    fn merge(&mut self, other: Outcome) {
        self.matches += other.matches;
        other.failures.into_iter().for_each(|f| self.add(f));
    }

    fn is_valid(&self) -> bool {
        self.failures.is_empty()
    }
}

struct Walk<'a> {
    base: &'a Path,
}

/// The JSON type of a value and the format it has in Go.
fn type_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
        Value::Number(n) if n.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
    }
}

fn is_integral(value: &Value) -> bool {
    value.as_f64().is_some_and(|f| f.is_finite() && f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0)
}

impl Walk<'_> {
    /// Where an error about the value at `path` stands.
    fn at(&self, path: &str) -> Path {
        let path = path.strip_prefix('.').unwrap_or(path);
        if path.is_empty() { self.base.clone() } else { self.base.child(path.to_owned()) }
    }

    fn type_failure(&self, path: &str, wanted: &str, found: &str) -> Failure {
        let message = format!("{path} in body must be of type {wanted}: {}", quote(found));
        Failure { error: Error::type_invalid(&self.at(path), found, message.clone()), message }
    }

    fn invalid(&self, path: &str, value: impl Into<BadValue>, message: String) -> Failure {
        Failure { error: Error::invalid(&self.at(path), value, message.clone()), message }
    }

    /// About a combination of schemas: upstream does not say where.
    fn composite(&self, message: String) -> Failure {
        Failure { error: Error::invalid(self.base, "", message.clone()), message }
    }

    fn value(&self, check: &Check, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
        let mut out = Outcome::default();
        if old == Some(value) {
            return out;
        }
        if value.is_null() {
            if !check.type_name().is_empty() && !check.nullable {
                out.add(self.type_failure(path, check.type_name(), "null"));
            }
            self.enumeration(check, value, path, &mut out);
            return out;
        }
        if !check.type_name().is_empty() || check.format.is_some() {
            self.kind(check, value, path, &mut out);
            out.matches += 1;
        }
        out.merge(self.combinations(check, value, old, path));
        out.matches += 1;
        match value {
            Value::String(text) => self.text(check, text, path, &mut out),
            Value::Number(_) => self.number(check, value, path, &mut out),
            Value::Array(items) => self.list(check, items, old, path, &mut out),
            _ => {}
        }
        self.enumeration(check, value, path, &mut out);
        out.matches += 1;
        if let Value::Object(map) = value {
            self.object(check, map, old, path, &mut out);
            out.matches += 1;
        }
        out.matches += 1;
        out
    }

    fn kind(&self, check: &Check, value: &Value, path: &str, out: &mut Outcome) {
        let (found, found_format) = type_of(value);
        let contains = |name: &str| check.type_name().split(',').any(|t| t == name);
        let float_as_integer = found == "number" && is_integral(value) && contains("integer");
        let integer_as_float = found == "integer" && contains("number");
        let fits = contains(found) || float_as_integer || integer_as_float;
        let scalar = !matches!(value, Value::String(_) | Value::Array(_));
        if let Some(format) = &check.format {
            if scalar && !fits && **format != *found_format {
                out.add(self.type_failure(path, format, found_format));
                return;
            }
            if !scalar && !contains("number") && !contains("integer") {
                out.matches += 1;
                return;
            }
        }
        if fits || check.type_name().is_empty() {
            out.matches += 1;
        } else {
            out.add(self.type_failure(path, check.type_name(), found));
        }
    }

    fn combinations(&self, check: &Check, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
        let mut out = Outcome::default();
        out.matches += 1;
        let Some(limits) = &check.limits else { return out };
        if !limits.any_of.is_empty() {
            let mut best: Option<Outcome> = None;
            let mut passed = None;
            for alternative in &limits.any_of {
                let outcome = self.value(alternative, value, old, path);
                if outcome.is_valid() {
                    passed = Some(outcome);
                    break;
                }
                if best.as_ref().is_none_or(|b| outcome.matches > b.matches) {
                    best = Some(outcome);
                }
            }
            match passed {
                Some(passed) => out.merge(passed),
                None => {
                    out.add(
                        self.composite(format!("{} must validate at least one schema (anyOf)", quote(path))),
                    );
                    best.into_iter().for_each(|b| out.merge(b));
                }
            }
        }
        if !limits.one_of.is_empty() {
            self.one_of(limits, value, old, path, &mut out);
        }
        if !limits.all_of.is_empty() {
            let outcomes: Vec<Outcome> =
                limits.all_of.iter().map(|c| self.value(c, value, old, path)).collect();
            let passed = outcomes.iter().filter(|o| o.is_valid()).count();
            let all = outcomes.len();
            outcomes.into_iter().for_each(|o| out.merge(o));
            if passed != all {
                let more = if passed == 0 { ". None validated" } else { "" };
                let message = format!("{} must validate all the schemas (allOf){more}", quote(path));
                out.add(self.composite(message));
            }
        }
        if let Some(not) = &limits.not
            && self.value(not, value, None, path).is_valid()
        {
            out.add(self.composite(format!("{} must not validate the schema (not)", quote(path))));
        }
        out
    }

    fn one_of(&self, limits: &Limits, value: &Value, old: Option<&Value>, path: &str, out: &mut Outcome) {
        let mut best: Option<Outcome> = None;
        let mut first = None;
        let mut passed = 0;
        for alternative in &limits.one_of {
            let outcome = self.value(alternative, value, old, path);
            if outcome.is_valid() {
                passed += 1;
                best = None;
                first.get_or_insert(outcome);
            } else if passed == 0 && best.as_ref().is_none_or(|b| outcome.matches > b.matches) {
                best = Some(outcome);
            }
        }
        if passed == 1 {
            first.into_iter().for_each(|f| out.merge(f));
            return;
        }
        let more = match passed {
            0 => "Found none valid".to_owned(),
            n => format!("Found {n} valid alternatives"),
        };
        let message = format!("{} must validate one and only one schema (oneOf). {more}", quote(path));
        out.add(self.composite(message));
        best.into_iter().for_each(|b| out.merge(b));
    }

    fn text(&self, check: &Check, text: &str, path: &str, out: &mut Outcome) {
        if let Some(limits) = &check.limits {
            let length = || text.chars().count() as i64;
            // Only the first of these three is told.
            if let Some(max) = limits.max_length.filter(|max| length() > *max) {
                let message = format!("{path} in body should be at most {max} chars long");
                let error = Error::too_long(&self.at(path), usize::try_from(max).unwrap_or(0));
                out.add(Failure { message, error });
            } else if let Some(min) = limits.min_length.filter(|min| length() < *min) {
                out.add(self.invalid(
                    path,
                    text,
                    format!("{path} in body should be at least {min} chars long"),
                ));
            } else if let Some(pattern) = &limits.pattern {
                match pattern.matches(text) {
                    Ok(true) => {}
                    Ok(false) => {
                        let message = format!("{path} in body should match '{}'", pattern.text());
                        out.add(self.invalid(path, text, message));
                    }
                    Err(why) => {
                        let message = format!(
                            "{path} in body should match '{}, but pattern is invalid: {why}'",
                            pattern.text()
                        );
                        out.add(self.invalid(path, text, message));
                    }
                }
            }
        }
        out.matches += 1;
        if let Some(format) = &check.format
            && formats::is_known(format)
        {
            if !formats::matches(format, text) {
                let message = format!("{path} in body must be of type {format}: {}", quote(text));
                let error = Error::type_invalid(&self.at(path), text, message.clone());
                out.add(Failure { message, error });
            }
            out.matches += 1;
        }
    }

    fn number(&self, check: &Check, value: &Value, path: &str, out: &mut Outcome) {
        let kind = check.kind;
        let out_of_range = match (kind, check.format.as_deref()) {
            (Kind::Integer, Some("int32")) => value.as_i64().is_none_or(|n| i32::try_from(n).is_err()),
            (Kind::Number, Some("float")) => value.as_f64().is_some_and(|f| f.abs() > f64::from(f32::MAX)),
            (Kind::Integer, _) => value.is_f64() && !is_integral(value),
            _ => false,
        };
        if out_of_range {
            let message = match check.format.as_deref() {
                Some(format) => {
                    format!("Checked value must be of type {} with format {format} in {path}", kind.name())
                }
                None => format!("Checked value must be of type {} (default format) in {path}", kind.name()),
            };
            out.add(self.composite(message));
        }
        let Some(limits) = &check.limits else {
            out.matches += 2;
            return;
        };
        let shown = || BadValue::json(value);
        let float = value.as_f64().unwrap_or_default();
        // What a bound says of an integer is said again where it is none itself, and then numbers are compared.
        let fitting = |bound: f64, what: &str, out: &mut Outcome| -> Option<i64> {
            if kind == Kind::Integer && bound.fract() != 0.0 {
                let kind = kind.name();
                let of =
                    check.format.as_deref().map_or("(default format)".into(), |f| format!("with format {f}"));
                out.add(self.composite(format!("{what} must be of type {kind} {of} in {path}")));
                return None;
            }
            value.as_i64()
        };
        let bound_text = |bound: f64, integer: Option<i64>| match integer {
            Some(_) => (bound as i64).to_string(),
            None => go_float(bound),
        };
        if let Some(factor) = limits.multiple_of {
            let integer = fitting(factor, "MultipleOf value", out);
            let positive = integer.map_or(factor > 0.0, |_| factor as i64 > 0);
            let fits = match integer {
                Some(n) => positive && n % (factor as i64) == 0,
                None => positive && (float / factor).fract() == 0.0,
            };
            let text = bound_text(factor, integer);
            if !positive {
                let message = format!("factor MultipleOf declared for {path} must be positive: {text}");
                let factor = integer.map_or_else(|| json!(factor), |_| json!(factor as i64));
                out.add(self.invalid(path, BadValue::json(&factor), message));
            } else if !fits {
                let message = format!("{path} in body should be a multiple of {text}");
                out.add(self.invalid(path, shown(), message));
            }
        }
        if let Some(min) = limits.minimum {
            let (integer, exclusive) =
                (fitting(min, "Minimum boundary value", out), limits.exclusive_minimum);
            let below = match integer {
                Some(n) => n < min as i64 || exclusive && n == min as i64,
                None => float < min || exclusive && float == min,
            };
            if below {
                let word = if exclusive { "greater than" } else { "greater than or equal to" };
                let message = format!("{path} in body should be {word} {}", bound_text(min, integer));
                out.add(self.invalid(path, shown(), message));
            }
        }
        if let Some(max) = limits.maximum {
            let (integer, exclusive) =
                (fitting(max, "Maximum boundary value", out), limits.exclusive_maximum);
            let above = match integer {
                Some(n) => n > max as i64 || exclusive && n == max as i64,
                None => float > max || exclusive && float == max,
            };
            if above {
                let word = if exclusive { "less than" } else { "less than or equal to" };
                let message = format!("{path} in body should be {word} {}", bound_text(max, integer));
                out.add(self.invalid(path, shown(), message));
            }
        }
        out.matches += 2;
    }

    fn list(&self, check: &Check, items: &[Value], old: Option<&Value>, path: &str, out: &mut Outcome) {
        if let Some(item_check) = &check.items {
            let old_items = old.and_then(Value::as_array).filter(|_| check.list_type == Some(ListType::Map));
            for (i, item) in items.iter().enumerate() {
                let before = old_items.and_then(|o| correlated(check, o, item));
                out.merge(self.value(item_check, item, before, &format!("{path}[{i}]")));
            }
        }
        if let Some(limits) = &check.limits {
            let size = items.len() as i64;
            if let Some(min) = limits.min_items.filter(|min| size < *min) {
                let message = format!("{path} in body should have at least {min} items");
                out.add(self.invalid(path, BadValue::json(&size), message));
            }
            if let Some(max) = limits.max_items.filter(|max| size > *max) {
                let message = format!("{path} in body should have at most {max} items");
                let max = usize::try_from(max).unwrap_or(0);
                let error = Error::too_many(&self.at(path), Some(items.len()), max);
                out.add(Failure { message, error });
            }
            if limits.unique_items && (1..items.len()).any(|i| items[..i].contains(&items[i])) {
                out.add(self.invalid(path, "", format!("{path} in body shouldn't contain duplicates")));
            }
        }
        out.matches += 2;
    }

    fn enumeration(&self, check: &Check, value: &Value, path: &str, out: &mut Outcome) {
        let Some(limits) = check.limits.as_ref().filter(|l| !l.one_of_values.is_empty()) else { return };
        let same = |allowed: &Value| {
            allowed == value
                || matches!((allowed, value), (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64())
        };
        if !value.is_null() && limits.one_of_values.iter().any(same) {
            return;
        }
        let values: Vec<String> = limits
            .one_of_values
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect();
        let message = format!("{path} in body should be one of [{}]", values.join(" "));
        let shown = match value {
            Value::String(text) => BadValue::from(text.as_str()),
            other => BadValue::json(other),
        };
        out.add(Failure { error: Error::not_supported(&self.at(path), shown, &values), message });
    }

    fn object(&self, check: &Check, map: &Map, old: Option<&Value>, path: &str, out: &mut Outcome) {
        let size = map.len() as i64;
        if let Some(limits) = &check.limits {
            if let Some(min) = limits.min_properties.filter(|min| size < *min) {
                let message = format!("{path} in body should have at least {min} properties");
                out.add(self.invalid(path, BadValue::json(&size), message));
            }
            if let Some(max) = limits.max_properties.filter(|max| size > *max) {
                let message = format!("{path} in body should have at most {max} properties");
                let max = usize::try_from(max).unwrap_or(0);
                let error = Error::too_many(&self.at(path), Some(map.len()), max);
                out.add(Failure { message, error });
            }
        }
        let old = old.and_then(Value::as_object).filter(|_| !check.atomic_map);
        let before = |name: &str| {
            let hidden = path.is_empty() && matches!(name, "kind" | "apiVersion");
            old.and_then(|o| o.get(name)).filter(|_| !hidden)
        };
        match &check.additional {
            Additional::Forbidden => {
                for name in map.keys().filter(|n| check.property(n).is_none()) {
                    let message = format!("{path}.{name} in body is a forbidden property");
                    out.add(self.invalid(path, name.as_str(), message));
                }
            }
            Additional::Schema(additional) => {
                for (name, value) in map.iter().filter(|(n, _)| check.property(n).is_none()) {
                    out.merge(self.value(additional, value, before(name), &format!("{path}.{name}")));
                }
            }
            Additional::Unsaid | Additional::Any => {}
        }
        for (name, property) in &check.properties {
            if let Some(value) = map.get(name) {
                let at = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                out.merge(self.value(property, value, before(name), &at));
            }
        }
        for name in check.required.iter().filter(|n| !map.contains_key(n)) {
            let at = format!("{path}.{name}");
            out.add(Failure {
                message: format!("{at} in body is required"),
                error: Error::required(&self.at(&at), ""),
            });
        }
    }
}

/// The old item with the same keys.
pub(super) fn correlated<'o>(check: &Check, old: &'o [Value], item: &Value) -> Option<&'o Value> {
    old.iter().find(|o| check.list_keys.iter().all(|k| o.get(&**k) == item.get(&**k)))
}
