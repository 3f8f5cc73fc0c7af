//! Hooks of `certificates.k8s.io`: CertificateSigningRequest.

use super::check::Check;
use super::signer_name::validate_signer_name;
use super::templates::{AGE, NAME};
use super::tree::{column, list, name, object_age, or_none, text, typed};
use super::{Column, Context, Row, SelectableField, Strategy};
use api::certificates::v1::CertificateSigningRequest;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::time::{Duration, Time};
use apimachinery::value::Value;

pub(super) const STRATEGIES: &[Row] = &[("certificates.k8s.io", "CertificateSigningRequest", &Requests)];

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// Conditions that only one subresource sets.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// A name of old, for requests that nobody signs.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const SHORTEST: i32 = 600;

pub(super) struct Requests;

fn conditions<'a>(request: &'a Value, kind: &str) -> Vec<&'a Value> {
    list(request, &["status", "conditions"]).iter().filter(|c| text(c, &["type"]) == kind).collect()
}

/// Gives conditions without times theirs.
fn stamp(request: &mut Value, old: &Value, now: Time) {
    let Some(Value::Array(conditions)) = request["status"].get_mut("conditions") else { return };
    for condition in conditions {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.to_string().into();
        }
        if condition["lastTransitionTime"].is_null() {
            let same = list(old, &["status", "conditions"]).iter().find(|c| {
                c["type"] == condition["type"]
                    && c["status"] == condition["status"]
                    && !c["lastTransitionTime"].is_null()
            });
            let since = same.map_or_else(|| now.to_string().into(), |c| c["lastTransitionTime"].clone());
            condition["lastTransitionTime"] = since;
        }
    }
}

/// Where as many decisions are there as before, they are the ones of before.
fn preserve_decisions(request: &mut Value, old: &Value) {
    for kind in DECISIONS {
        let before: Vec<Value> = conditions(old, kind).into_iter().cloned().collect();
        if conditions(request, kind).len() != before.len() {
            continue;
        }
        let mut before = before.into_iter();
        let Some(Value::Array(all)) = request["status"].get_mut("conditions") else { continue };
        for condition in all.iter_mut().filter(|c| c["type"] == kind) {
            if let Some(kept) = before.next() {
                *condition = kept;
            }
        }
    }
}

impl Strategy for Requests {
    fn default(&self, request: &mut Value) {
        if request["status"].as_object().is_some_and(apimachinery::value::Map::is_empty) {
            super::tree::remove(request, "status");
        }
    }

    fn prepare_for_create(&self, request: &mut Value, context: &Context) {
        for member in ["username", "uid", "groups", "extra"] {
            super::tree::remove(&mut request["spec"], member);
        }
        let spec = &mut request["spec"];
        spec["username"] = context.user.into();
        if !context.uid.is_empty() {
            spec["uid"] = context.uid.into();
        }
        if !context.groups.is_empty() {
            spec["groups"] = context.groups.into();
        }
        if !context.extra.is_empty() {
            spec["extra"] = json!(context.extra);
        }
    }

    fn prepare_for_update(&self, request: &mut Value, old: &Value, context: &Context) {
        match context.subresource {
            Some("status") => {
                preserve_decisions(request, old);
                stamp(request, old, context.now);
            }
            Some("approval") => stamp(request, old, context.now),
            _ => {}
        }
    }

    fn validate(&self, request: &Value, _: &Context) -> ErrorList {
        validate(request)
    }

