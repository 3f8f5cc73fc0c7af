//! What a custom kind does beyond its schema: nothing but what its definition says.

use super::accessor::{self, dotted};
use super::source::Source;
use apimachinery::field::{BadValue, Error, ErrorList, ErrorType, Path};
use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::{Key, Map, Value};
use hooks::{Context, ScalePaths, Strategy};
use schema::custom::{self, JsonPath, Ratchet, cell};
use std::borrow::Cow;
use std::sync::Arc;

/// One additional printer column.
struct Column {
    path: Option<JsonPath>,
    ty: String,
}

/// The strategy of one version of a custom kind.
pub(super) struct CustomStrategy {
    source: Arc<Source>,
    has_status: bool,
    scale: Option<ScalePaths>,
    definitions: Value,
    columns: Vec<Column>,
    fields: Vec<(String, Option<JsonPath>)>,
    terminating: bool,
}

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some \
                                resources may allow a client to request the generation of an appropriate name automatically. \
                                Name is primarily intended for creation idempotence and configuration definition. Cannot be \
                                updated. More info: \
                                https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It \
                               is not guaranteed to be set in happens-before order across separate operations. Clients may \
                               not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the \
                               system. Read-only. Null for lists. More info: \
                               https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

fn names(path: &str) -> Vec<String> {
    path.strip_prefix('.').unwrap_or(path).split('.').map(str::to_owned).collect()
}

