//! The four kinds of patch, each a function from the current object to the patched one.

use super::{Encodings, Typed};
use crate::object;
use crate::registry::{Registry, WriteContext, merge};
use crate::resources::Served;
use crate::server::Call;
use apimachinery::errors::ResponseBody;
use apimachinery::field::{Error, Path};
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::meta::validation::PatchKind;
use apimachinery::status::Status;
use apimachinery::time::Time;
use apimachinery::value::{Key, Map, Value};
use bytes::Bytes;
use schema::decode::{self, Decoded, FieldValidation};
use schema::patch::{
    JsonPatch, PatchError, PatchFailure, go_format, merge as merge_patch, parse_object, parse_strategic,
    strategic,
};

/// What a patch is, as its media type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchMedia {
    Json,
    Merge,
    Strategic,
    Apply,
    /// The same, in CBOR.
    ApplyCbor,
}

impl PatchMedia {
    pub fn kind(self) -> PatchKind {
        if self.applies() { PatchKind::Apply } else { PatchKind::Other }
    }

    /// Whether it is a server-side apply.
    pub fn applies(self) -> bool {
        matches!(self, PatchMedia::Apply | PatchMedia::ApplyCbor)
    }
}

const MEDIA: [(&str, PatchMedia); 5] = [
    ("application/json-patch+json", PatchMedia::Json),
    ("application/merge-patch+json", PatchMedia::Merge),
    ("application/strategic-merge-patch+json", PatchMedia::Strategic),
    ("application/apply-patch+yaml", PatchMedia::Apply),
    ("application/apply-patch+cbor", PatchMedia::ApplyCbor),
];

/// A patch as it came. It is read anew for every attempt: only then is it known whether there is an object to patch,
/// which clients are to hear first.
#[derive(Debug)]
pub struct Patch {
    pub media: PatchMedia,
    pub bytes: Bytes,
    pub validation: FieldValidation,
    pub force: bool,
}

/// An object with a patch in it.
struct Patched {
    value: Value,
    /// What is amiss with the patch itself.
    strict: Vec<String>,
    /// The members that the patch names, where it changes no others.
    named: Option<Names>,
}

/// The members of an object that a patch names, and of those that are objects themselves the members that it names.
struct Names(Vec<(Key, Option<Names>)>);

impl Names {
    /// How deep a patch is looked into: what is long lies in the metadata, the spec and the status.
    const DEPTH: usize = 2;

    /// Those of a merge patch or a strategic one, unless it has directives for the object.
    fn of(patch: &Value, depth: usize) -> Option<Self> {
        let members = patch.as_object()?;
        if depth == 0 || members.keys().any(|name| name.starts_with('$')) {
            return None;
        }
        Some(Names(members.iter().map(|(name, value)| (name.clone(), Names::of(value, depth - 1))).collect()))
    }

    /// Takes what is not named, but for what says what the object is.
    fn take_others(&self, object: &mut Value) -> Map {
        let Value::Object(members) = object else { return Map::new() };
        let (mut stay, mut go) = (Map::new(), Map::new());
        for (name, mut value) in std::mem::take(members) {
            match self.0.iter().find(|(named, _)| *named == name) {
                Some((_, within)) => {
                    let others = within.as_ref().map(|within| within.take_others(&mut value));
                    if let Some(others) = others.filter(|others| !others.is_empty()) {
                        go.insert(name.clone(), Value::Object(others));
                    }
                    stay.insert(name, value);
                }
                None if matches!(name.as_str(), "apiVersion" | "kind") => drop(stay.insert(name, value)),
                None => drop(go.insert(name, value)),
            }
        }
        *members = stay;
        go
    }

    /// Puts back what was taken.
    fn put_back(&self, object: &mut Value, others: Map) {
        let Value::Object(members) = object else { return };
        for (name, value) in others {
            let within =
                self.0.iter().find(|(named, _)| *named == name).and_then(|(_, within)| within.as_ref());
            match (within, members.get_mut(&name), value) {
                (Some(within), Some(member), Value::Object(value)) => within.put_back(member, value),
                (_, _, value) => drop(members.insert(name, value)),
            }
        }
    }
}

fn failure(error: PatchError) -> Status {
    match error.failure {
        // Upstream answers the latter mistakes of the client as if they were its own.
        PatchFailure::BadRequest | PatchFailure::Internal => Status::bad_request(error.to_string()),
        PatchFailure::TooLarge => Status::request_entity_too_large(error),
        PatchFailure::Unprocessable => Status::generic_server_response(
            422,
            "",
            &GroupResource::default(),
            "",
            &error.to_string(),
            0,
            ResponseBody::Expected,
        ),
    }
}

/// A patched object that is none of its kind any more.
fn unfit(what: &str, why: &str) -> Status {
    Status::invalid(&GroupKind::default(), "", &Error::invalid(&Path::new("patch"), what, why).into())
}

