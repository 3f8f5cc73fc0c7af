//! The kubeconfig file (client-go's clientcmd/api/v1): read with its relative paths resolved, written with mode 0600.
//! Credentials may be files or inline data; `current` gives what a client needs, whatever the form.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result, files};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion", default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub clusters: Vec<NamedCluster>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub contexts: Vec<NamedContext>,
    #[serde(rename = "current-context", default)]
    pub current_context: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub users: Vec<NamedUser>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferences: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedCluster {
    pub name: String,
    pub cluster: Cluster,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedContext {
    pub name: String,
    pub context: Context,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamedUser {
    pub name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub user: User,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cluster {
    #[serde(default)]
    pub server: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tls_server_name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub insecure_skip_tls_verify: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub certificate_authority: String,
    #[serde(default, skip_serializing_if = "Data::is_empty")]
    pub certificate_authority_data: Data,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proxy_url: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub disable_compression: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct User {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_certificate: String,
    #[serde(default, skip_serializing_if = "Data::is_empty")]
    pub client_certificate_data: Data,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_key: String,
    #[serde(default, skip_serializing_if = "Data::is_empty")]
    pub client_key_data: Data,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    #[serde(rename = "tokenFile", default, skip_serializing_if = "String::is_empty")]
    pub token_file: String,
    #[serde(rename = "as", default, skip_serializing_if = "String::is_empty")]
    pub impersonate: String,
    #[serde(rename = "as-uid", default, skip_serializing_if = "String::is_empty")]
    pub impersonate_uid: String,
    #[serde(rename = "as-groups", default, skip_serializing_if = "Vec::is_empty")]
    pub impersonate_groups: Vec<String>,
    #[serde(rename = "as-user-extra", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub impersonate_extra: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub password: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_provider: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<serde_json::Value>,
}

/// A command that prints credentials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub command: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub env: Vec<ExecEnv>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub install_hint: String,
    #[serde(default)]
    pub provide_cluster_info: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interactive_mode: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecEnv {
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Context {
    pub cluster: String,
    #[serde(default)]
    pub user: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<serde_json::Value>,
}

/// Bytes that the file holds in base64.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Data(pub Vec<u8>);

impl Data {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        text.retain(|c| !c.is_ascii_whitespace());
        STANDARD.decode(text).map(Data).map_err(serde::de::Error::custom)
    }
}

fn is_false(b: &bool) -> bool {
    !b
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// What a client needs of one context, files read.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    pub server: String,
    pub tls_server_name: Option<String>,
    pub insecure_skip_tls_verify: bool,
    pub proxy_url: Option<String>,
    pub certificate_authority: Option<Data>,
    pub client_certificate: Option<Data>,
    pub client_key: Option<Data>,
    /// Namespace of the context; `default` when it names none.
    pub namespace: String,
    /// The user as written, for tokens, exec, basic auth and impersonation.
    pub user: User,
}

impl Kubeconfig {
    /// A file with one cluster, one user and one context that joins them.
    pub fn single(cluster_name: &str, cluster: Cluster, user_name: &str, user: User) -> Kubeconfig {
        let context = format!("{user_name}@{cluster_name}");
        Kubeconfig {
            api_version: "v1".into(),
            kind: "Config".into(),
            clusters: vec![NamedCluster { name: cluster_name.into(), cluster }],
            contexts: vec![NamedContext {
                name: context.clone(),
                context: Context {
                    cluster: cluster_name.into(),
                    user: user_name.into(),
                    ..Context::default()
                },
            }],
            current_context: context,
            users: vec![NamedUser { name: user_name.into(), user }],
            ..Kubeconfig::default()
        }
    }

    /// From YAML or JSON; relative paths stay as they are.
    pub fn parse(text: &str) -> Result<Kubeconfig> {
        serde_saphyr::from_str(text)
            .map_err(|e| Error::Kubeconfig { path: PathBuf::new(), reason: e.to_string() })
    }

    /// From a file; relative paths in it count from its directory.
    pub fn load(path: &Path) -> Result<Kubeconfig> {
        let text = String::from_utf8(files::read(path)?)
            .map_err(|e| Error::Kubeconfig { path: path.into(), reason: e.to_string() })?;
        let mut config: Kubeconfig = serde_saphyr::from_str(&text)
            .map_err(|e| Error::Kubeconfig { path: path.into(), reason: e.to_string() })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let anchor = |p: &mut String| {
            if !p.is_empty() {
                *p = base.join(&*p).to_string_lossy().into_owned();
            }
        };
        for named in &mut config.clusters {
            anchor(&mut named.cluster.certificate_authority);
        }
        for named in &mut config.users {
            anchor(&mut named.user.client_certificate);
            anchor(&mut named.user.client_key);
            anchor(&mut named.user.token_file);
        }
        Ok(config)
    }

    pub fn to_yaml(&self) -> Result<String> {
        serde_saphyr::to_string(self)
            .map_err(|e| Error::Kubeconfig { path: PathBuf::new(), reason: e.to_string() })
    }

    /// Writes the file whole, mode 0600.
    pub fn save(&self, path: &Path) -> Result<()> {
        files::write(path, self.to_yaml()?.as_bytes(), files::Access::Secret, files::Durability::Renamed)
    }

    /// What the current context (or the named one) leads to; inline data wins over files, as in client-go.
    pub fn resolve(&self, context: Option<&str>) -> Result<Resolved> {
        let missing = |what: &str, name: &str| Error::Kubeconfig {
            path: PathBuf::new(),
            reason: format!("{what} {name:?} does not exist"),
        };
        let name = context.unwrap_or(&self.current_context);
        let context =
            &self.contexts.iter().find(|c| c.name == name).ok_or_else(|| missing("context", name))?.context;
        let cluster = &self
            .clusters
            .iter()
            .find(|c| c.name == context.cluster)
            .ok_or_else(|| missing("cluster", &context.cluster))?
            .cluster;
        let user = match self.users.iter().find(|u| u.name == context.user) {
            Some(named) => named.user.clone(),
            None if context.user.is_empty() => User::default(),
            None => return Err(missing("user", &context.user)),
        };
        let bytes = |data: &Data, file: &str| -> Result<Option<Data>> {
            Ok(if !data.is_empty() {
                Some(data.clone())
            } else if !file.is_empty() {
                Some(Data(files::read(Path::new(file))?))
            } else {
                None
            })
        };
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Ok(Resolved {
            server: cluster.server.clone(),
            tls_server_name: text(&cluster.tls_server_name),
            insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
            proxy_url: text(&cluster.proxy_url),
            certificate_authority: bytes(
                &cluster.certificate_authority_data,
                &cluster.certificate_authority,
            )?,
            client_certificate: bytes(&user.client_certificate_data, &user.client_certificate)?,
            client_key: bytes(&user.client_key_data, &user.client_key)?,
            namespace: text(&context.namespace).unwrap_or_else(|| "default".into()),
            user,
        })
    }
}
