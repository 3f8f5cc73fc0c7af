//! Bodies: what they say they are, and what is made of them.

use super::WriteOptions;
use super::negotiate::{Clause, Media, negotiate};
use crate::resources::{Served, package};
use crate::server::Call;
use apimachinery::decode::Decode;
use apimachinery::json;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::status::Status;
use apimachinery::value::Value;
use bytes::Bytes;
use schema::decode::{self, DecodeError, Decoded, FieldValidation};
use schema::{cbor, protobuf};
use std::borrow::Cow;
use std::fmt::Write as _;

/// The form of a request's body.
pub(super) fn media(call: &Call) -> Result<Media, Status> {
    let header = call.parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let media = header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let media = if media.is_empty() { Some(Media::Json) } else { call.encodings.named(&media) };
    media.ok_or_else(|| Status::unsupported_media_type(&call.encodings.names(|_| true)))
}

/// What a body is expected to be.
struct Expected<'a> {
    table: &'a schema::Table,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    /// Whether a kind of another version or group is the same object.
    is_same: &'a dyn Fn(&str, &str) -> bool,
    /// Of a custom resource nothing is known but what is expected.
    custom: bool,
    /// Another version that reads as the same.
    also: &'a str,
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The beginning of a body, for the message about a body that nothing can be made of.
fn summary(bytes: &[u8]) -> String {
    const MAX: usize = 30;
    let shown = &bytes[..bytes.len().min(MAX)];
    let mut out = match bytes.first() {
        None => return "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        }),
    };
    if bytes.len() > MAX {
        out.push_str(" ...");
    }
    out
}

