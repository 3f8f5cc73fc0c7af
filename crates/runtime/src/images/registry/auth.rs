//! Credentials, and what a registry's 401 asks for: Basic, or a token from the server it names.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// What a pull secret or `registries.yaml` holds. Never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// With `password`.
    pub username: String,
    /// With `username`.
    pub password: String,
    /// Base64 of `username:password`, instead of both.
    pub auth: String,
    /// An OAuth2 refresh token.
    pub identity_token: String,
    /// A token for the registry itself.
    pub registry_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// From CRI; `None` if it says nothing.
    pub fn from_cri(auth: cri::v1::AuthConfig) -> Option<Credentials> {
        let credentials = Credentials {
            username: auth.username,
            password: auth.password,
            auth: auth.auth,
            identity_token: auth.identity_token,
            registry_token: auth.registry_token,
        };
        (credentials != Credentials::default()).then_some(credentials)
    }

    /// The value of a Basic header.
    pub(super) fn basic(&self) -> Option<String> {
        if !self.username.is_empty() {
            return Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{}:{}", self.username, self.password))
            ));
        }
        // Some tools pad the decoded form with NULs.
        let decoded = STANDARD.decode(self.auth.trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let decoded = decoded.trim_matches('\0');
        decoded.contains(':').then(|| format!("Basic {}", STANDARD.encode(decoded)))
    }
}

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The strongest challenge we can meet.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    let mut rest = header.trim();
    let mut found = None;
    while !rest.is_empty() {
        let (scheme, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let (parameters, after) = parameters(after);
        rest = after;
        let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        if scheme.eq_ignore_ascii_case("bearer") {
            if let Some(realm) = get("realm") {
                return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            found = Some(Challenge::Basic);
        }
    }
    found
}

/// `key="value", key=value …` up to the next scheme.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut list = Vec::new();
    let mut rest = text.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim().to_ascii_lowercase();
        if key.is_empty() || key.contains([' ', ',', '"']) {
            break;
        }
        let (value, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => match quoted.split_once('"') {
                Some((value, after)) => (value, after),
                None => (quoted, ""),
            },
            None => {
                let end = after.find([',', ' ']).unwrap_or(after.len());
                (&after[..end], &after[end..])
            }
        };
        list.push((key, value.to_owned()));
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    (list, rest)
}

/// The two names under which a token server answers.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl TokenAnswer {
    pub(super) fn into_token(self) -> Option<String> {
        [self.token, self.access_token].into_iter().find(|token| !token.is_empty())
    }
}

/// Percent-encoding for a query or a form.
pub(super) fn encode(text: &str) -> String {
    let unreserved = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    text.bytes().map(|b| if unreserved(&b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            Some(Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) })
        };
        let check =
            |header: &str, expected: Option<Challenge>| assert_eq!(parse(header), expected, "{header}");
        check(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
            bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:a/b:pull,push"),
            ),
        );
        check(r#"bearer realm=https://x, service=y"#, bearer("https://x", Some("y"), None));
        check(r#"Basic realm="x", Bearer realm="https://t""#, bearer("https://t", None, None));
        check(r#"Basic realm="x""#, Some(Challenge::Basic));
        check("Basic", Some(Challenge::Basic));
        for bad in ["", "Bearer", "Negotiate", r#"Bearer realm"#, "=", "\"", "Bearer =,=,"] {
            check(bad, None);
        }
    }

    #[test]
    fn passwords() {
        let auth = Credentials { auth: STANDARD.encode("u:p"), ..Default::default() };
        let both = Credentials { username: "u".into(), password: "p".into(), ..Default::default() };
        assert_eq!(auth.basic(), both.basic());
        assert!(!format!("{both:?}").contains('p'));
        assert_eq!(Credentials::from_cri(Default::default()), None);
    }
}
