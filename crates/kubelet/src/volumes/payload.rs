//! The files of `configMap`, `secret`, `downwardAPI` and `projected` volumes: which, with what in them, in which mode.
//! Upstream: `MakePayload` of the four plugins.

use super::Request;
use crate::container_config::field_ref;
use crate::tokens::Wanted;
use api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, DownwardAPIVolumeFile, KeyToPath, Pod,
    PodCertificateProjection, Secret, SecretVolumeSource, VolumeProjection,
};
use std::collections::BTreeMap;

const DEFAULT_MODE: u32 = 0o644;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// The owner, where a pod runs as one user that must read it alone.
    pub user: Option<i64>,
}

/// Files by relative path.
pub(super) type Payload = BTreeMap<String, File>;

pub(super) fn mode(wanted: Option<i32>, default: u32) -> u32 {
    wanted.and_then(|m| u32::try_from(m).ok()).map_or(default, |m| m & 0o777)
}

fn default_mode(wanted: Option<i32>) -> u32 {
    mode(wanted, DEFAULT_MODE)
}

/// What a source holds, by key.
type Keys = BTreeMap<String, Vec<u8>>;

fn keys_of_config_map(map: &ConfigMap) -> Keys {
    let text = map.data.iter().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    text.chain(map.binary_data.iter().map(|(k, v)| (k.clone(), v.as_ref().to_vec()))).collect()
}

fn keys_of_secret(secret: &Secret) -> Keys {
    secret.data.iter().map(|(k, v)| (k.clone(), v.as_ref().to_vec())).collect()
}

/// All keys, or the chosen ones at their paths.
fn choose(
    keys: Keys,
    items: &[KeyToPath],
    default: u32,
    optional: bool,
    what: &str,
) -> Result<Payload, String> {
    let file = |data: Vec<u8>, mode: u32| File { data, mode, user: None };
    if items.is_empty() {
        return Ok(keys.into_iter().map(|(key, data)| (key, file(data, default))).collect());
    }
    let mut out = Payload::new();
    for item in items {
        match keys.get(&item.key) {
            Some(data) => {
                out.insert(item.path.clone(), file(data.clone(), mode(item.mode, default)));
            }
            None if optional => {}
            None => return Err(format!("references non-existent {what} key: {}", item.key)),
        }
    }
    Ok(out)
}

async fn config_map(request: &Request<'_>, name: &str, optional: bool) -> Result<Keys, String> {
    match request.objects.config_map(&request.pod.metadata.namespace, name).await? {
        Some(map) => Ok(keys_of_config_map(&map)),
        None if optional => Ok(Keys::new()),
        None => Err(format!("configmap {name:?} not found")),
    }
}

async fn secret(request: &Request<'_>, name: &str, optional: bool) -> Result<Keys, String> {
    match request.objects.secret(&request.pod.metadata.namespace, name).await? {
        Some(secret) => Ok(keys_of_secret(&secret)),
        None if optional => Ok(Keys::new()),
        None => Err(format!("secret {name:?} not found")),
    }
}

pub(super) async fn of_config_map(
    request: &Request<'_>,
    source: &ConfigMapVolumeSource,
) -> Result<Payload, String> {
    let optional = source.optional == Some(true);
    let keys = config_map(request, &source.name, optional).await?;
    choose(keys, &source.items, default_mode(source.default_mode), optional, "config")
}

pub(super) async fn of_secret(request: &Request<'_>, source: &SecretVolumeSource) -> Result<Payload, String> {
    let optional = source.optional == Some(true);
    let keys = secret(request, &source.secret_name, optional).await?;
    choose(keys, &source.items, default_mode(source.default_mode), optional, "secret")
}

pub(super) fn of_downward_api(
    request: &Request<'_>,
    items: &[DownwardAPIVolumeFile],
    default: Option<i32>,
) -> Result<Payload, String> {
    let default = default_mode(default);
    let none = Container::default();
    let mut out = Payload::new();
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            field_ref::field(request.pod, &field.field_path, request.facts)?
        } else if let Some(resource) = &item.resource_field_ref {
            field_ref::resource(request.pod, &none, resource, request.facts)?
        } else {
            continue;
        };
        out.insert(
            item.path.clone(),
            File { data: text.into_bytes(), mode: mode(item.mode, default), user: None },
        );
    }
    Ok(out)
}

/// The files of a projected volume, and when a token in it must be renewed.
pub(super) async fn of_projected(
    request: &Request<'_>,
    sources: &[VolumeProjection],
    default: Option<i32>,
) -> Result<(Payload, Option<i64>), String> {
    let default_bits = default_mode(default);
    let mut out = Payload::new();
    let mut refresh_at: Option<i64> = None;
    let mut errors = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let made = if let Some(s) = &source.secret {
            let optional = s.optional == Some(true);
            match secret(request, &s.name, optional).await {
                Ok(keys) => choose(keys, &s.items, default_bits, optional, "secret"),
                Err(error) => Err(error),
            }
        } else if let Some(c) = &source.config_map {
            let optional = c.optional == Some(true);
            match config_map(request, &c.name, optional).await {
                Ok(keys) => choose(keys, &c.items, default_bits, optional, "config"),
                Err(error) => Err(error),
            }
        } else if let Some(d) = &source.downward_api {
            of_downward_api(request, &d.items, default)
        } else if let Some(t) = &source.service_account_token {
            let wanted = Wanted { audience: &t.audience, seconds: t.expiration_seconds, account_uid: "" };
            match request.tokens.get(request.client, request.pod, wanted).await {
                Ok(token) => {
                    refresh_at = Some(refresh_at.map_or(token.refresh_at, |at| at.min(token.refresh_at)));
                    Ok(alone(request, &t.path, token.text.into_bytes(), default_bits))
                }
                Err(error) => Err(error),
            }
        } else if let Some(b) = &source.cluster_trust_bundle {
            let anchors = request.objects.trust_bundles.anchors(b).await;
            anchors.map(|anchors| alone(request, &b.path, anchors.into_bytes(), default_bits))
        } else if let Some(c) = &source.pod_certificate {
            pod_certificate(request, c, index, default_bits)
        } else {
            Err("unsupported projected volume source".into())
        };
        match made {
            Ok(files) => out.extend(files),
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        0 => Ok((out, refresh_at)),
        1 => Err(errors.remove(0)),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}

/// The key and the certificates of a source, each in a file of its own or together.
fn pod_certificate(
    request: &Request<'_>,
    source: &PodCertificateProjection,
    index: usize,
    default: u32,
) -> Result<Payload, String> {
    let (key, chain) = request.objects.pod_certificates.bundle(request.pod, &request.volume.name, index)?;
    let both = format!("{key}{chain}");
    let files = [
        (&source.credential_bundle_path, both),
        (&source.key_path, key),
        (&source.certificate_chain_path, chain),
    ];
    let wanted = files.into_iter().filter(|(path, _)| !path.is_empty());
    Ok(wanted.flat_map(|(path, text)| alone(request, path, text.into_bytes(), default)).collect())
}

/// A file that is for its reader alone, as far as the pod says who that is.
fn alone(request: &Request<'_>, path: &str, data: Vec<u8>, default: u32) -> Payload {
    let user = single_user(request.pod);
    let mode = if user.is_some() || request.fs_group().is_some() { 0o600 } else { default };
    Payload::from([(path.to_owned(), File { data, mode, user })])
}

/// The user that all containers run as, if it is one. Upstream: `FSUserFrom`.
fn single_user(pod: &Pod) -> Option<i64> {
    let of_pod = pod.spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let mut users = all.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}
