//! Hooks of ClusterTrustBundle: authorities in PEM, perhaps those of one signer.

use super::Row;
use super::check::Check;
use super::names::trust_bundle_name_errors;
use super::pem_blocks::{Block, blocks};
use super::plain::Plain;
use super::signer_name::validate_signer_name;
use super::templates::NAME;
use super::tree::{column, name, or_none, text};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation::NameUse;
use apimachinery::value::Value;
use std::collections::BTreeMap;
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub(super) const STRATEGIES: &[Row] = &[("certificates.k8s.io", "ClusterTrustBundle", &BUNDLES)];

const SIGNER: &[&str] = &["spec", "signerName"];
const BUNDLE: &[&str] = &["spec", "trustBundle"];
const MAX: usize = 1 << 20;

static BUNDLES: Plain = Plain {
    validate,
    validate_create: |bundle, _| validate_bundle(text(bundle, BUNDLE)),
    // What was taken once may stay, however parsers change.
    validate_update: |bundle, old, _| match text(bundle, BUNDLE) == text(old, BUNDLE) {
        true => ErrorList::new(),
        false => validate_bundle(text(bundle, BUNDLE)),
    },
    immutable: &[SIGNER],
    columns: &[
        NAME,
        column(
            "SignerName",
            "string",
            0,
            "signerName indicates the associated signer, if any.\n\nIn order to create or update a ClusterTrustBundle that sets signerName, you must have the following cluster-scoped permission: group=certificates.k8s.io resource=signers resourceName=<the signer name> verb=attest.\n\nIf signerName is not empty, then the ClusterTrustBundle object must be named with the signer name as a prefix (translating slashes to colons). For example, for the signer name `example.com/foo`, valid ClusterTrustBundle object names include `example.com:foo:abc` and `example.com:foo:v1`.\n\nIf signerName is empty, then the ClusterTrustBundle object's name must not have such a prefix.\n\nList/watch requests for ClusterTrustBundles can filter on this field using a `spec.signerName=NAME` field selector.",
        ),
    ],
    cells: |bundle, _| vec![name(bundle), or_none(text(bundle, SIGNER), "<none>")],
    fields: &[("spec.signerName", |bundle| text(bundle, SIGNER).to_owned())],
    ..Plain::NEW
};

fn validate(bundle: &Value) -> ErrorList {
    let mut check = Check::default();
    let signer = text(bundle, SIGNER);
    let metadata = Path::new("metadata");
    for (member, used) in [("generateName", NameUse::Prefix), ("name", NameUse::Whole)] {
        let named = text(bundle, &["metadata", member]);
        if !named.is_empty() {
            let wrong = trust_bundle_name_errors(signer, named, used);
            wrong.into_iter().for_each(|why| check.invalid(&metadata.child(member), named, why));
        }
    }
    if !signer.is_empty() {
        validate_signer_name(&mut check, &Path::new("spec").child("signerName"), signer);
    }
    check.0
}

/// At least one authority, and each once.
fn validate_bundle(bundle: &str) -> ErrorList {
    let path = Path::new("spec").child("trustBundle");
    if bundle.len() > MAX {
        return Error::too_long(&path, MAX).into();
    }
    let mut check = Check::default();
    let mut complain = |why: String| check.invalid(&path, "<value omitted>", why);
    let mut anchors: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    let mut wrong = false;
    for (i, block) in blocks(bundle).into_iter().enumerate() {
        match authority(&block) {
            Ok(()) => anchors.entry(block.der).or_default().push(i.to_string()),
            Err(why) => {
                wrong = true;
                complain(format!("entry {i} {why}"));
            }
        }
    }
    if !wrong && anchors.is_empty() {
        complain("at least one trust anchor must be provided".into());
    }
    // Of what is not even whole, no more is said.
    for indices in anchors.values().filter(|indices| !wrong && indices.len() > 1) {
        complain(format!("duplicate trust anchor (indices [{}])", indices.join(" ")));
    }
    check.0
}

/// Why this is no authority's certificate.
fn authority(block: &Block) -> Result<(), String> {
    if block.label != "CERTIFICATE" {
        return Err(format!("has bad block type: {}", block.label));
    }
    if block.has_headers {
        return Err("has PEM block headers".into());
    }
    let certificate = match X509Certificate::from_der(&block.der) {
        Ok(([], certificate)) => certificate,
        _ => return Err("does not parse as X.509".into()),
    };
    match certificate.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca => Ok(()),
        Ok(_) => Err("does not have the CA bit set".into()),
        Err(_) => Err("does not parse as X.509".into()),
    }
}
