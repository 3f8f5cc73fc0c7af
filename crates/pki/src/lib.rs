//! Keys, certificates, signing, kubeconfig, rotation.

/// All that a `tiphys server` needs to be trusted and to trust, created and renewed in one directory.
pub mod bundle;
/// Reading a certificate.
pub mod certificate;
/// Certificate signing requests: reading, making.
pub mod csr;
mod der;
mod error;
/// Writing secrets and certificates so that a crash leaves the old file or the new one.
pub mod files;
/// What servers agree to in handshakes.
pub mod handshake;
/// Authorities and what they sign.
pub mod issue;
/// Signed JSON web tokens and key sets, for service accounts and OIDC.
pub mod jwt;
/// Private keys.
pub mod key;
/// The kubeconfig file.
pub mod kubeconfig;
/// PEM, the armour of all of these.
pub mod pem;
/// Public keys and the signatures they check.
pub mod public_key;
/// Certificate subjects, alternative names and usages, in Kubernetes' words.
pub mod subject;
/// TLS settings for servers and clients, with certificates that can be exchanged while running.
pub mod tls;

pub use bundle::{Bundle, Params};
pub use certificate::Certificate;
pub use csr::Csr;
pub use error::{Error, Result};
pub use issue::{Authority, Identity, Profile};
pub use key::PrivateKey;

pub use kubeconfig::Kubeconfig;
pub use public_key::PublicKey;
pub use subject::{San, Subject, Usage};