/// A body in a message about it.
fn shown(media: Media, bytes: &[u8]) -> String {
    match media {
        Media::Cbor => cbor::notation(bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

impl Expected<'_> {
    fn unrecognized(&self, why: &str, bytes: &[u8]) -> Status {
        let kind = self.kind;
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({})",
            summary(bytes)
        ))
    }

    fn refuse(&self, kind: &str, version: &str, why: &dyn std::fmt::Display) -> Status {
        let wanted = self.kind;
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {wanted}: {why}"))
    }

    /// CBOR that does not say what it is.
    fn without_meta(&self, bytes: &[u8], error: &DecodeError) -> Status {
        self.unrecognized(&format!("unable to determine group/version/kind: {error}"), bytes)
    }

    /// CBOR of a custom object that is none. What it says of itself counts in the message, if it can be read so far.
    fn unreadable(&self, bytes: &[u8], error: &DecodeError) -> Status {
        let (api_version, kind) = match cbor::type_meta(bytes) {
            Ok(meta) => meta,
            Err(error) => return self.without_meta(bytes, &error),
        };
        let version = match api_version.rsplit('/').next().unwrap_or_default() {
            "" => self.version,
            version => version,
        };
        self.refuse(if kind.is_empty() { self.kind } else { &kind }, version, error)
    }

    fn other_version(&self, group: &str, version: &str) -> Status {
        Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            api_version(group, version),
            api_version(self.group, self.version)
        ))
    }

    /// What strict validation says of CBOR: of unknown fields the first, and nothing else.
    fn unknown(&self, ty: schema::TypeId, bytes: &[u8], validation: FieldValidation) -> Vec<String> {
        match validation {
            FieldValidation::Ignore => Vec::new(),
            _ => cbor::unknown_field(self.table, ty, bytes).into_iter().collect(),
        }
    }

    /// Reads JSON that is what is expected and in which nothing is amiss. What anything else is found out, and told, by
    /// reading it step by step.
    fn read_at_once(&self, text: &str, validation: FieldValidation) -> Option<Decoded> {
        // Of members that stand twice only strict validation tells.
        if self.custom || validation == FieldValidation::Ignore {
            return None;
        }
        let ty = self.table.kind(self.group, self.version, self.kind)?;
        let mut decoded = decode::json(self.table, ty, text.as_bytes(), validation).ok()?;
        let api_version = api_version(self.group, self.version);
        let says = |member: &str| decoded.value.get(member).and_then(Value::as_str).unwrap_or_default();
        let is = |member: &str, expected: &str| matches!(says(member), said if said.is_empty() || said == expected);
        if !decoded.strict.is_empty() || !is("apiVersion", &api_version) || !is("kind", self.kind) {
            return None;
        }
        decoded.value["apiVersion"] = api_version.into();
        decoded.value["kind"] = self.kind.into();
        Some(decoded)
    }

    /// Reads a body; every mistake is told in upstream's order and words.
    fn read(&self, media: Media, bytes: &Bytes, validation: FieldValidation) -> Result<Decoded, Status> {
        let unrecognized = |why: &str| self.unrecognized(why, bytes);
        let no_meta =
            |e: DecodeError| unrecognized(&format!("couldn't get version/kind; json parse error: {e}"));
        let mut free = None;
        let text: Cow<'_, str> = match media {
            Media::Protobuf | Media::Cbor => Cow::Borrowed(""),
            // Go reads what is no text as if its bytes were marks of replacement.
            _ => match std::str::from_utf8(bytes) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => String::from_utf8_lossy(bytes),
            },
        };
        let whole = decode::without_halves(&text);
        let text = if media == Media::Json { whole } else { Cow::Borrowed(&*text) };
        if media == Media::Json
            && let Some(decoded) = self.read_at_once(&text, validation)
        {
            return Ok(decoded);
        }
        let (api_version, kind) = match media {
            Media::Json => decode::type_meta(text.as_bytes()).map_err(no_meta)?,
            Media::Yaml => {
                let tree = decode::yaml_body(&text, validation).map_err(|e| unrecognized(&e.0))?;
                let json = apimachinery::value::to_json_vec(&tree.value).unwrap_or_default();
                free = Some(tree);
                decode::type_meta(&json).map_err(no_meta)?
            }
            Media::Protobuf => {
                let envelope = protobuf::read_envelope(bytes).map_err(|e| unrecognized(&e.0))?;
                (envelope.api_version.to_owned(), envelope.kind.to_owned())
            }
            Media::Cbor if self.custom => {
                let value = cbor::object(bytes).map_err(|error| self.unreadable(bytes, &error))?;
                let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
                let (api_version, kind) = (text("apiVersion"), text("kind"));
                free = Some(Decoded { value, strict: Vec::new() });
                match api_version.matches('/').count() {
                    0 | 1 => (api_version, kind),
                    // Go takes such an object for one of no kind at all.
                    _ => Default::default(),
                }
            }
            Media::Cbor => cbor::type_meta(bytes).map_err(|e| self.without_meta(bytes, &e))?,
        };
        let (group, version) = match api_version.split('/').collect::<Vec<_>>().as_slice() {
            [""] if !self.custom => (self.group, self.version),
            [version] => ("", *version),
            [group, version] => (*group, *version),
            _ => return Err(unrecognized(&format!("unexpected GroupVersion string: {api_version}"))),
        };
        if self.custom && kind.is_empty() {
            return Err(unrecognized(&format!("Object 'Kind' is missing in '{}'", shown(media, bytes))));
        }
        let kind = if kind.is_empty() { self.kind } else { kind.as_str() };
        let also = (group, version, kind) == (self.group, self.also, self.kind);
        let version = if also { self.version } else { version };
        let refuse = |why: &dyn std::fmt::Display| self.refuse(kind, version, why);
        if media == Media::Cbor && self.custom && version.is_empty() {
            return Err(refuse(&format_args!("Object 'apiVersion' is missing in '{}'", shown(media, bytes))));
        }
        if self.custom && (group, version) != (self.group, self.version) {
            return Err(self.other_version(group, version));
        }
        // What a custom object says that it is, its own rules judge.
        let of = if self.custom { self.kind } else { kind };
        let Some(ty) = self.table.kind(group, version, of) else {
            let why = not_registered(scheme(self.group), kind, &self::api_version(group, version));
            return Err(refuse(&why));
        };
        let decoded = match (media, free) {
            (Media::Protobuf, _) => {
                let decoded = api::protobuf().decode(ty, bytes);
                decoded.and_then(|value| decode::normalise(self.table, ty, value, FieldValidation::Ignore))
            }
            (Media::Cbor, None) => cbor::typed(self.table, ty, bytes)
                .and_then(|value| decode::normalise(self.table, ty, value, FieldValidation::Ignore))
                .map(|decoded| Decoded { strict: self.unknown(ty, bytes, validation), ..decoded }),
            (_, Some(free)) => {
                decode::normalise(self.table, ty, free.value, validation).map(|mut decoded| {
                    decoded.strict.splice(0..0, free.strict);
                    decoded
                })
            }
            _ => decode::json(self.table, ty, text.as_bytes(), validation),
        };
        let mut decoded = decoded.map_err(|e| refuse(&e))?;
        let expected = (group, version, of) == (self.group, self.version, self.kind);
        let is_of_kind = kind == self.kind && (self.is_same)(group, version);
        if !expected && !is_of_kind {
            return Err(refuse(&format!(
                "converting ({version}.{kind}) to ({}.{}): unknown conversion",
                package(self.group),
                self.kind
            )));
        }
        if validation == FieldValidation::Strict && !decoded.strict.is_empty() {
            return Err(refuse(&decode::strict_message(&decoded.strict)));
        }
        if !expected {
            return Err(self.other_version(group, version));
        }
        decoded.value["apiVersion"] = self::api_version(group, version).into();
        decoded.value["kind"] = kind.into();
        Ok(decoded)
    }
}

