//! Bearer tokens: those who know some kind of token are asked in order, the first who knows one says whose it is.

use super::Connection;
use crate::user::User;
use apimachinery::field::aggregate;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use http::header;
use std::sync::Arc;

/// What is said of a token that nobody knows.
pub const INVALID: &str = "invalid bearer token";
/// How a WebSocket client in a browser brings a token, which can set no header but this one.
const PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub user: User,
    /// Which of the wanted audiences the token is for.
    pub audiences: Vec<String>,
}

/// What became of a token: whose it is, or that it is none of those one knows, or what is wrong with it.
pub type Answer = Result<Option<Known>, Vec<String>>;

/// Knows one kind of token.
pub trait TokenAuthenticator: Send + Sync {
    /// Whose the token is, for these audiences.
    fn authenticate<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, Answer>;
}

/// Which of the wanted audiences are among these.
pub fn intersect(have: &[String], wanted: &[String]) -> Vec<String> {
    have.iter().filter(|a| wanted.contains(a)).cloned().collect()
}

/// One whose tokens say nothing of audiences: they are for the API server.
pub struct Agnostic<T> {
    pub inner: T,
    /// The audiences of the API server.
    pub audiences: Arc<[String]>,
}

impl<T: TokenAuthenticator> TokenAuthenticator for Agnostic<T> {
    fn authenticate<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let common = intersect(&self.audiences, audiences);
            if common.is_empty() {
                return Ok(None);
            }
            let known = self.inner.authenticate(token, audiences).await?;
            Ok(known.map(|known| Known { audiences: common, ..known }))
        })
    }
}

impl<T: TokenAuthenticator + ?Sized> TokenAuthenticator for Arc<T> {
    fn authenticate<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, Answer> {
        (**self).authenticate(token, audiences)
    }
}

/// All who know tokens, in order.
pub struct Tokens {
    pub authenticators: Vec<Arc<dyn TokenAuthenticator>>,
    /// The audiences of the API server.
    pub audiences: Arc<[String]>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Whose a token is. Everybody is asked until one knows it; what was wrong with it is told only if nobody does.
    pub async fn identify(&self, token: &str, audiences: &[String]) -> Answer {
        let mut wrong = Vec::new();
        for authenticator in &self.authenticators {
            match authenticator.authenticate(token, audiences).await {
                Ok(Some(known)) => return Ok(Some(known)),
                Ok(None) => {}
                Err(errors) => wrong.extend(errors),
            }
        }
        if wrong.is_empty() { Ok(None) } else { Err(wrong) }
    }

    /// What a review says of a token: as upstream, whose chain begins with one that knows no token but its own.
    pub async fn review(&self, token: &str, audiences: &[String]) -> Result<Known, String> {
        match self.identify(token, audiences).await {
            Ok(Some(known)) => Ok(known),
            Ok(None) => Err(INVALID.into()),
            Err(errors) => {
                let all = std::iter::once(INVALID.to_owned()).chain(errors);
                Err(aggregate(all).unwrap_or_default())
            }
        }
    }

    /// Whose the token is that a request brings, if it brings one.
    pub(super) async fn of_request(&self, request: &http::request::Parts, _: &Connection) -> Answer {
        let mut wrong = Vec::new();
        for token in [Ok(bearer(request)), protocol_token(request)] {
            match token {
                Ok(None) => {}
                Ok(Some(token)) => match self.identify(&token, &self.audiences).await {
                    Ok(Some(known)) => return Ok(Some(known)),
                    Ok(None) => wrong.push(INVALID.into()),
                    Err(errors) => wrong.extend(errors),
                },
                Err(error) => wrong.push(error.to_owned()),
            }
        }
        if wrong.is_empty() { Ok(None) } else { Err(wrong) }
    }
}

/// The bearer token of a request.
pub(crate) fn bearer(request: &http::request::Parts) -> Option<String> {
    let value = request.headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, rest) = value.split_once(' ')?;
    let token = rest.split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// The token among the subprotocols of a WebSocket request.
