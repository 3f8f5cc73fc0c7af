//! What the server says of a definition: the names it accepts, and its conditions. Pure.

use apimachinery::field::{ErrorList, Path};
use apimachinery::json;
use apimachinery::value::Value;
use hooks::apiextensions::{approval_state, condition, is_protected, set_condition};
use schema::custom::structural;
use std::collections::HashSet;

/// Names that other definitions of the group hold.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Plural, singular and short names.
    pub resources: HashSet<String>,
    /// Kinds and list kinds.
    pub kinds: HashSet<String>,
}

impl Taken {
    /// Adds the names that a definition was given.
    pub fn add(&mut self, accepted: &Value) {
        let text = |key: &str| accepted[key].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        self.resources.extend(text("plural").into_iter().chain(text("singular")));
        let short = accepted["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        self.resources.extend(short.map(str::to_owned));
        self.kinds.extend(text("kind").into_iter().chain(text("listKind")));
    }
}

fn conflict(requested: &Value, accepted: &Value, taken: &HashSet<String>) -> Option<String> {
    let name = requested.as_str().unwrap_or_default();
    (requested != accepted && taken.contains(name)).then(|| format!("{name:?} is already in use"))
}

/// The definition as it should be: with the names it can have and the conditions that follow. None if it is so already.
pub fn plan(definition: &Value, taken: &Taken, now: &str) -> Option<Value> {
    let mut planned = definition.clone();
    names(&mut planned, taken, now);
    structure(&mut planned, now);
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    if is_protected(group) {
        let (status, reason, message) = approval_state(definition);
        set_condition(&mut planned, now, "KubernetesAPIApprovalPolicyConformant", status, reason, &message);
    }
    (planned != *definition).then_some(planned)
}

fn names(definition: &mut Value, taken: &Taken, now: &str) {
    let requested = definition["spec"]["names"].clone();
    let accepted = definition["status"]["acceptedNames"].clone();
    let mut granted = accepted.clone();
    let mut problem: Option<(&str, String)> = None;
    for (key, reason, taken) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        if key == "shortNames" {
            let ours = accepted[key].as_array().cloned().unwrap_or_default();
            let wanted = requested[key].as_array().into_iter().flatten();
            let conflicts: Vec<String> = wanted
                .filter(|name| !ours.contains(name))
                .filter_map(|name| conflict(name, &Value::Null, taken))
                .collect();
            match apimachinery::field::aggregate(conflicts) {
                Some(message) => problem = Some((reason, message)),
                None => copy(&mut granted, &requested, key),
            }
            continue;
        }
        match conflict(&requested[key], &accepted[key], taken) {
            Some(message) => problem = Some((reason, message)),
            None => copy(&mut granted, &requested, key),
        }
    }
    copy(&mut granted, &requested, "categories");
    definition["status"]["acceptedNames"] = granted;
    let (status, reason, message) = match problem {
        Some((reason, message)) => ("False", reason, message),
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
    };
    set_condition(definition, now, "NamesAccepted", status, reason, &message);
    if condition(definition, "Established") == "True" {
        return;
    }
    if status == "True" {
        let message = "the initial names have been accepted";
        set_condition(definition, now, "Established", "True", "InitialNamesAccepted", message);
    } else {
        let message = "not all names are accepted";
        set_condition(definition, now, "Established", "False", "NotAccepted", message);
    }
}

fn copy(to: &mut Value, from: &Value, key: &str) {
    match from.get(key) {
        Some(value) => to[key] = value.clone(),
        None => {
            if let Some(map) = to.as_object_mut() {
                map.remove(key);
            }
        }
    }
}

/// Only definitions of old can have a schema that is not structural.
fn structure(definition: &mut Value, now: &str) {
    const TYPE: &str = "NonStructuralSchema";
    let mut errors = ErrorList::new();
    let spec = &definition["spec"];
    if spec["preserveUnknownFields"] == true {
        let at = Path::new("spec").child("preserveUnknownFields");
        errors.push(apimachinery::field::Error::invalid(&at, true, "must be false"));
    }
    let mut unsupported = None;
    for (i, version) in spec["versions"].as_array().into_iter().flatten().enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        let at = Path::new("spec").child("versions").index(i).child("schema").child("openAPIV3Schema");
        if let Some(why) = structural::unsupported(schema) {
            let name = version["name"].as_str().unwrap_or_default();
            unsupported.get_or_insert(format!("failed to check validation schema for version {name}: {why}"));
        }
        errors.extend(structural::validate_structural(&at, schema));
    }
    if let Some(message) = unsupported {
        set_condition(definition, now, TYPE, "Unknown", "StructuralError", &message);
    } else if let Some(message) = errors.aggregate() {
        set_condition(definition, now, TYPE, "True", "Violations", &message);
    } else if !condition(definition, TYPE).is_empty()
        && let Some(conditions) = definition["status"]["conditions"].as_array_mut()
    {
        conditions.retain(|c| c["type"] != TYPE);
    }
}

/// What of a definition decides on what is served.
pub(super) fn fingerprint(definition: &Value) -> Value {
    json!([
        definition["metadata"]["uid"],
        definition["metadata"]["generation"],
        definition["status"]["acceptedNames"],
        condition(definition, "NamesAccepted"),
        condition(definition, "Established"),
        condition(definition, "Terminating"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(names: Value, status: Value, taken: &Value, expected: Expect) {
        let definition = json!({
            "metadata": {"name": "x"},
            "spec": {"group": "example.com", "names": names, "versions": []}, "status": status,
        });
        let mut others = Taken::default();
        others.add(taken);
        let planned = plan(&definition, &others, "now");
        let text = planned.map_or("as it should be".into(), |p| {
            let mut names: Vec<_> = p["status"]["acceptedNames"].as_object().into_iter().flatten().collect();
            // Whether maps keep another order or not.
            names.sort_by_key(|(key, _)| *key);
            let mut lines = vec![names.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")];
            for c in p["status"]["conditions"].as_array().into_iter().flatten() {
                lines.push(format!("{} {} {} {}", c["type"], c["status"], c["reason"], c["message"]));
            }
            lines.join("\n")
        });
        expected.assert_eq(&text);
    }

    #[test]
    fn names_and_conditions() {
        let names = json!({"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList", "shortNames": ["f"]});
        let fresh = json!({"acceptedNames": {"plural": "", "kind": ""}, "conditions": []});
        check(
            names.clone(),
            fresh.clone(),
            &json!({}),
            expect![[r#"
                kind="Foo" listKind="FooList" plural="foos" shortNames=["f"] singular="foo"
                "NamesAccepted" "True" "NoConflicts" "no conflicts found"
                "Established" "True" "InitialNamesAccepted" "the initial names have been accepted""#]],
        );
        check(
            names.clone(),
            fresh,
            &json!({"plural": "bars", "shortNames": ["f"], "kind": "Foo"}),
            expect![[r#"
                kind="" listKind="FooList" plural="foos" singular="foo"
                "NamesAccepted" "False" "KindConflict" "\"Foo\" is already in use"
                "Established" "False" "NotAccepted" "not all names are accepted""#]],
        );
    }
}
