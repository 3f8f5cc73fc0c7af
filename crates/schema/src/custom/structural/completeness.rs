//! What a junctor judges must be there: every field named under `allOf` and its like is a field of the schema proper.

use super::Schema;
use apimachinery::field::{Error, ErrorList, Path};

/// `judged` and `schema` are walked together, each with its path.
pub(super) fn validate(
    judged: Schema<'_>,
    schema: Option<Schema<'_>>,
    at: &Path,
    judged_at: &Path,
    errors: &mut ErrorList,
) {
    if let Some(not) = judged.schema("not") {
        nested(not, schema, at, &judged_at.child("not"), errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (i, inner) in judged.schemas(key).enumerate() {
            nested(inner, schema, at, &judged_at.child(key).index(i), errors);
        }
    }
}

fn nested(
    judged: Schema<'_>,
    schema: Option<Schema<'_>>,
    at: &Path,
    judged_at: &Path,
    errors: &mut ErrorList,
) {
    let missing =
        |at: &Path, judged_at: &Path| Error::required(at, format!("because it is defined in {judged_at}"));
    let Some(known) = schema else {
        errors.push(missing(at, judged_at));
        return;
    };
    validate(judged, schema, at, judged_at, errors);
    if let Some(items) = judged.schema("items") {
        nested(items, known.schema("items"), &at.child("items"), &judged_at.child("items"), errors);
    }
    for (name, property) in judged.properties() {
        let at = at.child("properties").key(name);
        let judged_at = judged_at.child("properties").key(name);
        match known.property(name) {
            Some(known) => nested(property, Some(known), &at, &judged_at, errors),
            None => errors.push(missing(&at, &judged_at)),
        }
    }
}
