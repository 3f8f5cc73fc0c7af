//! What is read from disks: kubeconfigs, certificates, tokens, the store's files.

use pki::Kubeconfig;
use std::path::Path;
use std::sync::Arc;
use store::embedded::{Saved, verify};
use store::{Identity, Transform};

pub(crate) const KUBECONFIGS: &[&str] = &[
    "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster: {server: https://a, certificate-authority-data: aGk=}\ncontexts:\n- name: c\n  context: {cluster: c, user: u}\nusers:\n- name: u\n  user: {token: t, exec: {command: x, args: [y]}}\n",
];
pub(crate) const PEMS: &[&str] = &[
    "-----BEGIN CERTIFICATE-----\nMIIBdTCCARugAwIBAgIBATAKBggqhkjOPQQDAjAMMQowCAYDVQQDDAFhMB4XDTI0\n-----END CERTIFICATE-----\n",
    "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n",
];

pub(crate) const JWTS: &[&str] = &[
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJpIiwic3ViIjoicyIsImF1ZCI6WyJhIl0sImV4cCI6OTk5OTk5OTk5OX0.c2ln",
];

pub(crate) fn kubeconfig(data: &[u8]) {
    if let Ok(config) = Kubeconfig::parse(&String::from_utf8_lossy(data)) {
        let _ = config.resolve(None);
        let written = config.to_yaml().unwrap_or_default();
        assert!(Kubeconfig::parse(&written).is_ok(), "{written}");
    }
}

pub(crate) fn pem(data: &[u8]) {
    let _ = pki::pem::sections(data);
    let _ = pki::Certificate::from_pem(data);
    let _ = pki::PrivateKey::from_pem(data);
    let _ = pki::PublicKey::all_from_pem(data);
    let _ = pki::Csr::from_pem(data);
}

pub(crate) fn jwt(data: &[u8]) {
    let token = String::from_utf8_lossy(data);
    let _ = pki::jwt::is_well_formed(&token);
    let _ = pki::jwt::unverified_claims::<apimachinery::value::Value>(&token);
    let _ = pki::jwt::Verifier::new(Vec::new()).verify::<apimachinery::value::Value>(&token);
}

/// Runs with the bytes in a file of a directory.
fn in_a_directory(name: &str, data: &[u8], run: impl FnOnce(&Path)) {
    let Ok(directory) = tempfile::tempdir() else { return };
    if std::fs::write(directory.path().join(name), data).is_ok() {
        run(directory.path());
    }
}

/// The bytes as a segment of the store's log.
pub(crate) fn log(data: &[u8]) {
    in_a_directory("log-0000000000000001", data, |directory| {
        let _ = verify(directory);
    });
}

/// The bytes as a saved state.
pub(crate) fn snapshot(data: &[u8]) {
    let plain: Arc<dyn Transform> = Arc::new(Identity);
    in_a_directory("saved", data, |directory| {
        let _ = Saved::of_file(&directory.join("saved"), &plain);
    });
}