/// An applied object that does not fit its type. Upstream answers this mistake of the client as if it were its own.
fn unconvertible(resource: &Served, applied: &Value, why: &str) -> Status {
    let meta = |name| object::meta_str(applied, name);
    let (namespace, name) = (meta("namespace"), meta("name"));
    let slash = if resource.row.group.is_empty() { "/" } else { "" };
    let kind = format!("{slash}{}, Kind={}", resource.api_version, resource.row.kind);
    let decoding = if why.starts_with("illegal base64") { "error decoding from json: " } else { "" };
    let why = placeless(why);
    Status::bad_request(format!(
        "failed to convert new object ({namespace}/{name}; {kind}) to proper version: \
         unable to convert unstructured object to {kind}: {decoding}{why}"
    ))
}

/// What upstream says of a member that does not fit and reads itself: it does not know where it stands.
fn placeless(why: &str) -> String {
    match why.split_once(" into Go struct field ") {
        Some((found, rest)) => match rest.rsplit_once(" of type ") {
            Some((_, ty)) => format!("{found} into Go value of type {ty}"),
            None => why.to_owned(),
        },
        None => why.to_owned(),
    }
}

/// What upstream says of a member that does not fit, where it reads no text: so it is after a strategic patch.
fn restored(why: &str) -> String {
    let parts = || {
        let rest = why.strip_prefix("json: cannot unmarshal ")?;
        let (found, rest) = rest.split_once(' ')?;
        let (_, wanted) = rest.rsplit_once(" of type ")?;
        let wanted = match wanted {
            list if list.starts_with("[]") => "slice",
            map if map.starts_with("map[") => "map",
            _ => return None,
        };
        let found = match found {
            "object" => "map",
            "array" => "slice",
            "number" => "int64",
            other => other,
        };
        Some(format!("cannot restore {wanted} from {found}"))
    };
    parts().unwrap_or_else(|| why.to_owned())
}

impl Patch {
    /// The kind of a request's patch; the parameters of its media type do not count.
    pub fn media(call: &Call) -> Result<PatchMedia, Status> {
        let header = call.parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let media = header.unwrap_or_default().split(';').next().unwrap_or_default();
        let has_cbor = call.encodings == Encodings::WithCbor;
        let served = MEDIA.iter().filter(|(_, media)| has_cbor || *media != PatchMedia::ApplyCbor);
        let found = served.into_iter().find(|(name, _)| *name == media);
        found.map(|(_, media)| *media).ok_or_else(|| {
            // The words of upstream's router, which sees it first.
            let mut status = Status::unsupported_media_type(&[]);
            status.message = "415: Unsupported Media Type".into();
            status.details = Some(Box::default());
            status
        })
    }

    /// The kind of a patch of a custom object. None of it can be strategic: nobody knows of keys to merge by.
    pub fn media_of_custom(call: &Call) -> Result<PatchMedia, Status> {
        match Self::media(call) {
            Ok(media) if media != PatchMedia::Strategic => Ok(media),
            _ => {
                let has_cbor = call.encodings == Encodings::WithCbor;
                let served = MEDIA.iter().filter(|(_, media)| match media {
                    PatchMedia::Strategic => false,
                    PatchMedia::ApplyCbor => has_cbor,
                    _ => true,
                });
                Err(Status::unsupported_media_type(&served.map(|(name, _)| *name).collect::<Vec<_>>()))
            }
        }
    }

    /// A patched document of a type that is not stored, and warnings, for every kind of patch but an apply.
    pub(crate) fn apply_to(&self, of: &Typed<'_>, document: Value) -> Result<(Value, Vec<String>), Status> {
        let patched = self.patched(of, document.clone())?;
        self.fit(of, patched, &|| self.shown(of, document.clone()))
    }

