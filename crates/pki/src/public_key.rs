//! Public keys: read from SubjectPublicKeyInfo, PEM or JWK; they check X.509 and JWS signatures and name themselves
//! (kid) as upstream does: base64url of the SHA-256 of the DER form.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{self as sig, RsaParameters, UnparsedPublicKey, VerificationAlgorithm},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::pem::SectionKind;
use serde::{Deserialize, Serialize};
use x509_parser::{
    oid_registry::Oid, prelude::FromDer, public_key::RSAPublicKey, x509::SubjectPublicKeyInfo,
};

use crate::{Certificate, Error, PrivateKey, Result, der, pem};

/// The kinds of key that sign certificates or tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    spki: Vec<u8>,
    /// The bit string's content: a curve point, or an RSAPublicKey.
    bits: Vec<u8>,
    key_id: String,
}

/// A JSON web key, its members in the order Go's library writes them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Jwk {
    #[serde(rename = "use", default, skip_serializing_if = "String::is_empty")]
    pub usage: String,
    #[serde(default)]
    pub kty: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kid: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub crv: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub x: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub y: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub n: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub e: String,
}

/// A JSON web key set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Jwks {
    #[serde(default)]
    pub keys: Vec<Jwk>,
}

pub(crate) const ED25519: &[u64] = &[1, 3, 101, 112];

/// Go's choice, unless it is told otherwise.
static LONG_SALT: RsaParameters =
    sig::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(sig::RsaPssSaltLength::Max);

fn is(id: &Oid<'_>, arcs: &[u64]) -> bool {
    id.iter().is_some_and(|mut i| i.by_ref().eq(arcs.iter().copied()))
}

impl PublicKey {
    /// From the DER of a SubjectPublicKeyInfo.
    pub fn from_spki(spki: &[u8]) -> Result<PublicKey> {
        let (_, parsed) = SubjectPublicKeyInfo::from_der(spki)
            .map_err(|_| Error::PublicKey("not a SubjectPublicKeyInfo"))?;
        let algorithm = &parsed.algorithm.algorithm;
        let kind = if is(algorithm, der::RSA_ENCRYPTION) {
            Kind::Rsa
        } else if is(algorithm, ED25519) {
            Kind::Ed25519
        } else if is(algorithm, der::EC_PUBLIC_KEY) {
            let curve = parsed.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
            match curve {
                Some(c) if is(&c, der::P256) => Kind::P256,
                Some(c) if is(&c, der::P384) => Kind::P384,
                Some(c) if is(&c, der::P521) => Kind::P521,
                _ => return Err(Error::PublicKey("unsupported elliptic curve")),
            }
        } else {
            return Err(Error::PublicKey("unsupported algorithm"));
        };
        Ok(PublicKey {
            kind,
            bits: parsed.subject_public_key.data.to_vec(),
            spki: parsed.raw.to_vec(),
            key_id: URL_SAFE_NO_PAD.encode(digest(&SHA256, parsed.raw)),
        })
    }

    /// Every key in the PEM data: public keys, and those of private keys and certificates.
    pub fn all_from_pem(data: &[u8]) -> Result<Vec<PublicKey>> {
        let mut keys = Vec::new();
        for (kind, der) in pem::sections(data) {
            match kind {
                SectionKind::PublicKey => keys.push(Self::from_spki(&der)?),
                SectionKind::Certificate => keys.push(Certificate::from_der(&der)?.public_key()?),
                SectionKind::PrivateKey => keys.push(Self::of_private("PRIVATE KEY", &der)?),
                SectionKind::EcPrivateKey => keys.push(Self::of_private("EC PRIVATE KEY", &der)?),
                SectionKind::RsaPrivateKey => keys.push(Self::of_private("RSA PRIVATE KEY", &der)?),
                _ => {}
            }
        }
        if keys.is_empty() { Err(Error::Pem { wanted: "public key" }) } else { Ok(keys) }
    }

    fn of_private(label: &str, der: &[u8]) -> Result<PublicKey> {
        Ok(PrivateKey::from_pem(pem::encode(label, der).as_bytes())?.public().clone())
    }