impl CustomStrategy {
    /// From a version of a definition.
    pub(super) fn new(version: &Value, source: Arc<Source>, terminating: bool) -> Self {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let age = json!([{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": AGE_DESCRIPTION}]);
        let own = version["additionalPrinterColumns"].as_array().filter(|c| !c.is_empty());
        let listed = own.or(age.as_array()).into_iter().flatten();
        let mut definitions = vec![
            json!({"name": "Name", "type": "string", "format": "name", "description": NAME_DESCRIPTION, "priority": 0}),
        ];
        let mut columns = Vec::new();
        for column in listed {
            let path = text(column, "jsonPath");
            let description = match text(column, "description") {
                own if own.is_empty() => {
                    format!("Custom resource definition column (in JSONPath format): {path}")
                }
                own => own,
            };
            definitions.push(json!({
                "name": column["name"], "type": column["type"], "format": text(column, "format"),
                "description": description, "priority": column["priority"].as_i64().unwrap_or(0),
            }));
            columns.push(Column { path: JsonPath::parse(&path), ty: text(column, "type") });
        }
        let scale = &version["subresources"]["scale"];
        let fields = version["selectableFields"].as_array().into_iter().flatten();
        CustomStrategy {
            source,
            has_status: version["subresources"]["status"].is_object(),
            scale: scale.is_object().then(|| ScalePaths {
                spec_replicas: names(&text(scale, "specReplicasPath")),
                status_replicas: names(&text(scale, "statusReplicasPath")),
                selector: scale["labelSelectorPath"].as_str().filter(|p| !p.is_empty()).map(names),
            }),
            definitions: definitions.into(),
            columns,
            fields: fields
                .map(|f| text(f, "jsonPath"))
                .map(|p| (p.strip_prefix('.').unwrap_or(&p).to_owned(), JsonPath::parse(&p)))
                .collect(),
            terminating,
        }
    }

    fn judge(&self, object: &Value, old: Option<&Value>, status_only: bool) -> ErrorList {
        let Some(check) = self.source.checks() else { return ErrorList::new() };
        let mut errors = ErrorList::new();
        for (key, wanted) in [("kind", &self.source.kind), ("apiVersion", &self.source.api_version)] {
            if object[key] != **wanted {
                errors.push(Error::invalid(&Path::new(key), &object[key], format!("must be {wanted}")));
            }
        }
        if !errors.is_empty() {
            // What is something else is not judged by the schema.
        } else if status_only {
            if let (Some(status), Some(check)) = (object.get("status"), check.property("status")) {
                let before = old.and_then(|o| o.get("status"));
                let ratchet = before.map_or(Ratchet::Off, Ratchet::Against);
                errors.extend(custom::validate(check, status, ratchet, &Path::new("status")));
            }
            self.scale_status(object, &mut errors);
        } else {
            let ratchet = old.map_or(Ratchet::Off, Ratchet::Against);
            errors.extend(custom::validate(check, object, ratchet, &Path::none()));
            self.scale_spec(object, &mut errors);
            self.scale_status(object, &mut errors);
        }
        if !status_only {
            errors.extend(custom::validate_embedded(check, object, &Path::none()));
        }
        if old.is_none_or(|old| custom::validate_lists(check, old).is_empty()) {
            errors.extend(custom::validate_lists(check, object));
        }
        if let Some(rules) = self.source.rules() {
            // Rules may count on what the schema says.
            let blocks = |e: &Error| {
                use ErrorType::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
                matches!(e.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
            };
            if nameless(object) || errors.iter().any(blocks) {
                let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
                errors.push(Error::invalid(&Path::none(), BadValue::verbatim("null"), why));
            } else {
                let verdict = rules.validate(object, old);
                verdict.warnings.into_iter().for_each(crate::context::warn);
                errors.extend(verdict.errors);
            }
        }
        errors
    }

    fn replicas(object: &Value, path: &[String], errors: &mut ErrorList) {
        let at = Path::new(dotted(path));
        match accessor::int64(object, path) {
            Ok(Some(n)) if n < 0 => errors.push(Error::invalid(&at, n, "should be a non-negative integer")),
            Ok(Some(n)) if n > i64::from(i32::MAX) => {
                let why = format!("should be less than or equal to {}", i32::MAX);
                errors.push(Error::invalid(&at, n, why));
            }
            Ok(_) => {}
            Err(why) => errors.push(Error::invalid(&at, 0, why)),
        }
    }

    fn scale_spec(&self, object: &Value, errors: &mut ErrorList) {
        if let Some(scale) = &self.scale {
            Self::replicas(object, &scale.spec_replicas, errors);
        }
    }

    fn scale_status(&self, object: &Value, errors: &mut ErrorList) {
        let Some(scale) = &self.scale else { return };
        Self::replicas(object, &scale.status_replicas, errors);
        let Some(path) = &scale.selector else { return };
        if let Err(why) = accessor::string(object, path) {
            errors.push(Error::invalid(&Path::new(dotted(path)), BadValue::from(""), why));
        }
    }
}

/// An object without a name is told of with its metadata, and rules are not asked about it.
fn nameless(object: &Value) -> bool {
    let absent = |key: &str| object["metadata"][key].as_str().is_none_or(str::is_empty);
    absent("name") && absent("generateName")
}

fn outside_metadata(object: &Value) -> impl Iterator<Item = (&Key, &Value)> {
    object.as_object().into_iter().flatten().filter(|(key, _)| *key != "metadata")
}

fn metadata_mut(object: &mut Value) -> Option<&mut Map> {
    object.get_mut("metadata").and_then(Value::as_object_mut)
}

impl Strategy for CustomStrategy {
    fn prepare_for_create(&self, object: &mut Value, _: &Context) {
        if let Some(metadata) = metadata_mut(object) {
            metadata.insert("generation", 1.into());
        }
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &Context) {
        if context.subresource == Some("status") {
            // A status update changes nothing but the status, and who owns it.
            let mut metadata = old["metadata"].clone();
            for key in ["managedFields", "resourceVersion"] {
                if let (Some(new), Some(map)) = (object["metadata"].get(key), metadata.as_object_mut()) {
                    map.insert(key, new.clone());
                }
            }
            object["metadata"] = metadata;
            return;
        }
        if !outside_metadata(object).eq(outside_metadata(old))
            && let Some(metadata) = metadata_mut(object)
        {
            let before = old["metadata"]["generation"].as_i64().unwrap_or(1);
            metadata.insert("generation", (before + 1).into());
        }
    }

    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        self.judge(object, None, false)
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &Context) -> ErrorList {
        self.judge(object, Some(old), self.has_status && context.subresource == Some("status"))
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context) -> Vec<String> {
        let finalizers = |object: &Value| -> Vec<String> {
            let list = object["metadata"]["finalizers"].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let before = old.map(finalizers).unwrap_or_default();
        let mut added: Vec<String> = finalizers(object).into_iter().filter(|f| !before.contains(f)).collect();
        added.sort();
        let bare = added.iter().filter(|f| {
            !f.contains('/') && !matches!(f.as_str(), "orphan" | "foregroundDeletion" | "kubernetes")
        });
        bare.map(|finalizer| {
            let which = if finalizer.contains('.') { " including a path (/)" } else { "" };
            format!(
                "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name{which} to avoid accidental conflicts with other finalizer writers"
            )
        })
        .collect()
    }

    fn column_definitions(&self) -> Option<Value> {
        Some(self.definitions.clone())
    }

    fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        // What ends the list of a watch has no name.
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let name = std::iter::once(Value::from(name));
        let cells = self
            .columns
            .iter()
            .map(|c| c.path.as_ref().map_or(Value::Null, |path| cell(path, &c.ty, object, now)));
        name.chain(cells).collect()
    }

    fn selectable<'a>(&self, _: &str, field: &'a str) -> Option<Cow<'a, str>> {
        self.fields.iter().any(|(name, _)| name == field).then_some(Cow::Borrowed(field))
    }

    fn selected(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        let value = |path: &Option<JsonPath>| {
            let found = path.as_ref().and_then(|p| p.find(object).first().copied());
            match found {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            }
        };
        self.fields.iter().map(|(name, path)| (Cow::Owned(name.clone()), value(path))).collect()
    }

    fn has_generation(&self) -> bool {
        // Counted here: more than the spec counts.
        false
    }

    fn forbids_create(&self) -> Option<&str> {
        self.terminating.then_some("create not allowed while custom resource definition is terminating")
    }

    fn scale_paths(&self) -> Option<&ScalePaths> {
        self.scale.as_ref()
    }
}