    fn validate_update(&self, request: &Value, old: &Value, context: &Context) -> ErrorList {
        let mut check = Check(validate(request));
        validate_change(&mut check, request, old, context.subresource);
        check.0
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            AGE,
            column(
                "SignerName",
                "string",
                0,
                "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`.",
            ),
            column("Requestor", "string", 0, "Base64-encoded PKCS#10 CSR data"),
            column(
                "RequestedDuration",
                "string",
                0,
                "expirationSeconds is the requested duration of validity of the issued certificate. The certificate signer may issue a certificate with a different validity duration so a client must check the delta between the notBefore and and notAfter fields in the issued certificate to determine the actual duration.\n\nThe v1.22+ in-tree implementations of the well-known Kubernetes signers will honor this field as long as the requested duration is not greater than the maximum duration they will honor per the --cluster-signing-duration CLI flag to the Kubernetes controller manager.\n\nCertificate signers may not honor this field for various reasons:\n\n  1. Old signer that is unaware of the field (such as the in-tree\n     implementations prior to v1.22)\n  2. Signer whose configured maximum is shorter than the requested duration\n  3. Signer whose configured minimum is longer than the requested duration\n\nThe minimum valid value for expirationSeconds is 600, i.e. 10 minutes.",
            ),
            column(
                "Condition",
                "string",
                0,
                "Conditions applied to the request, such as approval or denial.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, request: &Value, now: Time) -> Vec<Value> {
        let has = |kind: &str| !conditions(request, kind).is_empty();
        let decision = match (has("Denied"), has("Approved")) {
            (true, _) => "Denied",
            (_, true) => "Approved",
            _ => "Pending",
        };
        let failed = if has("Failed") { ",Failed" } else { "" };
        let issued = if text(request, &["status", "certificate"]).is_empty() { "" } else { ",Issued" };
        let lasts = request["spec"]["expirationSeconds"].as_i64();
        vec![
            name(request),
            object_age(request, now).into(),
            or_none(text(request, &["spec", "signerName"]), "<none>"),
            text(request, &["spec", "username"]).into(),
            lasts.map_or_else(|| "<none>".to_owned(), |s| Duration::from_seconds(s).human()).into(),
            format!("{decision}{failed}{issued}").into(),
        ]
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        &[("spec.signerName", |request| text(request, &["spec", "signerName"]).to_owned())]
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn validate(tree: &Value) -> ErrorList {
    let mut check = Check::default();
    let request: CertificateSigningRequest = typed(tree);
    let (path, spec) = (Path::new("spec"), &request.spec);
    if !is_request(&spec.request) {
        // Upstream shows the bytes as they are.
        let shown = BadValue::json(&tree["spec"]["request"]);
        check.invalid(&path.child("request"), shown, "PEM block type must be CERTIFICATE REQUEST");
    }
    let usages = path.child("usages");
    if spec.usages.is_empty() {
        check.required(&usages, "");
    }
    for (i, usage) in spec.usages.iter().enumerate() {
        check.one_of(&usages.index(i), usage, &USAGES);
    }
    for (i, usage) in spec.usages.iter().enumerate().filter(|(i, usage)| spec.usages[..*i].contains(usage)) {
        check.0.push(Error::duplicate(&usages.index(i), usage.as_str()));
    }
    let signer = path.child("signerName");
    if spec.signer_name == LEGACY_SIGNER {
        let why = "the legacy signerName is not allowed via this API version";
        check.invalid(&signer, spec.signer_name.as_str(), why);
    } else {
        validate_signer_name(&mut check, &signer, &spec.signer_name);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < SHORTEST) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        check.invalid(&path.child("expirationSeconds"), seconds, why);
    }
    let path = Path::new("status").child("conditions");
    let all = &request.status.conditions;
    for (i, condition) in all.iter().enumerate() {
        let (at, kind) = (path.index(i), condition.type_.as_str());
        check.present(&at.child("type"), kind, "");
        let known: &[&str] = match kind {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        if check.present(&at.child("status"), &condition.status, "") {
            check.one_of(&at.child("status"), &condition.status, known);
        }
        let other = if kind == "Approved" { "Denied" } else { "Approved" };
        if DECISIONS.contains(&kind) && all[..i].iter().any(|c| c.type_ == other) {
            check.invalid(&path, kind, "Approved and Denied conditions are mutually exclusive");
        }
        if all[..i].iter().any(|c| c.type_ == kind) {
            check.0.push(Error::duplicate(&at.child("type"), kind));
        }
    }
    check.0
}

/// Whether the bytes hold a PEM block of the right type.
fn is_request(request: &impl serde::Serialize) -> bool {
    use base64::Engine as _;
    let text = apimachinery::value::to_value(request).unwrap_or_default();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap_or_default());
    let text = bytes.map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    text.contains("-----BEGIN CERTIFICATE REQUEST-----") && text.contains("-----END CERTIFICATE REQUEST-----")
}

fn validate_change(check: &mut Check, request: &Value, old: &Value, subresource: Option<&str>) {
    let path = Path::new("status");
    let at = path.child("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        if conditions(request, kind).len() < conditions(old, kind).len() {
            check.forbidden(&at, format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
    if subresource != Some("approval") {
        for kind in DECISIONS {
            let (now, before) = (conditions(request, kind), conditions(old, kind));
            if now.len() > before.len() {
                check.forbidden(&at, format!("updates may not add a condition of type \"{kind}\""));
            } else if now.len() == before.len() && now != before {
                check.forbidden(&at, format!("updates may not modify a condition of type \"{kind}\""));
            }
        }
    }
    let certificate = |v: &Value| text(v, &["status", "certificate"]).to_owned();
    if certificate(request) != certificate(old) {
        let at = path.child("certificate");
        if subresource != Some("status") {
            check.forbidden(&at, "updates may not set certificate content");
        } else if !certificate(old).is_empty() {
            check.forbidden(&at, "updates may not modify existing certificate content");
        }
    }
}