    /// The key keeps the name that the set gives it.
    pub fn from_jwk(jwk: &Jwk) -> Result<PublicKey> {
        let decode = |s: &str| {
            URL_SAFE_NO_PAD
                .decode(s.trim_end_matches('='))
                .map_err(|_| Error::PublicKey("JWK member is not base64url"))
        };
        let (algorithm, bits) = match (jwk.kty.as_str(), jwk.crv.as_str()) {
            ("RSA", _) => (
                der::seq([&der::oid(der::RSA_ENCRYPTION), &der::null()]),
                der::seq([&der::uint(&decode(&jwk.n)?), &der::uint(&decode(&jwk.e)?)]),
            ),
            ("OKP", "Ed25519") => (der::seq([&der::oid(ED25519)]), decode(&jwk.x)?),
            ("EC", crv) => {
                let (curve, width) = match crv {
                    "P-256" => (der::P256, 32),
                    "P-384" => (der::P384, 48),
                    "P-521" => (der::P521, 66),
                    _ => return Err(Error::PublicKey("unsupported elliptic curve")),
                };
                let (x, y) = (decode(&jwk.x)?, decode(&jwk.y)?);
                if x.len() != width || y.len() != width {
                    return Err(Error::PublicKey("JWK coordinate has the wrong size"));
                }
                let algorithm = der::seq([&der::oid(der::EC_PUBLIC_KEY), &der::oid(curve)]);
                (algorithm, [&[4], x.as_slice(), &y].concat())
            }
            _ => return Err(Error::PublicKey("unsupported JWK key type")),
        };
        let mut key = Self::from_spki(&der::seq([&algorithm, &der::bit_string(0, &bits)]))?;
        if !jwk.kid.is_empty() {
            key.key_id = jwk.kid.clone();
        }
        Ok(key)
    }

    /// As a member of the key set at /openid/v1/jwks.
    pub fn to_jwk(&self) -> Result<Jwk> {
        let mut jwk = Jwk { usage: "sig".into(), kid: self.key_id.clone(), ..Jwk::default() };
        let encode = |b: &[u8]| URL_SAFE_NO_PAD.encode(b);
        let (crv, alg) = match self.kind {
            Kind::Rsa => ("", "RS256"),
            Kind::P256 => ("P-256", "ES256"),
            Kind::P384 => ("P-384", "ES384"),
            Kind::P521 => ("P-521", "ES512"),
            Kind::Ed25519 => ("Ed25519", "EdDSA"),
        };
        (jwk.crv, jwk.alg) = (crv.into(), alg.into());
        match self.kind {
            Kind::Rsa => {
                let (_, key) = RSAPublicKey::from_der(&self.bits)
                    .map_err(|_| Error::PublicKey("not an RSA key that can be used"))?;
                let without_zeros = |b: &[u8]| encode(&b[b.iter().take_while(|b| **b == 0).count()..]);
                jwk.kty = "RSA".into();
                (jwk.n, jwk.e) = (without_zeros(key.modulus), without_zeros(key.exponent));
            }
            Kind::Ed25519 => {
                jwk.kty = "OKP".into();
                jwk.x = encode(&self.bits);
            }
            _ => {
                let point = self.bits.strip_prefix(&[4]).ok_or(Error::PublicKey("compressed curve point"))?;
                let (x, y) = point.split_at(point.len() / 2);
                jwk.kty = "EC".into();
                (jwk.x, jwk.y) = (encode(x), encode(y));
            }
        }
        Ok(jwk)
    }

    /// The same key under a name that somebody else gave it.
    pub fn named(self, key_id: &str) -> PublicKey {
        PublicKey { key_id: key_id.to_owned(), ..self }
    }

    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The DER of the SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The key id that tokens carry as `kid`.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The subject key identifier of a certificate over this key: SHA-256, truncated (RFC 7093), as Go makes it.
    pub(crate) fn subject_key_id(&self) -> Vec<u8> {
        digest(&SHA256, &self.bits).as_ref()[..20].to_vec()
    }