/// Reads the body of a request whose object is not stored, and has no table: a review, a binding, options.
pub(crate) async fn kind(call: &Call, group: &str, version: &str, kind: &str) -> Result<Value, Status> {
    either(call, group, (version, ""), kind).await
}

/// The same, of a version or of another that reads as the same.
pub(crate) async fn either(
    call: &Call,
    group: &str,
    versions: (&str, &str),
    kind: &str,
) -> Result<Value, Status> {
    let plain = |clause: &Clause<'_>, _| (clause.param("as") != Some("Table")).then_some(());
    if negotiate(call.encodings, &call.parts.headers, plain).is_none() {
        return Err(call.encodings.not_acceptable());
    }
    body(call, group, versions, kind).await
}

/// Reads the body of a request as a kind of a version, or of another that reads as the same; what it has beyond that is
/// warned of or refused, as the request wants it.
pub(crate) async fn body(
    call: &Call,
    group: &str,
    (version, also): (&str, &str),
    kind: &str,
) -> Result<Value, Status> {
    let media = media(call)?;
    let bytes = call.body.read().await?;
    let options = match call.info.verb.as_str() {
        "create" => WriteOptions::for_create(call)?,
        _ => WriteOptions::for_update(call)?,
    };
    let expected =
        Expected { table: api::table(), group, version, kind, is_same: &|_, _| false, custom: false, also };
    let Decoded { value, strict } = expected.read(media, &bytes, options.field_validation)?;
    warn(strict);
    if let Some(record) = crate::context::record() {
        record.request_object(&value, || match api::table().kind(group, version, kind) {
            Some(ty) => schema::encode::json(api::table(), ty, &value),
            None => apimachinery::value::to_json_vec(&value).unwrap_or_default(),
        });
    }
    crate::registry::same_namespace(&call.info.namespace, &value)?;
    Ok(value)
}

/// Reads a body as an object of the served version and brings it to the hub version.
pub(super) fn object(
    resource: &Served,
    call: &Call,
    bytes: &Bytes,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let row = &resource.row;
    let media = media(call)?;
    if resource.custom.is_some() && media == Media::Protobuf {
        return Err(Status::unsupported_media_type(&call.encodings.names(|media| media != Media::Protobuf)));
    }
    let is_same = |group: &str, version: &str| {
        let version = api_version(group, version);
        version == resource.hub_api_version
            || hooks::converts(&row.group, &row.kind, &version, &resource.hub_api_version)
    };
    let expected = Expected {
        table: &resource.table,
        group: &row.group,
        version: &row.version,
        kind: &row.kind,
        is_same: &is_same,
        custom: resource.custom.is_some(),
        also: "",
    };
    let decoded = expected.read(media, bytes, validation)?;
    Ok((resource.to_hub(decoded.value), decoded.strict))
}

/// Warns of what was read and is not known; of each of a YAML's mistakes for itself.
pub(crate) fn warn(strict: Vec<String>) {
    for text in strict {
        match text.split_once("yaml: unmarshal errors:\n") {
            Some((_, lines)) => lines.lines().for_each(|line| crate::context::warn(line.trim().into())),
            None => crate::context::warn(text),
        }
    }
}

