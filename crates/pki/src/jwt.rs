//! Signed JSON web tokens in compact form: claims in, token out, and back. What the claims mean is the caller's.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, PrivateKey, PublicKey, Result};

/// Longer tokens are refused unread.
const MAX_TOKEN: usize = 64 << 10;
/// Why a token is refused that names a key which is not known, in upstream's words.
pub const NO_KEY: &str = "invalid signature, no keys found";

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    crit: Vec<String>,
}

/// Signs tokens with one key.
#[derive(Debug)]
pub struct Signer {
    key: PrivateKey,
    /// The encoded header, which is the same in every token.
    header: String,
}

impl Signer {
    pub fn new(key: PrivateKey) -> Signer {
        // The members are in the order of Go's library.
        let header = format!(r#"{{"alg":"{}","kid":"{}"}}"#, key.jws_algorithm(), key.public().key_id());
        Signer { header: URL_SAFE_NO_PAD.encode(header), key }
    }

    pub fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// The token of these claims.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String> {
        let claims = serde_json::to_vec(claims).map_err(|_| Error::Token("claims are not JSON"))?;
        let mut token = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign_jws(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// Checks tokens against a set of keys.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    keys: Vec<PublicKey>,
}

impl Verifier {
    pub fn new(keys: Vec<PublicKey>) -> Verifier {
        Verifier { keys }
    }

    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The claims of a token that one of the keys signed. A token that names a key is tried with that key only.
    /// Time, issuer and audience are not looked at here.
    pub fn verify<T: DeserializeOwned>(&self, token: &str) -> Result<T> {
        let parts = Parts::split(token)?;
        let header: Header = decode(parts.header)?;
        if !header.crit.is_empty() {
            return Err(Error::Token("critical header parameters are not supported"));
        }
        let signature = URL_SAFE_NO_PAD
            .decode(parts.signature)
            .map_err(|_| Error::Token("signature is not base64url"))?;
        let mut named =
            self.keys.iter().filter(|k| header.kid.is_empty() || k.key_id() == header.kid).peekable();
        if named.peek().is_none() {
            return Err(Error::Token(NO_KEY));
        }
        let signed = named.any(|k| k.verifies_jws(&header.alg, parts.signed.as_bytes(), &signature));
        if !signed {
            return Err(Error::Token("signature does not verify with any known key"));
        }
        decode(parts.claims)
    }
}

/// Whether the parts of a token are what they should be, whoever signed it.
pub fn is_well_formed(token: &str) -> bool {
    let Ok(parts) = Parts::split(token) else { return false };
    decode::<Header>(parts.header).is_ok() && URL_SAFE_NO_PAD.decode(parts.signature).is_ok()
}

/// The claims of a token whose signature has NOT been checked: to see who claims to have issued it.
pub fn unverified_claims<T: DeserializeOwned>(token: &str) -> Result<T> {
    decode(Parts::split(token)?.claims)
}

/// The name of the key that a token says it was signed with, which has NOT been checked; empty if it says nothing.
pub fn unverified_key_id(token: &str) -> Result<String> {
    Ok(decode::<Header>(Parts::split(token)?.header)?.kid)
}

/// The signature of some content by a shared secret, in compact form with the content left out (RFC 7515, appendix F):
/// what nodes that join check the cluster's published kubeconfig by.
pub fn detached(content: &[u8], id: &str, secret: &[u8]) -> String {
    let header = serde_json::json!({"alg": "HS256", "kid": id}).to_string();
    let (header, content) = (URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, format!("{header}.{content}").as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
}

struct Parts<'a> {
    signed: &'a str,
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Parts<'a>> {
        let wrong = Error::Token("not a compact signed token");
        if token.len() > MAX_TOKEN {
            return Err(wrong);
        }
        let Some((signed, signature)) = token.rsplit_once('.') else { return Err(wrong) };
        match signed.split_once('.') {
            Some((header, claims)) if !claims.contains('.') => {
                Ok(Parts { signed, header, claims, signature })
            }
            _ => Err(wrong),
        }
    }
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Token("a part is not base64url"))?;
    serde_json::from_slice(&json).map_err(|_| Error::Token("a part is not the expected JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As upstream's tests have it.
    #[test]
    fn detached_signatures() {
        let content = b"Hello from the other side. I must have called a thousand times.";
        assert_eq!(
            detached(content, "joshua", b"my voice is my passcode"),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }
}
