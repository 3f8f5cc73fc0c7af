//! What is served beside resources: groups, versions, keys. Each has a document of v3 for itself; v2 has them among all.

use super::paths::{capitalised_group, tag_of};
use super::schemas::{Dialect, META};
use apimachinery::json;
use apimachinery::value::{Map, Value};

/// What is asked with GET, and answered as one type; none is text.
#[derive(Debug, Clone)]
pub(super) struct Plain {
    /// Its document of v3: the path without the slashes around it.
    pub key: String,
    tag: String,
    description: &'static str,
    id: String,
    media: &'static [&'static str],
    /// It says what may come, too.
    consumes: bool,
    answer: Option<String>,
}

const GENERAL: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// What every server has, and what these groups bring.
pub(super) fn of_groups<'a>(groups: impl Iterator<Item = &'a str>) -> Vec<Plain> {
    let text = |key: &str, tag: &str, id: &str, description, media| Plain {
        key: key.into(),
        tag: tag.into(),
        description,
        id: id.into(),
        media,
        consumes: false,
        answer: None,
    };
    let mut out = vec![
        text(
            ".well-known/openid-configuration",
            "WellKnown",
            "getServiceAccountIssuerOpenIDConfiguration",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            &["application/json"],
        ),
        text(
            "openid/v1/jwks",
            "openid",
            "getServiceAccountIssuerOpenIDKeyset",
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            &["application/jwk-set+json"],
        ),
    ];
    let typed = |key: String, tag: String, id: String, description, media, answer: String| Plain {
        key,
        tag,
        description,
        id,
        media,
        consumes: true,
        answer: Some(answer),
    };
    out.push(typed(
        "version".into(),
        "version".into(),
        "getCodeVersion".into(),
        "get the version information for this server",
        &["application/json"],
        "io.k8s.apimachinery.pkg.version.Info".into(),
    ));
    out.push(typed(
        "apis".into(),
        "apis".into(),
        "getAPIVersions".into(),
        "get available API versions",
        GENERAL,
        format!("{META}APIGroupList"),
    ));
    out.extend(groups.map(|group| match group {
        "" => typed(
            "api".into(),
            tag_of(group),
            "getCoreAPIVersions".into(),
            "get available API versions",
            GENERAL,
            format!("{META}APIVersions"),
        ),
        _ => typed(
            format!("apis/{group}"),
            tag_of(group),
            format!("get{}APIGroup", capitalised_group(group)),
            "get information of a group",
            GENERAL,
            format!("{META}APIGroup"),
        ),
    }));
    out
}

impl Plain {
    /// The path and what is there.
    pub(super) fn written(&self, dialect: Dialect, used: &mut dyn FnMut(&str)) -> (String, Value) {
        let answer = match &self.answer {
            None => json!({"type": "string"}),
            Some(name) => {
                used(name);
                dialect.reference(name)
            }
        };
        let mut out = json!({"tags": [self.tag], "description": self.description, "operationId": self.id});
        let ok = match dialect {
            Dialect::V3 => {
                let content: Map = self
                    .media
                    .iter()
                    .map(|media| ((*media).to_owned(), json!({ "schema": answer })))
                    .collect();
                json!({"description": "OK", "content": content})
            }
            Dialect::V2 => {
                if self.consumes {
                    out["consumes"] = json!(self.media);
                }
                out["produces"] = json!(self.media);
                out["schemes"] = json!(["https"]);
                json!({"description": "OK", "schema": answer})
            }
        };
        out["responses"] = json!({"200": ok, "401": {"description": "Unauthorized"}});
        (format!("/{}/", self.key), json!({ "get": out }))
    }
}