/// Refuses what says that it is no options of a deletion.
fn are_options(api_version: &str, kind: &str) -> Result<(), Status> {
    const SCHEME: &str = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27";
    if api_version.matches('/').count() > 1 {
        return Err(Status::bad_request(format!("unexpected GroupVersion string: {api_version}")));
    }
    match kind {
        "" | "DeleteOptions" => Ok(()),
        _ => Err(Status::bad_request(not_registered(SCHEME, kind, api_version))),
    }
}

/// Reads the options of a deletion, of whatever group their sender says they are.
pub(super) fn delete_options(call: &Call, bytes: &Bytes) -> Result<DeleteOptions, Status> {
    let bad = |e: &dyn std::fmt::Display| Status::bad_request(e.to_string());
    let table = api::table();
    let media = media(call)?;
    let ty = table.kind("", "v1", "DeleteOptions").ok_or_else(Status::path_not_found)?;
    let decoded = match media {
        Media::Protobuf => api::protobuf()
            .decode(ty, bytes)
            .and_then(|value| decode::normalise(table, ty, value, FieldValidation::Ignore)),
        Media::Cbor => {
            let (api_version, kind) = cbor::type_meta(bytes)
                .map_err(|e| bad(&format!("unable to determine group/version/kind: {e}")))?;
            are_options(&api_version, &kind)?;
            cbor::typed(table, ty, bytes)
                .map(|value| if value.is_null() { json!({}) } else { value })
                .and_then(|value| decode::normalise(table, ty, value, FieldValidation::Ignore))
        }
        _ => {
            let text = match &*String::from_utf8_lossy(bytes) {
                "null" => "{}".to_owned(),
                text => text.to_owned(),
            };
            if media == Media::Json {
                let (api_version, kind) = decode::type_meta(text.as_bytes())
                    .map_err(|e| bad(&format!("couldn't get version/kind; json parse error: {e}")))?;
                are_options(&api_version, &kind)?;
            }
            decode::yaml(table, ty, &text, FieldValidation::Ignore)
        }
    };
    let mut value = decoded.map_err(|e| bad(&e))?.value;
    if let Some(map) = value.as_object_mut() {
        // Absent members are absent options.
        map.retain(|_, member| !member.is_null());
    }
    Decode::from_value(&value).map_err(|e| bad(&e))
}

/// A type, as those know it who patch objects of it.
#[derive(Clone, Copy)]
pub(crate) struct Typed<'a> {
    pub table: &'a schema::Table,
    pub ty: schema::TypeId,
    pub api_version: &'a str,
    pub kind: &'a str,
    /// Where upstream makes the list of the kinds that it knows.
    pub scheme: &'a str,
    /// A custom object judges for itself what it is.
    pub custom: bool,
}

impl<'a> Typed<'a> {
    pub(super) fn of(resource: &'a Served) -> Self {
        Typed {
            table: &resource.table,
            ty: resource.ty,
            api_version: &resource.api_version,
            kind: &resource.row.kind,
            scheme: scheme(&resource.row.group),
            custom: resource.custom.is_some(),
        }
    }

    /// Says of an object that it is of this type.
    pub(super) fn set(&self, value: &mut Value) {
        value["apiVersion"] = self.api_version.into();
        value["kind"] = self.kind.into();
    }
}

/// Why a patched object is not of the type it was.
pub(super) fn other_type(of: &Typed<'_>, value: &Value) -> Option<String> {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if (api_version, kind) == (of.api_version, of.kind) {
        return None;
    }
    let own_group = of.api_version.split_once('/').map_or("", |(group, _)| group);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Some(match of.table.kind(group, version, kind) {
        Some(_) => format!(
            "converting ({version}.{kind}) to ({}.{}): unknown conversion",
            package(own_group),
            of.kind
        ),
        None => not_registered(of.scheme, kind, api_version),
    })
}

/// Where upstream makes the list of most kinds that it knows.
pub(crate) const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// Where it makes that of a group.
fn scheme(group: &str) -> &'static str {
    match group {
        "apiextensions.k8s.io" => "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55",
        "apiregistration.k8s.io" => "k8s.io/kube-aggregator/pkg/apiserver/scheme/scheme.go:28",
        _ => SCHEME,
    }
}

/// Upstream names the place where it made the list of the kinds it knows.
fn not_registered(scheme: &str, kind: &str, api_version: &str) -> String {
    format!("no kind \"{kind}\" is registered for version \"{api_version}\" in scheme \"{scheme}\"")
}