    pub(crate) fn applied(&self, validation: FieldValidation) -> Result<Decoded, Status> {
        // Of CBOR too.
        let bad = |why: &dyn std::fmt::Display| Status::bad_request(format!("error decoding YAML: {why}"));
        if self.media == PatchMedia::ApplyCbor {
            let value = schema::cbor::object(&self.bytes).map_err(|e| bad(&e))?;
            return Ok(Decoded { value, strict: Vec::new() });
        }
        let text = std::str::from_utf8(&self.bytes).map_err(|e| bad(&e))?;
        let decoded = decode::yaml_document(text, validation).map_err(|e| bad(&e))?;
        let found = match &decoded.value {
            Value::Object(_) | Value::Null => return Ok(decoded),
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
        };
        Err(bad(&format!(
            "error unmarshaling JSON: while decoding JSON: \
             json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        )))
    }

    /// The patched object, in the hub version, and warnings, for every kind of patch but an apply. `current` is in the
    /// hub version too, and absent where there is no object yet.
    pub fn apply(
        &self,
        resource: &Served,
        current: Option<&Value>,
        name: &str,
    ) -> Result<(Value, Vec<String>), Status> {
        let Some(current) = current else { return Err(resource.not_found(name)) };
        let served = || resource.to_served(current.clone());
        let of = Typed::of(resource);
        let patched = self.patched(&of, served())?;
        let (value, strict) = self.fit(&of, patched, &|| self.shown(&of, served()))?;
        Ok((resource.to_hub(value), strict))
    }

    /// The current object with the patch in it.
    fn patched(&self, of: &Typed<'_>, mut current: Value) -> Result<Patched, Status> {
        match self.media {
            PatchMedia::Json => {
                let patch = JsonPatch::parse(&self.bytes, self.validation).map_err(failure)?;
                let value = patch.apply(current).map_err(failure)?;
                Ok(Patched { value, strict: patch.strict, named: None })
            }
            PatchMedia::Strategic => {
                let patch = parse_strategic(&self.bytes, self.validation).map_err(failure)?;
                let named = Names::of(&patch.value, Names::DEPTH);
                let value = strategic(of.table, of.ty, current, patch.value).map_err(failure)?;
                Ok(Patched { value, strict: patch.strict, named })
            }
            PatchMedia::Merge | PatchMedia::Apply | PatchMedia::ApplyCbor => {
                let patch = parse_object(&self.bytes, self.validation).map_err(failure)?;
                merge_patch(&mut current, &patch.value);
                let named = Names::of(&patch.value, Names::DEPTH);
                Ok(Patched { value: current, strict: patch.strict, named })
            }
        }
    }

    /// What a refusal shows as the cause: the patched object, or the patch where it is strategic. Made anew, since few
    /// patches are refused.
    fn shown(&self, of: &Typed<'_>, current: Value) -> String {
        if self.media == PatchMedia::Strategic {
            let patch = parse_strategic(&self.bytes, self.validation);
            return patch.map(|patch| go_format(&patch.value)).unwrap_or_default();
        }
        let patched = self.patched(of, current).map(|patched| patched.value).unwrap_or_default();
        if of.custom {
            let body = schema::encode::Body::encode_free(&patched);
            return String::from_utf8_lossy(body.json()).into_owned();
        }
        let patch = match self.media {
            PatchMedia::Merge => parse_object(&self.bytes, self.validation).ok().map(|patch| patch.value),
            PatchMedia::Json => {
                JsonPatch::parse(&self.bytes, self.validation).ok().map(|patch| patch.entered())
            }
            _ => None,
        };
        let patch = patch.unwrap_or_else(|| Value::Object(Default::default()));
        let shown = schema::encode::patched(of.table, of.ty, &patched, &patch);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Brings the patched tree into its type.
    fn fit(
        &self,
        of: &Typed<'_>,
        patched: Patched,
        shown: &dyn Fn() -> String,
    ) -> Result<(Value, Vec<String>), Status> {
        let Patched { value: mut patched, mut strict, named } = patched;
        if self.media == PatchMedia::Strategic {
            // What a strategic patch says of the type does not count.
            of.set(&mut patched);
        } else if !of.custom
            && let Some(why) = super::input::other_type(of, &patched)
        {
            return Err(unfit(&shown(), &why));
        }
        // The other members came from the store, and fit.
        let others = named.filter(|_| !of.custom).map(|named| (named.take_others(&mut patched), named));
        let decoded =
            decode::normalise(of.table, of.ty, patched, self.validation).map_err(|error| {
                match self.media {
                    PatchMedia::Strategic => unfit(&shown(), &restored(&error.to_string())),
                    _ => unfit(&shown(), &error.to_string()),
                }
            })?;
        strict.extend(decoded.strict);
        if self.validation == FieldValidation::Strict && !strict.is_empty() {
            return Err(unfit(&shown(), &decode::strict_message(&strict)));
        }
        let mut value = decoded.value;
        if let Some((others, named)) = others {
            named.put_back(&mut value, others);
        }
        if !of.custom {
            of.set(&mut value);
        }
        Ok((value, strict))
    }

    /// The object with the patch applied to it, both in the hub version, and warnings.
    pub async fn apply_server_side(
        &self,
        registry: &Registry,
        context: &WriteContext<'_>,
        current: Option<&Value>,
        now: Time,
    ) -> Result<(Value, Vec<String>), Status> {
        let resource = context.resource;
        let converted = current.filter(|_| !resource.is_hub()).map(|c| resource.to_served(c.clone()));
        let current = converted.as_ref().or(current);
        let applied = self.applied(self.validation)?;
        let mut merged =
            merge(&registry.resources, context, current, &applied.value, self.force, now).await?;
        if self.validation == FieldValidation::Strict && !applied.strict.is_empty() {
            let why = applied.strict.join(", ");
            return Err(Status::bad_request(format!("error strict decoding YAML: {why}")));
        }
        // These were just made, and are as they shall be.
        let managed = object::take_meta(&mut merged, "managedFields");
        let decoded = decode::normalise_applied(&resource.table, resource.ty, merged)
            .map_err(|why| unconvertible(resource, &applied.value, &why.to_string()))?;
        let mut value = decoded.value;
        if let Some(managed) = managed {
            object::set_meta(&mut value, "managedFields", managed);
        }
        Typed::of(resource).set(&mut value);
        Ok((resource.to_hub(value), applied.strict))
    }
}