fn protocol_token(request: &http::request::Parts) -> Result<Option<String>, &'static str> {
    let says = |name: header::HeaderName, word: &str| {
        let values = request.headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    if !says(header::CONNECTION, "upgrade") || !says(header::UPGRADE, "websocket") {
        return Ok(None);
    }
    let protocols = request.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let protocols = protocols.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    let (tokens, others): (Vec<_>, Vec<_>) = protocols.partition(|p| p.starts_with(PROTOCOL_PREFIX));
    let encoded = match tokens.as_slice() {
        [] => return Ok(None),
        [one] => &one[PROTOCOL_PREFIX.len()..],
        _ => return Err("multiple base64.bearer.authorization tokens specified"),
    };
    let bytes = URL_SAFE_NO_PAD.decode(encoded);
    let bytes = bytes.map_err(|_| "invalid base64.bearer.authorization token encoding")?;
    let token = String::from_utf8(bytes).map_err(|_| "invalid base64.bearer.authorization token")?;
    if token.is_empty() {
        return Ok(None);
    }
    // One is left that the server can answer with.
    if others.is_empty() {
        return Err("missing additional subprotocol");
    }
    Ok(Some(token))
}

/// Marks a request whose token was not looked at, because of the space before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ignored;

impl Ignored {
    pub(crate) const WARNING: &str =
        "the provided Authorization header contains extra space before the bearer token, and is ignored";
}

/// Takes tokens out of a request's headers, so that nobody behind authentication passes them on.
pub(super) fn forget(request: &mut http::request::Parts) {
    let value = request.headers.remove(header::AUTHORIZATION);
    let text = value.as_ref().and_then(|v| v.to_str().ok()).map(str::trim).unwrap_or_default();
    if text
        .split_once(' ')
        .is_some_and(|(scheme, rest)| scheme.eq_ignore_ascii_case("bearer") && rest.starts_with(' '))
    {
        request.extensions.insert(Ignored);
    }
    let protocols = request.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let all: Vec<&str> = protocols.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    if !all.iter().any(|p| p.trim().starts_with(PROTOCOL_PREFIX)) {
        return;
    }
    let others: Vec<&str> =
        all.into_iter().map(str::trim).filter(|p| !p.starts_with(PROTOCOL_PREFIX)).collect();
    if let Ok(value) = others.join(",").parse() {
        request.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn request(headers: &[(&str, &str)]) -> http::request::Parts {
        let mut request = http::Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn check(headers: &[(&str, &str)], expected: Expect) {
        let mut parts = request(headers);
        let found = (bearer(&parts), protocol_token(&parts));
        forget(&mut parts);
        let left = parts.headers.get(header::SEC_WEBSOCKET_PROTOCOL).map(|v| v.to_str().unwrap().to_owned());
        expected.assert_eq(&format!("{found:?} {left:?}"));
    }

    #[test]
    fn tokens_of_requests() {
        check(&[], expect!["(None, Ok(None)) None"]);
        check(&[("authorization", "Bearer a")], expect![[r#"(Some("a"), Ok(None)) None"#]]);
        check(&[("authorization", " bearer a b ")], expect![[r#"(Some("a"), Ok(None)) None"#]]);
        check(&[("authorization", "Bearer")], expect!["(None, Ok(None)) None"]);
        check(&[("authorization", "Bearer  a")], expect!["(None, Ok(None)) None"]);
        check(&[("authorization", "Basic a")], expect!["(None, Ok(None)) None"]);
        let socket = |protocols: &str, expected| {
            check(
                &[
                    ("connection", "keep-alive, Upgrade"),
                    ("upgrade", "websocket"),
                    ("sec-websocket-protocol", protocols),
                ],
                expected,
            );
        };
        let token = "base64url.bearer.authorization.k8s.io.dG9rZW4";
        socket(
            &format!("v4.channel.k8s.io, {token}"),
            expect![[r#"(None, Ok(Some("token"))) Some("v4.channel.k8s.io")"#]],
        );
        socket(token, expect![[r#"(None, Err("missing additional subprotocol")) Some("")"#]]);
        socket(
            &format!("a,{token},{token}"),
            expect![[r#"(None, Err("multiple base64.bearer.authorization tokens specified")) Some("a")"#]],
        );
        socket(
            &format!("a,{token}=="),
            expect![[r#"(None, Err("invalid base64.bearer.authorization token encoding")) Some("a")"#]],
        );
        check(&[("sec-websocket-protocol", token)], expect![[r#"(None, Ok(None)) Some("")"#]]);
    }
}
