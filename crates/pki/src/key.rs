//! Private keys: made, read (PKCS#8, SEC 1 and PKCS#1 PEM; ECDSA and RSA), written as PKCS#8 PEM.

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    },
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::SectionKind};

use crate::{Error, PublicKey, Result, der, pem, public_key::ED25519};

/// What new keys are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rsa3072,
    Rsa4096,
    P256,
    P384,
    P521,
    Ed25519,
}

/// A private key that signs certificates and tokens.
pub struct PrivateKey {
    pair: Pair,
    pkcs8: Vec<u8>,
    public: PublicKey,
}

enum Pair {
    /// The same key twice: certificates carry ASN.1 signatures, tokens fixed-width ones.
    Ecdsa {
        asn1: EcdsaKeyPair,
        fixed: EcdsaKeyPair,
        curve: &'static Curve,
    },
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

struct Curve {
    id: &'static [u64],
    signature: &'static [u64],
    asn1: &'static EcdsaSigningAlgorithm,
    fixed: &'static EcdsaSigningAlgorithm,
    jws: &'static str,
}

static CURVES: [Curve; 3] = [
    Curve {
        id: der::P256,
        signature: der::ECDSA_SHA256,
        asn1: &ECDSA_P256_SHA256_ASN1_SIGNING,
        fixed: &ECDSA_P256_SHA256_FIXED_SIGNING,
        jws: "ES256",
    },
    Curve {
        id: der::P384,
        signature: der::ECDSA_SHA384,
        asn1: &ECDSA_P384_SHA384_ASN1_SIGNING,
        fixed: &ECDSA_P384_SHA384_FIXED_SIGNING,
        jws: "ES384",
    },
    Curve {
        id: der::P521,
        signature: der::ECDSA_SHA512,
        asn1: &ECDSA_P521_SHA512_ASN1_SIGNING,
        fixed: &ECDSA_P521_SHA512_FIXED_SIGNING,
        jws: "ES512",
    },
];

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey({})", self.public.key_id())
    }
}

impl PrivateKey {
    /// A new ECDSA P-256 key.
    pub fn generate() -> Result<PrivateKey> {
        Self::generate_as(Algorithm::P256)
    }

    /// A new key of this kind. Those of RSA take their time.
    pub fn generate_as(algorithm: Algorithm) -> Result<PrivateKey> {
        let rsa = |size| {
            let pair = RsaKeyPair::generate(size);
            Self::from_rsa(Some(pair.map_err(|_| Error::PrivateKey("generating an RSA key failed"))?))
        };
        let curve = match algorithm {
            Algorithm::Rsa3072 => return rsa(KeySize::Rsa3072),
            Algorithm::Rsa4096 => return rsa(KeySize::Rsa4096),
            Algorithm::Ed25519 => return Self::generate_ed25519(),
            Algorithm::P256 => &CURVES[0],
            Algorithm::P384 => &CURVES[1],
            Algorithm::P521 => &CURVES[2],
        };
        let fixed = EcdsaKeyPair::generate(curve.fixed)
            .map_err(|_| Error::PrivateKey("generating an ECDSA key failed"))?;
        let pkcs8 = fixed.to_pkcs8v1().map_err(|_| Error::PrivateKey("encoding an ECDSA key failed"))?;
        Self::from_ec_der(pkcs8.as_ref(), curve).ok_or(Error::PrivateKey("a generated key was rejected"))?
    }

