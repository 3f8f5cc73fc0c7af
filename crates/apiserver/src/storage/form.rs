//! What objects look like in etcd, as upstream writes them: protobuf behind `k8s\0` for most built-in kinds, JSON for
//! the groups whose servers know nothing else and for custom resources, which are CBOR behind a gate; each in its
//! storage version.

use crate::handlers::Encodings;
use crate::resources::{Resources, Served};
use apimachinery::value::Value;
use bytes::Bytes;
use schema::decode::FieldValidation;
use schema::encode::{Body, Empties, TypeMeta};
use schema::row::TypeId;
use schema::{cbor, protobuf};
use std::collections::HashMap;
use std::sync::Arc;
use store::{Key, Loaded, Transform, TransformError};

/// Groups that upstream serves with codecs which have no protobuf storage.
const JSON_GROUPS: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// What becomes of empty lists when an object of a group is kept.
pub(crate) fn empties(group: &str) -> Empties {
    if JSON_GROUPS.contains(&group) { Empties::Kept } else { Empties::Absent }
}

/// How the objects of one bucket are kept.
struct Kept {
    served: Arc<Served>,
    /// The hub's group: events of both groups are the core group's.
    group: String,
    /// The version in which they are written.
    api_version: String,
    /// The row of that version; JSON when there is none.
    protobuf: Option<TypeId>,
}

/// See the module.
pub struct UpstreamForm {
    kept: HashMap<Arc<str>, Kept>,
    /// What custom resources are written in. They are read in either.
    encodings: Encodings,
}

impl std::fmt::Debug for UpstreamForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamForm").field("buckets", &self.kept.len()).finish()
    }
}

