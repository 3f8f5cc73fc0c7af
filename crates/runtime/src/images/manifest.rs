//! The documents of OCI images and of Docker's schema 2, as far as a runtime reads them, and platform choice.

use super::Digest;
use super::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// No index, manifest or config is larger (containerd's limit is the same).
pub const MAX_DOCUMENT: u64 = 8 << 20;
/// More layers than overlayfs can stack.
pub const MAX_LAYERS: usize = 500;

/// Media types of manifests, in the order we ask for them.
pub const ACCEPT: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A pointer to content.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// In an index: what the image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// In a layout's index: names, among others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What an image runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Go's GOARCH.
    #[serde(default)]
    pub architecture: String,
    /// Go's GOOS.
    #[serde(default)]
    pub os: String,
    /// `v7`, `v8`…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// An index or a manifest: which of the two shows in its members.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// 2 in all that exist.
    #[serde(default)]
    pub schema_version: u32,
    /// Often absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<Descriptor>>,
    /// Of a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    /// Of a manifest, the lowest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Descriptor>>,
}

impl Document {
    /// Parses either; a document that is both is refused (CVE-2021-41190).
    pub fn parse(bytes: &[u8]) -> Result<Document> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|e| Error::Invalid(format!("invalid manifest: {e}")))?;
        let is_manifest = document.config.is_some() || document.layers.is_some();
        match (document.manifests.is_some(), is_manifest) {
            (true, true) => Err(Error::Invalid("manifest is an index as well: refused as ambiguous".into())),
            (false, false) => Err(Error::Invalid("neither an image index nor an image manifest".into())),
            _ => Ok(document),
        }
    }
}

/// The image's config: the part that is executed, and the digests of the unpacked layers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Go's GOARCH.
    #[serde(default)]
    pub architecture: String,
    /// Go's GOOS.
    #[serde(default)]
    pub os: String,
    /// Defaults for containers.
    #[serde(default)]
    pub config: ExecConfig,
    /// The layers.
    #[serde(default)]
    pub rootfs: RootFs,
}

/// Defaults for containers. `null` and absent are the same in every member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecConfig {
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// Replaced by a container's command.
    pub entrypoint: Option<Vec<String>>,
    /// Replaced by a container's args.
    pub cmd: Option<Vec<String>>,
    /// Directories that shall be volumes.
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    /// Where the process starts.
    pub working_dir: Option<String>,
    /// Labels of the image.
    pub labels: Option<BTreeMap<String, String>>,
    /// `SIGQUIT`, `3`…
    pub stop_signal: Option<String>,
}

/// The layers of a config.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// Digests of the uncompressed layers, the lowest first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Parses a config document.
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig> {
        let config: ImageConfig = serde_json::from_slice(bytes)
            .map_err(|e| Error::Invalid(format!("invalid image config: {e}")))?;
        if config.rootfs.diff_ids.len() > MAX_LAYERS {
            return Err(Error::TooLarge { what: "number of layers".into(), limit: MAX_LAYERS as u64 });
        }
        Ok(config)
    }

    /// The names of the stacks of layers, the lowest first: OCI's ChainID.
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.rootfs.diff_ids.len());
        for diff in &self.rootfs.diff_ids {
            chain.push(match chain.last() {
                None => diff.clone(),
                Some(parent) => Digest::of(format!("{parent} {diff}").as_bytes()),
            });
        }
        chain
    }
}

/// Go's name of this machine's architecture.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The manifest for this machine: same system and architecture, the plainest variant first.
pub fn choose(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture(),
        // One manifest without a platform is an image for whoever fetches it.
        None => manifests.len() == 1,
    };
    let variant = |descriptor: &&Descriptor| {
        let variant = descriptor.platform.as_ref().and_then(|platform| platform.variant.clone());
        match (architecture(), variant.as_deref()) {
            (_, None) | ("arm64", Some("v8")) => String::new(),
            (_, Some(variant)) => variant.to_owned(),
        }
    };
    manifests.iter().filter(fits).min_by_key(variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        let digest = Digest::of(b"x");
        let descriptor = |arch: &str| serde_json::json!({"digest": digest, "size": 1, "platform": {"os": "linux", "architecture": arch}});
        let index = serde_json::json!({"manifests": [descriptor("s390x"), descriptor(architecture())]});
        let index = Document::parse(index.to_string().as_bytes()).unwrap();
        let chosen = choose(index.manifests.as_ref().unwrap()).unwrap();
        assert_eq!(chosen.platform.as_ref().unwrap().architecture, architecture());
        for bad in
            ["{}", "[]", "", r#"{"manifests":[],"layers":[]}"#, r#"{"layers":[{"digest":"x","size":1}]}"#]
        {
            assert!(Document::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let text = r#"{"config":{"Env":null,"Cmd":["sh"]},"rootfs":{"diff_ids":[]}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd.unwrap(), ["sh"]);
    }

    #[test]
    fn chain_ids_are_ocis() {
        let diff_ids = vec![Digest::of(b"a"), Digest::of(b"b")];
        let config = ImageConfig { rootfs: RootFs { diff_ids: diff_ids.clone() }, ..Default::default() };
        let joined = Digest::of(format!("{} {}", diff_ids[0], diff_ids[1]).as_bytes());
        assert_eq!(config.chain_ids(), [diff_ids[0].clone(), joined]);
    }
}
