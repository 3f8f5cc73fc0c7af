//! What a server agrees to in a handshake: versions, cipher suites and key exchanges, by the names and numbers that
//! upstream's flags have for them. Of these rustls has the sound ones.

use crate::tls::provider;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::{CipherSuite, NamedGroup, SupportedProtocolVersion};
use std::collections::BTreeSet;
use std::sync::Arc;

/// See the module. The default is rustls' own: TLS 1.2 and 1.3, with all that is sound.
#[derive(Debug, Clone)]
pub struct Handshake {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
}

impl Default for Handshake {
    fn default() -> Self {
        Handshake { provider: provider(), versions: BOTH }
    }
}

/// Flags that cannot be heeded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("unknown tls version {0:?}")]
    UnknownVersion(String),
    #[error("tls version {0} is not served: TLS 1.2 and 1.3 are")]
    OldVersion(String),
    #[error("Cipher suite {0} not supported or doesn't exist")]
    UnknownSuite(String),
    #[error("cipher suite {0} is not served: it is not sound")]
    UnsoundSuite(String),
    /// RFC 7540, section 9.2.2.
    #[error(
        "error configuring http2: http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher (need at least one of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)"
    )]
    NoSuiteOfHttp2,
    #[error("curve preference {0} is out of range (must be 1-65535)")]
    CurveOutOfRange(i32),
    #[error("duplicate curve preference {0}")]
    DuplicateCurve(i32),
    #[error("curve preference {0} is not supported")]
    UnknownCurve(i32),
}

static BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
static NEWEST: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Go's names; those of TLS 1.3 are always agreed to, named or not.
const SUITES: &[(&str, CipherSuite)] = &[
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Those that Go knows and rustls leaves out.
const UNSOUND: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

const OF_HTTP2: [CipherSuite; 2] = [
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
];

/// Key exchanges, the preferred ones first; their numbers are IANA's, and Go's.
fn groups() -> [&'static dyn SupportedKxGroup; 5] {
    use aws_lc_rs::kx_group::{SECP256R1, SECP256R1MLKEM768, SECP384R1, X25519, X25519MLKEM768};
    [X25519MLKEM768, SECP256R1MLKEM768, X25519, SECP256R1, SECP384R1]
}

fn suite(name: &str) -> Result<CipherSuite, HandshakeError> {
    match SUITES.iter().find(|(known, _)| *known == name) {
        Some((_, suite)) => Ok(*suite),
        None if UNSOUND.contains(&name) => Err(HandshakeError::UnsoundSuite(name.to_owned())),
        None => Err(HandshakeError::UnknownSuite(name.to_owned())),
    }
}

fn curves(numbers: &[i32]) -> Result<Vec<&'static dyn SupportedKxGroup>, HandshakeError> {
    let mut seen = BTreeSet::new();
    for &number in numbers {
        let id = u16::try_from(number).ok().filter(|id| *id > 0);
        let id = id.ok_or(HandshakeError::CurveOutOfRange(number))?;
        if !seen.insert(id) {
            return Err(HandshakeError::DuplicateCurve(number));
        }
        if !groups().iter().any(|group| group.name() == NamedGroup::from(id)) {
            return Err(HandshakeError::UnknownCurve(number));
        }
    }
    Ok(groups().into_iter().filter(|group| seen.contains(&u16::from(group.name()))).collect())
}

impl Handshake {
    /// What flags ask for; whatever is empty stays as it is. `http2` says whether HTTP/2 is spoken, which needs certain suites.
    ///
    /// # Errors
    ///
    /// Names that are unknown or not served, in upstream's words where it has some.
    pub fn parse(
        suites: &[String],
        min_version: &str,
        curve_numbers: &[i32],
        http2: bool,
    ) -> Result<Self, HandshakeError> {
        let versions = match min_version {
            "" | "VersionTLS12" => BOTH,
            "VersionTLS13" => NEWEST,
            "VersionTLS10" | "VersionTLS11" => {
                return Err(HandshakeError::OldVersion(min_version.to_owned()));
            }
            other => return Err(HandshakeError::UnknownVersion(other.to_owned())),
        };
        let mut provider = (*provider()).clone();
        if !suites.is_empty() {
            let named = suites.iter().map(|name| suite(name)).collect::<Result<Vec<_>, _>>()?;
            if http2 && versions.len() > 1 && !OF_HTTP2.iter().any(|suite| named.contains(suite)) {
                return Err(HandshakeError::NoSuiteOfHttp2);
            }
            provider.cipher_suites.retain(|known| known.tls13().is_some() || named.contains(&known.suite()));
        }
        if !curve_numbers.is_empty() {
            provider.kx_groups = curves(curve_numbers)?;
        }
        Ok(Handshake { provider: Arc::new(provider), versions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(suites: &str, version: &str, curves: &[i32]) -> Result<Handshake, String> {
        let suites: Vec<String> = suites.split_whitespace().map(str::to_owned).collect();
        Handshake::parse(&suites, version, curves, true).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_narrow_what_is_agreed_to() {
        let all = Handshake::default();
        let narrow = parse("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "", &[23, 29]).unwrap();
        let old = |of: &Handshake| {
            let suites = of.provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none());
            suites.map(|suite| suite.suite()).collect::<Vec<_>>()
        };
        assert_eq!(old(&narrow), [CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]);
        assert_eq!(
            narrow.provider.cipher_suites.len(),
            all.provider.cipher_suites.len() - old(&all).len() + 1
        );
        let groups: Vec<_> = narrow.provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, [NamedGroup::X25519, NamedGroup::secp256r1]);
        assert_eq!(parse("", "VersionTLS13", &[]).unwrap().versions.len(), 1);
    }

    #[test]
    fn what_is_not_served_is_refused() {
        let refused = |suites, version, curves: &[i32]| parse(suites, version, curves).unwrap_err();
        assert_eq!(refused("", "TLS1", &[]), "unknown tls version \"TLS1\"");
        assert_eq!(
            refused("", "VersionTLS10", &[]),
            "tls version VersionTLS10 is not served: TLS 1.2 and 1.3 are"
        );
        assert_eq!(refused("NONE", "", &[]), "Cipher suite NONE not supported or doesn't exist");
        assert_eq!(
            refused("TLS_RSA_WITH_RC4_128_SHA", "", &[]),
            "cipher suite TLS_RSA_WITH_RC4_128_SHA is not served: it is not sound"
        );
        assert!(refused("TLS_AES_128_GCM_SHA256", "", &[]).starts_with("error configuring http2: "));
        assert!(parse("TLS_AES_128_GCM_SHA256", "VersionTLS13", &[]).is_ok());
        assert_eq!(refused("", "", &[0]), "curve preference 0 is out of range (must be 1-65535)");
        assert_eq!(refused("", "", &[23, 29, 23]), "duplicate curve preference 23");
        assert_eq!(refused("", "", &[25]), "curve preference 25 is not supported");
    }
}