    fn generate_ed25519() -> Result<PrivateKey> {
        let pair =
            Ed25519KeyPair::generate().map_err(|_| Error::PrivateKey("generating an Ed25519 key failed"))?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| Error::PrivateKey("encoding an Ed25519 key failed"))?;
        let algorithm = der::seq([&der::oid(ED25519)]);
        let spki = der::seq([&algorithm, &der::bit_string(0, pair.public_key().as_ref())]);
        let public = PublicKey::from_spki(&spki)?;
        Ok(PrivateKey { pkcs8: pkcs8.as_ref().to_vec(), pair: Pair::Ed25519(pair), public })
    }

    /// The first private key in the PEM data.
    pub fn from_pem(data: &[u8]) -> Result<PrivateKey> {
        let (kind, der) = pem::sections(data)
            .into_iter()
            .find(|(kind, _)| {
                matches!(
                    kind,
                    SectionKind::PrivateKey | SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey
                )
            })
            .ok_or(Error::Pem { wanted: "private key" })?;
        if kind == SectionKind::RsaPrivateKey {
            return Self::from_rsa(RsaKeyPair::from_der(&der).ok());
        }
        if let Some(key) = CURVES.iter().find_map(|curve| Self::from_ec_der(&der, curve)) {
            return key;
        }
        Self::from_rsa(RsaKeyPair::from_pkcs8(&der).ok())
    }

    fn from_ec_der(data: &[u8], curve: &'static Curve) -> Option<Result<PrivateKey>> {
        let asn1 = EcdsaKeyPair::from_private_key_der(curve.asn1, data).ok()?;
        let fixed = EcdsaKeyPair::from_private_key_der(curve.fixed, data).ok()?;
        let pkcs8 = asn1.to_pkcs8v1().ok()?.as_ref().to_vec();
        let algorithm = der::seq([&der::oid(der::EC_PUBLIC_KEY), &der::oid(curve.id)]);
        let spki = der::seq([&algorithm, &der::bit_string(0, asn1.public_key().as_ref())]);
        Some(PublicKey::from_spki(&spki).map(|public| PrivateKey {
            pair: Pair::Ecdsa { asn1, fixed, curve },
            pkcs8,
            public,
        }))
    }

    fn from_rsa(pair: Option<RsaKeyPair>) -> Result<PrivateKey> {
        let pair = pair.ok_or(Error::PrivateKey("neither an ECDSA (P-256, P-384, P-521) nor an RSA key"))?;
        let encoded = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair)
            .map_err(|_| Error::PrivateKey("encoding an RSA key failed"))?;
        let pkcs8 = encoded.as_ref().to_vec();
        let algorithm = der::seq([&der::oid(der::RSA_ENCRYPTION), &der::null()]);
        let spki = der::seq([&algorithm, &der::bit_string(0, pair.public_key().as_ref())]);
        let public = PublicKey::from_spki(&spki)?;
        Ok(PrivateKey { pair: Pair::Rsa(pair), pkcs8, public })
    }

    /// PKCS#8 PEM.
    pub fn to_pem(&self) -> String {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// As rustls wants it.
    pub fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.clone()).into()
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The JWS algorithm of this key's tokens.
    pub fn jws_algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Ecdsa { curve, .. } => curve.jws,
            Pair::Rsa(_) => "RS256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// The AlgorithmIdentifier and the signature, as certificates and requests carry them.
    pub(crate) fn sign_x509(&self, data: &[u8]) -> Result<Vec<u8>> {
        match &self.pair {
            Pair::Ecdsa { asn1, .. } => asn1
                .sign(&SystemRandom::new(), data)
                .map(|s| s.as_ref().to_vec())
                .map_err(|_| Error::PrivateKey("signing failed")),
            Pair::Rsa(pair) => sign_rsa(pair, data),
            Pair::Ed25519(pair) => Ok(pair.sign(data).as_ref().to_vec()),
        }
    }

    pub(crate) fn x509_algorithm(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ecdsa { curve, .. } => der::seq([&der::oid(curve.signature)]),
            Pair::Rsa(_) => der::seq([&der::oid(der::SHA256_WITH_RSA), &der::null()]),
            Pair::Ed25519(_) => der::seq([&der::oid(ED25519)]),
        }
    }

    /// The signature as a token carries it.
    pub fn sign_jws(&self, data: &[u8]) -> Result<Vec<u8>> {
        match &self.pair {
            Pair::Ecdsa { fixed, .. } => fixed
                .sign(&SystemRandom::new(), data)
                .map(|s| s.as_ref().to_vec())
                .map_err(|_| Error::PrivateKey("signing failed")),
            Pair::Rsa(pair) => sign_rsa(pair, data),
            Pair::Ed25519(pair) => Ok(pair.sign(data).as_ref().to_vec()),
        }
    }
}

fn sign_rsa(pair: &RsaKeyPair, data: &[u8]) -> Result<Vec<u8>> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature)
        .map_err(|_| Error::PrivateKey("signing failed"))?;
    Ok(signature)
}