    /// Whether `signature` is this key's over `data`, under a JWS algorithm that suits the key.
    pub fn verifies_jws(&self, algorithm: &str, data: &[u8], signature: &[u8]) -> bool {
        let by: &'static dyn VerificationAlgorithm = match (self.kind, algorithm) {
            (Kind::Rsa, "RS256") => &sig::RSA_PKCS1_2048_8192_SHA256,
            (Kind::Rsa, "RS384") => &sig::RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa, "RS512") => &sig::RSA_PKCS1_2048_8192_SHA512,
            (Kind::Rsa, "PS256") => &sig::RSA_PSS_2048_8192_SHA256,
            (Kind::Rsa, "PS384") => &sig::RSA_PSS_2048_8192_SHA384,
            (Kind::Rsa, "PS512") => &sig::RSA_PSS_2048_8192_SHA512,
            (Kind::P256, "ES256") => &sig::ECDSA_P256_SHA256_FIXED,
            (Kind::P384, "ES384") => &sig::ECDSA_P384_SHA384_FIXED,
            (Kind::P521, "ES512") => &sig::ECDSA_P521_SHA512_FIXED,
            (Kind::Ed25519, "EdDSA") => &sig::ED25519,
            _ => return false,
        };
        self.verifies(by, data, signature)
    }

    /// Whether `signature` is this key's over `data`, under an X.509 signature algorithm.
    pub(crate) fn verifies_x509(&self, algorithm: &Oid<'_>, data: &[u8], signature: &[u8]) -> bool {
        const RSA_SHA384: &[u64] = &[1, 2, 840, 113549, 1, 1, 12];
        const RSA_SHA512: &[u64] = &[1, 2, 840, 113549, 1, 1, 13];
        let table: &[(Kind, &[u64], &'static dyn VerificationAlgorithm)] = &[
            (Kind::Rsa, der::SHA256_WITH_RSA, &sig::RSA_PKCS1_2048_8192_SHA256),
            (Kind::Rsa, RSA_SHA384, &sig::RSA_PKCS1_2048_8192_SHA384),
            (Kind::Rsa, RSA_SHA512, &sig::RSA_PKCS1_2048_8192_SHA512),
            (Kind::P256, der::ECDSA_SHA256, &sig::ECDSA_P256_SHA256_ASN1),
            (Kind::P256, der::ECDSA_SHA384, &sig::ECDSA_P256_SHA384_ASN1),
            (Kind::P256, der::ECDSA_SHA512, &sig::ECDSA_P256_SHA512_ASN1),
            (Kind::P384, der::ECDSA_SHA256, &sig::ECDSA_P384_SHA256_ASN1),
            (Kind::P384, der::ECDSA_SHA384, &sig::ECDSA_P384_SHA384_ASN1),
            (Kind::P384, der::ECDSA_SHA512, &sig::ECDSA_P384_SHA512_ASN1),
            (Kind::P521, der::ECDSA_SHA256, &sig::ECDSA_P521_SHA256_ASN1),
            (Kind::P521, der::ECDSA_SHA384, &sig::ECDSA_P521_SHA384_ASN1),
            (Kind::P521, der::ECDSA_SHA512, &sig::ECDSA_P521_SHA512_ASN1),
            (Kind::Ed25519, ED25519, &sig::ED25519),
        ];
        table
            .iter()
            .find(|(kind, id, _)| *kind == self.kind && is(algorithm, id))
            .is_some_and(|(_, _, by)| self.verifies(*by, data, signature))
    }

    /// How long the modulus of an RSA key is, in bits of whole bytes.
    pub fn modulus_bits(&self) -> Option<usize> {
        let key = (self.kind == Kind::Rsa).then(|| RSAPublicKey::from_der(&self.bits).ok())?;
        key.map(|(_, key)| key.modulus.iter().skip_while(|byte| **byte == 0).count() * 8)
    }

    /// Whether who holds this key signed `data`, as Go's libraries do it: RSA with PSS, whose salt is as long as can be or as
    /// the digest, and both RSA and ECDSA by SHA-256.
    pub fn proves(&self, data: &[u8], signature: &[u8]) -> bool {
        match self.kind {
            Kind::Rsa => {
                self.verifies(&LONG_SALT, data, signature)
                    || self.verifies(&sig::RSA_PSS_2048_8192_SHA256, data, signature)
            }
            Kind::P256 => self.verifies(&sig::ECDSA_P256_SHA256_ASN1, data, signature),
            Kind::P384 => self.verifies(&sig::ECDSA_P384_SHA256_ASN1, data, signature),
            Kind::P521 => self.verifies(&sig::ECDSA_P521_SHA256_ASN1, data, signature),
            Kind::Ed25519 => self.verifies(&sig::ED25519, data, signature),
        }
    }

    fn verifies(&self, by: &'static dyn VerificationAlgorithm, data: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(by, &self.bits).verify(data, signature).is_ok()
    }
}

/// The key set of these keys.
pub fn jwks(keys: &[PublicKey]) -> Result<Jwks> {
    Ok(Jwks { keys: keys.iter().map(PublicKey::to_jwk).collect::<Result<_>>()? })
}