fn failed(error: impl std::fmt::Display) -> TransformError {
    TransformError(error.to_string())
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

impl Kept {
    fn new(served: &Arc<Served>) -> Self {
        let group = served.hub_api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
        let row = &served.row;
        let (own, version) = match &row.storage_version {
            Some((group, version)) => (group.as_ref(), version.as_ref()),
            None => (group.as_str(), served.hub_version.as_str()),
        };
        let api_version = join(own, version);
        let hub = served.hub_api_version.as_str();
        let ty = served.table.kind(own, version, &row.kind);
        let protobuf = ty.filter(|_| !JSON_GROUPS.contains(&own));
        // A version that cannot be reached from the hub is not written.
        let reachable = protobuf.is_some() || hooks::converts(own, &row.kind, hub, &api_version);
        let (api_version, protobuf) = match reachable {
            true => (api_version, protobuf),
            false => (hub.to_owned(), Some(served.hub_ty).filter(|_| !JSON_GROUPS.contains(&own))),
        };
        Kept { served: served.clone(), group, api_version, protobuf }
    }

    fn save(&self, value: &Bytes) -> Result<Bytes, TransformError> {
        let served = &self.served;
        let hub = &served.hub_api_version;
        let kind = &served.row.kind;
        let body = Body::from_stored(value.clone()).map_err(failed)?;
        let mut tree = body.value(Some(&TypeMeta::new(kind, hub)), 0).map_err(failed)?;
        if self.api_version != *hub {
            tree = hooks::convert(&self.group, kind, hub, &self.api_version, tree);
        }
        if let Some(ty) = self.protobuf {
            return Ok(api::protobuf().encode(ty, &tree, kind, &self.api_version).into());
        }
        let mut text = serde_json::to_vec(&tree).map_err(failed)?;
        // As Go's encoder ends every value.
        text.push(b'\n');
        Ok(text.into())
    }

    fn load(&self, kept: &Bytes) -> Result<Loaded, TransformError> {
        let served = &self.served;
        let (mut tree, api_version) = if kept.starts_with(protobuf::PREFIX) {
            let envelope = protobuf::read_envelope(kept).map_err(failed)?;
            let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", envelope.api_version));
            let ty = served.table.kind(group, version, envelope.kind).ok_or_else(|| {
                failed(format!(
                    "no kind {:?} is registered for version {:?}",
                    envelope.kind, envelope.api_version
                ))
            })?;
            let tree = api::protobuf().decode_message(ty, envelope.raw).map_err(failed)?;
            (tree, envelope.api_version.to_owned())
        } else {
            let tree: Value = serde_json::from_slice(kept).map_err(failed)?;
            let api_version = tree["apiVersion"].as_str().unwrap_or_default().to_owned();
            (tree, api_version)
        };
        let hub = &served.hub_api_version;
        if api_version != *hub {
            tree = hooks::convert(&self.group, &served.row.kind, &api_version, hub, tree);
        }
        let decoded = schema::decode::normalise(&served.table, served.hub_ty, tree, FieldValidation::Ignore);
        let mut tree = decoded.map_err(failed)?.value;
        // Upstream applies the defaults of today to what was stored before there were any.
        schema::defaults::apply(&served.table, served.hub_ty, &mut tree);
        served.strategy.default(&mut tree);
        let stale =
            api_version != self.api_version || kept.starts_with(protobuf::PREFIX) != self.protobuf.is_some();
        let body = Body::encode(&served.table, served.hub_ty, &tree);
        Ok(Loaded { value: body.stored().clone(), stale })
    }
}

impl UpstreamForm {
    /// The forms of the resources that are served.
    pub fn new(resources: &Resources) -> Self {
        let stored = resources.all().into_iter().filter(|served| !served.prefix.is_empty());
        let kept = stored.map(|served| (served.prefix.clone(), Kept::new(&served))).collect();
        UpstreamForm { kept, encodings: Encodings::Standard }
    }

    /// Writes custom resources in the best of these.
    pub fn with(self, encodings: Encodings) -> Self {
        UpstreamForm { encodings, ..self }
    }
}

impl Transform for UpstreamForm {
    fn save(&self, key: &Key, value: &Bytes) -> Result<Bytes, TransformError> {
        match (self.kept.get(&key.prefix), Body::from_stored(value.clone())) {
            (Some(kept), Ok(_)) => kept.save(value),
            // A custom resource is its own JSON.
            (None, Ok(body)) if self.encodings == Encodings::WithCbor => {
                let tree: Value = serde_json::from_slice(body.json()).map_err(failed)?;
                Ok(cbor::encode_free(&tree).into())
            }
            (None, Ok(body)) => Ok([body.json(), b"\n"].concat().into()),
            // Not an object of ours, or one that nobody could read: it stays as it is.
            (_, Err(_)) => Ok(value.clone()),
        }
    }

    fn load(&self, key: &Key, kept: Bytes) -> Result<Loaded, TransformError> {
        if let Some(form) = self.kept.get(&key.prefix) {
            return form.load(&kept);
        }
        let tree: Value = match kept.first() {
            Some(b'{') => serde_json::from_slice(&kept).map_err(failed)?,
            Some(_) if kept.starts_with(cbor::PREFIX) => cbor::document(&kept).map_err(failed)?,
            _ => return Ok(Loaded { value: kept, stale: false }),
        };
        let stale = kept.starts_with(cbor::PREFIX) != (self.encodings == Encodings::WithCbor);
        Ok(Loaded { value: Body::encode_free(&tree).stored().clone(), stale })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> (UpstreamForm, Resources) {
        let resources = Resources::new(api::table(), &[]);
        (UpstreamForm::new(&resources), resources)
    }

    /// What `save` writes, `load` reads back as the same object.
    #[track_caller]
    fn check(prefix: &str, object: Value, starts: &[u8], holds: &str) {
        let (form, _) = form();
        let key = Key::new(prefix, "a");
        let first = form.load(&key, serde_json::to_vec(&object).unwrap().into()).unwrap();
        let kept = form.save(&key, &first.value).unwrap();
        assert!(kept.starts_with(starts), "{kept:?}");
        assert!(kept.windows(holds.len()).any(|window| window == holds.as_bytes()), "{kept:?}");
        let again = form.load(&key, kept).unwrap();
        assert_eq!(again, Loaded { value: first.value, stale: false });
    }

    #[test]
    fn objects_are_kept_as_upstream_keeps_them() {
        let meta =
            apimachinery::json!({ "name": "a", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z" });
        let object = |api_version: &str, kind: &str| apimachinery::json!({ "apiVersion": api_version, "kind": kind, "metadata": meta });
        check("/registry/configmaps/", object("v1", "ConfigMap"), b"k8s\0", "ConfigMap");
        check("/registry/events/", object("v1", "Event"), b"k8s\0", "Event");
        check("/registry/minions/", object("v1", "Node"), b"k8s\0", "Node");
        let hpa = object("autoscaling/v2", "HorizontalPodAutoscaler");
        check("/registry/horizontalpodautoscalers/", hpa, b"k8s\0", "autoscaling/v2");
        let policy = object("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy");
        check(
            "/registry/mutatingadmissionpolicies/",
            policy,
            b"k8s\0",
            "admissionregistration.k8s.io/v1beta1",
        );
        let service = object("apiregistration.k8s.io/v1", "APIService");
        check("/registry/apiregistration.k8s.io/apiservices/", service, b"{", "\"APIService\"");
        let mut crd = object("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        crd["spec"] = apimachinery::json!({
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "as", "kind": "A" },
            "conversion": { "strategy": "None" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object" } } }],
        });
        check(
            "/registry/apiextensions.k8s.io/customresourcedefinitions/",
            crd,
            b"{",
            "apiextensions.k8s.io/v1beta1",
        );
        check("/registry/example.com/as/", object("example.com/v1", "A"), b"{", "example.com/v1");
    }

    #[test]
    fn custom_resources_are_cbor_behind_the_gate() {
        let json = Bytes::from_static(
            br#"{"apiVersion":"example.com/v1","kind":"A","metadata":{"name":"a"},"spec":1.5}"#,
        );
        let (form, _) = form();
        let key = Key::new("/registry/example.com/as/", "a");
        let loaded = form.load(&key, json.clone()).unwrap();
        let gated = form.with(Encodings::WithCbor);
        assert!(gated.load(&key, json).unwrap().stale);
        let kept = gated.save(&key, &loaded.value).unwrap();
        assert!(kept.starts_with(b"\xd9\xd9\xf7\xa4"), "{kept:?}");
        assert_eq!(
            gated.load(&key, kept.clone()).unwrap(),
            Loaded { value: loaded.value.clone(), stale: false }
        );
        // Who turns the gate off again still reads what was written.
        let plain = gated.with(Encodings::Standard);
        assert_eq!(plain.load(&key, kept).unwrap(), Loaded { value: loaded.value, stale: true });
    }

    #[test]
    fn what_is_no_object_stays_as_it_is() {
        let (form, _) = form();
        let key = Key::new("/registry/ranges/", "servicenodeports");
        let kept = Bytes::from_static(b"k8s\0\x01\x02");
        let loaded = form.load(&key, kept.clone()).unwrap();
        assert_eq!(form.save(&key, &loaded.value).unwrap(), kept);
    }

    #[test]
    fn damage_is_an_error_of_its_object() {
        let (form, _) = form();
        let key = Key::new("/registry/configmaps/", "default/a");
        for kept in [&b"k8s\0\x0a\xff"[..], b"{", b"", b"k8s:enc:aescbc:v1:k:xx"] {
            assert!(form.load(&key, kept.into()).is_err(), "{kept:?}");
        }
    }
}
