//! Images in registries (the OCI distribution protocol): which hosts to ask for a name, the manifest for this machine,
//! its config, and its layers. Everything is checked against its digest while it comes in.

/// Tokens and passwords.
mod auth;
/// Which hosts, and how to talk to them.
mod config;
/// Layers, several at a time, with retries.
mod fetch;
/// Requests over TCP and TLS.
mod http;

pub use auth::Credentials;
pub use config::{HostConfig, RegistriesFile, TlsFiles};

use super::error::{Error, Result};
use super::manifest::{self, ACCEPT, Descriptor, Document, ImageConfig, MAX_DOCUMENT};
use super::{Digest, Reference};
use ::http::{StatusCode, header};
use config::Endpoint;
use http::Session;
use std::sync::Arc;

/// The registries this node knows; cheap to clone.
#[derive(Clone, Default)]
pub struct Registries {
    file: Arc<RegistriesFile>,
}

/// A manifest that has been found and read, with the host that has it.
pub(crate) struct Pull {
    session: Session,
    /// Of the config.
    pub(crate) id: Digest,
    /// What the reference points to: of the index, if there is one.
    pub(crate) manifest: Digest,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) size: u64,
}

impl Registries {
    /// With the mirrors, credentials and certificates of a `registries.yaml`.
    pub fn new(file: RegistriesFile) -> Registries {
        Registries { file: Arc::new(file) }
    }

    /// Asks the mirrors, then the registry itself.
    pub(crate) async fn resolve(&self, reference: &Reference, auth: Option<Credentials>) -> Result<Pull> {
        let mut last = None;
        for endpoint in self.file.endpoints(reference) {
            let credentials = auth.clone().filter(|_| !endpoint.mirror).or_else(|| endpoint.credentials());
            match resolve_at(endpoint, reference, credentials).await {
                Ok(pull) => return Ok(pull),
                Err((endpoint, error)) => {
                    tracing::debug!(image = %reference, %endpoint, %error, "could not resolve an image here");
                    last = Some(error);
                }
            }
        }
        let error = last.unwrap_or_else(|| Error::NotFound(reference.to_string()));
        Err(match error {
            Error::NotFound(_) | Error::NoPlatform(_) | Error::Denied(_) => error,
            other => Error::Registry(format!("failed to resolve reference \"{reference}\": {other}")),
        })
    }
}

async fn resolve_at(
    endpoint: Endpoint,
    reference: &Reference,
    credentials: Option<Credentials>,
) -> std::result::Result<Pull, (String, Error)> {
    let name = endpoint.base.to_string();
    let session = match Session::new(endpoint, reference, credentials) {
        Ok(session) => session,
        Err(error) => return Err((name, error)),
    };
    resolve_in(session, reference).await.map_err(|error| (name, error))
}

async fn resolve_in(session: Session, reference: &Reference) -> Result<Pull> {
    let wanted = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.clone().unwrap_or_else(|| "latest".into()),
    };
    let mut bytes = manifest_bytes(&session, reference, &wanted).await?;
    let manifest = checked(&bytes, reference.digest.as_ref(), "manifest")?;
    let mut document = Document::parse(&bytes)?;
    if let Some(manifests) = &document.manifests {
        let platform = || Error::NoPlatform(reference.to_string());
        let chosen = manifest::choose(manifests).ok_or_else(platform)?.digest.clone();
        bytes = manifest_bytes(&session, reference, chosen.as_str()).await?;
        checked(&bytes, Some(&chosen), "manifest")?;
        document = Document::parse(&bytes)?;
    }
    let (Some(config), Some(layers)) = (document.config, document.layers) else {
        return Err(Error::Invalid("an index within an index".into()));
    };
    if config.size > MAX_DOCUMENT {
        return Err(Error::TooLarge { what: "image config".into(), limit: MAX_DOCUMENT });
    }
    let size = bytes.len() as u64 + config.size + layers.iter().map(|layer| layer.size).sum::<u64>();
    let response = session.get(&format!("blobs/{}", config.digest), &[]).await?;
    let bytes = session.whole(response, MAX_DOCUMENT).await?;
    let id = checked(&bytes, Some(&config.digest), "image config")?;
    let config = ImageConfig::parse(&bytes)?;
    if config.rootfs.diff_ids.len() != layers.len() {
        let known = config.rootfs.diff_ids.len();
        return Err(Error::Invalid(format!("image has {} layers, its config {known}", layers.len())));
    }
    Ok(Pull { session, id, manifest, config, layers, size })
}

async fn manifest_bytes(session: &Session, reference: &Reference, wanted: &str) -> Result<Vec<u8>> {
    let accept = ACCEPT.join(", ");
    let response = session.get(&format!("manifests/{wanted}"), &[(header::ACCEPT, &accept)]).await;
    let response = response.map_err(|error| match error {
        Error::NotFound(_) => Error::NotFound(reference.to_string()),
        other => other,
    })?;
    debug_assert_eq!(response.status(), StatusCode::OK);
    session.whole(response, MAX_DOCUMENT).await
}

fn checked(bytes: &[u8], expected: Option<&Digest>, what: &str) -> Result<Digest> {
    let actual = Digest::of(bytes);
    match expected {
        Some(expected) if *expected != actual => {
            Err(Error::DigestMismatch { what: what.into(), expected: expected.clone(), actual })
        }
        _ => Ok(actual),
    }
}
