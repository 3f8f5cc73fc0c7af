//! What requests for certificates of pods must be, and what may become of them.
#![allow(clippy::unwrap_used)]

use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use expect_test::{Expect, expect};
use hooks::{Context, strategy};
use pki::key::Algorithm;
use pki::{Authority, Certificate, Csr, PrivateKey, Profile, San, Subject};
use std::sync::OnceLock;
use std::time::Duration;

const KIND: (&str, &str) = ("certificates.k8s.io", "PodCertificateRequest");
const HOUR: Duration = Duration::from_secs(3600);

fn context(subresource: Option<&'static str>, now: Time) -> Context<'static> {
    static NO_EXTRA: OnceLock<std::collections::BTreeMap<String, Vec<String>>> = OnceLock::new();
    Context {
        user: "tester",
        uid: "",
        groups: &[],
        extra: NO_EXTRA.get_or_init(Default::default),
        now,
        namespace: hooks::NamespaceLabels(&|_| None),
        gates: hooks::Gates(&|_| false),
        api_version: "",
        subresource,
        judged: None,
    }
}

fn key() -> &'static PrivateKey {
    static KEY: OnceLock<PrivateKey> = OnceLock::new();
    KEY.get_or_init(|| PrivateKey::generate_as(Algorithm::Ed25519).unwrap())
}

fn stub(key: &PrivateKey) -> String {
    STANDARD.encode(Csr::create_der(key, &Subject::default(), &[]).unwrap())
}

/// A good request, with some members of its spec otherwise.
fn request(otherwise: Value) -> Value {
    let mut spec = json!({
        "signerName": "example.com/signer",
        "podName": "argo", "podUID": "pod-uid",
        "serviceAccountName": "default", "serviceAccountUID": "account-uid",
        "nodeName": "node", "nodeUID": "node-uid",
        "maxExpirationSeconds": 86400,
        "stubPKCS10Request": stub(key()),
    });
    for (member, value) in otherwise.as_object().unwrap() {
        spec[member] = value.clone();
    }
    json!({"metadata": {"name": "req", "namespace": "ns"}, "spec": spec})
}

#[track_caller]
fn check(otherwise: Value, expected: Expect) {
    let errors = strategy(KIND.0, KIND.1).validate(&request(otherwise), &context(None, Time::default()));
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn requests_name_who_asks_and_for_how_long() {
    check(json!({}), expect![[""]]);
    check(
        json!({"podName": "Argo", "podUID": "", "serviceAccountUID": "", "nodeUID": "x".repeat(129)}),
        expect![[r#"
            spec.podName: Invalid value: "Argo": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.podUID: Invalid value: "": must not be empty
            spec.serviceAccountUID: Invalid value: "": must not be empty
            spec.nodeUID: Too long: may not be more than 128 bytes"#]],
    );
    check(
        json!({"signerName": "signer"}),
        expect![[
            r#"spec.signerName: Invalid value: "signer": must be a fully qualified domain and path of the form 'example.com/signer-name'"#
        ]],
    );
    check(
        json!({"maxExpirationSeconds": null}),
        expect!["spec.maxExpirationSeconds: Required value: must be set"],
    );
    check(
        json!({"maxExpirationSeconds": 3599}),
        expect!["spec.maxExpirationSeconds: Invalid value: 3599: must be in the range [3600, 7862400]"],
    );
    check(json!({"maxExpirationSeconds": 91 * 86400}), expect![[""]]);
    check(
        json!({"maxExpirationSeconds": 91 * 86400 + 1}),
        expect!["spec.maxExpirationSeconds: Invalid value: 7862401: must be in the range [3600, 7862400]"],
    );
    check(
        json!({"signerName": "x.kubernetes.io/signer", "maxExpirationSeconds": 86401}),
        expect!["spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]"],
    );
    check(json!({"unverifiedUserAnnotations": {"example.com/Course": "north"}}), expect![[""]]);
    check(
        json!({"unverifiedUserAnnotations": {"course": "north", "a b/c": ""}}),
        expect![[r#"
        spec.unverifiedUserAnnotations: Invalid value: "a b/c": prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.unverifiedUserAnnotations: Invalid value: "course": must be a domain-prefixed key (such as "acme.io/foo")"#]],
    );
}

#[test]
fn who_asks_holds_the_key() {
    const P224: &str = "ME4wEAYHKoZIzj0CAQYFK4EEACEDOgAEjSn45c0FlYBsp2In9bFXpnKbPN0ZgwmluhiG2IhHT65+IGUbhQHTHKJ5EkhFr99M/O1Kdn66jxw=";
    for algorithm in [Algorithm::P256, Algorithm::P384, Algorithm::P521, Algorithm::Rsa3072] {
        let key = PrivateKey::generate_as(algorithm).unwrap();
        check(json!({"stubPKCS10Request": stub(&key)}), expect![[""]]);
    }
    check(
        json!({"stubPKCS10Request": STANDARD.encode("none")}),
        expect!["spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR"],
    );
    check(
        json!({"stubPKCS10Request": STANDARD.encode([0; 10241])}),
        expect!["spec.stubPKCS10Request: Too long: may not be more than 10240 bytes"],
    );
    let mut forged = STANDARD.decode(stub(key())).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    check(
        json!({"stubPKCS10Request": STANDARD.encode(&forged)}),
        expect!["spec.stubPKCS10Request: Invalid value: invalid signature"],
    );
    check(
        json!({"stubPKCS10Request": null}),
        expect![
            "spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"
        ],
    );

    // As kubelets of old ask.
    let public = STANDARD.encode(key().public().spki());
    let proof = STANDARD.encode(key().sign_jws(b"pod-uid").unwrap());
    let old = |key: &str, proof: &str| json!({"stubPKCS10Request": null, "pkixPublicKey": key, "proofOfPossession": proof});
    check(old(&public, &proof), expect![[""]]);
    check(
        old(&public, &STANDARD.encode("none")),
        expect!["spec.proofOfPossession: Invalid value: could not verify proof-of-possession signature"],
    );
    check(
        old(&STANDARD.encode("none"), &proof),
        expect![[
            r#"spec.pkixPublicKey: Invalid value: "bm9uZQ==": must be a valid PKIX-serialized public key"#
        ]],
    );
    check(
        old(P224, &proof),
        expect![[
            r#"spec.pkixPublicKey: Invalid value: "curve P-224": elliptic public keys must use curve P256 or P384"#
        ]],
    );
    check(
        json!({"pkixPublicKey": public, "proofOfPossession": proof}),
        expect![
            "spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"
        ],
    );
}

/// Issued now, as it should be, but for some members of the status.
struct Issue {
    before: Value,
    certificate: Certificate,
}

fn authority() -> Authority {
    Authority::create("authority", 100 * HOUR, jiff_now()).unwrap()
}

fn jiff_now() -> apimachinery::time::Timestamp {
    "2026-11-28T12:00:00Z".parse().unwrap()
}

impl Issue {
    fn of(key: &PrivateKey, sans: Vec<San>, ttl: Duration) -> Issue {
        let profile = Profile { subject: Subject::new("argo", &[]), sans, usages: vec![], ttl };
        let certificate = authority().certify(key.public(), &profile, jiff_now()).unwrap();
        Issue { before: request(json!({})), certificate }
    }

    fn now(&self) -> Time {
        self.certificate.not_before.into()
    }

    fn status(&self) -> Value {
        let from = self.now().unix();
        json!({
            "conditions": [condition("Issued", "True")],
            "certificateChain": self.certificate.to_pem(),
            "notBefore": self.now().to_string(),
            "notAfter": Time::from(self.certificate.not_after).to_string(),
            "beginRefreshAt": Time::from_unix(from + 1800).to_string(),
        })
    }

    #[track_caller]
    fn check(&self, otherwise: Value, late: i64, expected: Expect) {
        let mut status = self.status();
        for (member, value) in otherwise.as_object().unwrap() {
            status[member] = value.clone();
        }
        check_status(&self.before, status, Time::from_unix(self.now().unix() + late), expected);
    }
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "Why", "message": "so",
        "lastTransitionTime": "2026-11-28T12:00:00Z"})
}

#[track_caller]
fn check_status(before: &Value, status: Value, now: Time, expected: Expect) {
    let mut after = before.clone();
    after["status"] = status;
    let errors = strategy(KIND.0, KIND.1).validate_update(&after, before, &context(Some("status"), now));
    let lines: Vec<String> = errors.iter().map(|error| shown(&error.to_string())).collect();
    expected.assert_eq(&lines.join("\n"));
}

/// Certificates are other ones each time.
fn shown(text: &str) -> String {
    match (text.find("-----BEGIN"), text.rfind("-----END")) {
        (Some(from), Some(to)) => format!("{}…{}", &text[..from], &text[to..]),
        _ => text.to_owned(),
    }
}

#[test]
fn certificates_are_of_the_key_and_of_the_time_that_was_asked_for() {
    let good =
        Issue::of(key(), vec![San::Dns("argo.example.com".into()), San::Email("j@argo".into())], 2 * HOUR);
    let chain = |more: &str| json!({"certificateChain": format!("{}{more}", good.certificate.to_pem())});
    let seconds = |after: i64| Time::from_unix(good.now().unix() + after).to_string();
    good.check(json!({}), 0, expect![[""]]);
    good.check(json!({}), 300, expect![[r#"status.notBefore: Invalid value: "2026-11-28T11:55:00Z": must be set to within 5 minutes of kube-apiserver's current time"#]]);
    good.check(chain(&authority().certificate.to_pem()), 299, expect![[""]]);
    good.check(chain("-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n"), 0, expect![[r#"status.certificateChain: Invalid value: "…-----END CERTIFICATE-----\n": intermediate certificate does not parse as valid X.509"#]]);
    good.check(chain(&key().to_pem()), 0, expect![[r#"status.certificateChain: Invalid value: "…-----END PRIVATE KEY-----\n": issued certificate chain must consist entirely of CERTFICATE PEM blocks"#]]);
    good.check(json!({"certificateChain": key().to_pem()}), 0, expect![[r#"status.certificateChain: Invalid value: "…-----END PRIVATE KEY-----\n": issued certificate chain must consist entirely of CERTIFICATE PEM blocks"#]]);
    good.check(json!({"certificateChain": "none"}), 0, expect![[r#"status.certificateChain: Invalid value: "none": issued certificate chain must contain at least one certificate"#]]);
    good.check(
        json!({"certificateChain": "x".repeat(102_401)}),
        0,
        expect!["status.certificateChain: Too long: may not be more than 102400 bytes"],
    );
    good.check(json!({"notBefore": null, "notAfter": null, "beginRefreshAt": null}), 0, expect![[r#"
        status.notBefore: Required value: must be present and consistent with the issued certificate
        status.notAfter: Required value: must be present and consistent with the issued certificate
        status.beginRefreshAt: Required value: must be present and in the range [notbefore+10min, notafter-10min]"#]]);
    good.check(json!({"notBefore": seconds(1)}), 0, expect![[r#"status.notBefore: Invalid value: "2026-11-28T11:55:01Z": must be set to the NotBefore time encoded in the leaf certificate"#]]);
    good.check(json!({"notAfter": seconds(1)}), 0, expect![[r#"status.notAfter: Invalid value: "2026-11-28T11:55:01Z": must be set to the NotAfter time encoded in the leaf certificate"#]]);
    good.check(json!({"beginRefreshAt": seconds(599)}), 0, expect![[r#"status.beginRefreshAt: Invalid value: "2026-11-28T12:04:59Z": must be at least 10 minutes after status.notBefore"#]]);
    good.check(json!({"beginRefreshAt": seconds(7200)}), 0, expect![[r#"status.beginRefreshAt: Invalid value: "2026-11-28T13:55:00Z": must be at least 10 minutes before status.notAfter"#]]);
    let other = PrivateKey::generate().unwrap();
    Issue::of(&other, vec![], 2 * HOUR).check(json!({}), 0, expect![[r#"status.certificateChain: Invalid value: "…-----END CERTIFICATE-----\n": leaf certificate was not issued to the requested public key"#]]);
    Issue::of(key(), vec![], Duration::from_secs(3000)).check(json!({}), 0, expect!["status.certificateChain: Invalid value: 3300000000000: leaf certificate lifetime must be >= 1 hour"]);
    Issue::of(key(), vec![], 30 * HOUR).check(json!({}), 0, expect!["status.certificateChain: Invalid value: 108300000000000: leaf certificate lifetime must be <= spec.maxExpirationSeconds (86400)"]);
    let names = [San::Dns(".a..b".into()), San::Email("nobody".into())];
    Issue::of(key(), names.to_vec(), 2 * HOUR).check(json!({}), 0, expect![[r#"
        status.certificateChain: Invalid value: ".a..b": leaf certificate's DNSName should not contain '..'
        status.certificateChain: Invalid value: ".a..b": leaf certificate's DNSName should not start or end with '.'
        status.certificateChain: Invalid value: "nobody": leaf certificate should not contain invalid EmailAddress"#]]);
}

#[test]
fn what_has_become_of_a_request_is_final() {
    let issue = Issue::of(key(), vec![], 2 * HOUR);
    let status = |status: Value, expected: Expect| check_status(&issue.before, status, issue.now(), expected);
    status(json!({"conditions": [condition("Denied", "True")]}), expect![[""]]);
    status(json!({"conditions": [condition("Failed", "True")]}), expect![[""]]);
    status(
        json!({"conditions": [condition("Denied", "True")], "certificateChain": "x"}),
        expect![
            "status: Invalid value: non-condition status fields must be empty when denying or failing the PodCertificateRequest"
        ],
    );
    status(
        json!({"conditions": [condition("Denied", "False")]}),
        expect![[r#"status.conditions.[0].status: Unsupported value: "False": supported values: "True""#]],
    );
    status(
        json!({"conditions": [condition("Approved", "True")]}),
        expect![[
            r#"status.conditions.[0].type: Unsupported value: "Approved": supported values: "Issued", "Denied", "Failed""#
        ]],
    );
    status(
        json!({"conditions": [condition("Issued", "True"), condition("Denied", "True")]}),
        expect![[
            r#"status.conditions.[1].type: Invalid value: "Denied": There may be at most one condition with type "Issued", "Denied", or "Failed""#
        ]],
    );
    status(
        json!({"certificateChain": "x"}),
        expect![[
            r#"status: Invalid value: status is immutable unless transitioning to "Issued", "Denied", or "Failed""#
        ]],
    );
    status(json!({}), expect![[""]]);
    let mut issued = issue.before.clone();
    issued["status"] = issue.status();
    check_status(&issued, issue.status(), issue.now(), expect![[""]]);
    check_status(
        &issued,
        json!({"conditions": [condition("Denied", "True")]}),
        issue.now(),
        expect!["status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed"],
    );
    check_status(
        &issued,
        json!({}),
        issue.now(),
        expect!["status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed"],
    );
}

#[test]
fn pods_say_where_the_node_puts_what_it_gets() {
    let check = |source: Value, expected: Expect| {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "default",
            "containers": [{"name": "c", "image": "i", "terminationMessagePolicy": "File"}],
            "volumes": [{"name": "v", "projected": {"sources": [{"podCertificate": source}]}}],
        }});
        let errors = strategy("", "Pod").validate(&pod, &context(None, Time::default()));
        let errors: Vec<String> =
            errors.iter().map(ToString::to_string).filter(|error| error.contains("volumes")).collect();
        expected.assert_eq(&errors.join("\n"));
    };
    check(
        json!({"signerName": "example.com/signer", "keyType": "ED25519", "credentialBundlePath": "a/b.pem",
            "maxExpirationSeconds": 3600, "userAnnotations": {"example.com/course": "north"}}),
        expect![[""]],
    );
    check(
        json!({}),
        expect![[r#"
        spec.volumes[0].projected.sources[0].podCertificate.signerName: Required value
        spec.volumes[0].projected.sources[0].podCertificate.keyType: Unsupported value: "": supported values: "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"
        spec.volumes[0].projected.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath"#]],
    );
    check(
        json!({"signerName": "signer", "keyType": "RSA2048", "maxExpirationSeconds": 60,
            "keyPath": "../key.pem", "certificateChainPath": "../key.pem", "userAnnotations": {"course": ""}}),
        expect![[r#"
            spec.volumes[0].projected.sources[0].podCertificate.signerName: Invalid value: "signer": must be a fully qualified domain and path of the form 'example.com/signer-name'
            spec.volumes[0].projected.sources[0].podCertificate.userAnnotations: Invalid value: "course": must be a domain-prefixed key (such as "acme.io/foo")
            spec.volumes[0].projected.sources[0].podCertificate.keyType: Unsupported value: "RSA2048": supported values: "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"
            spec.volumes[0].projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 60: if provided, maxExpirationSeconds must be >= 3600
            spec.volumes[0].projected.sources[0].podCertificate.keyPath: Invalid value: "../key.pem": must not contain '..'
            spec.volumes[0].projected.sources[0].podCertificate.certificateChainPath: Invalid value: "../key.pem": must not contain '..'
            spec.volumes[0].projected: Invalid value: "../key.pem": conflicting duplicate paths"#]],
    );
    check(
        json!({"signerName": "kubernetes.io/kube-apiserver-client-pod", "keyType": "RSA3072", "keyPath": "k",
            "maxExpirationSeconds": 86401}),
        expect![
            "spec.volumes[0].projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 86401: if provided, maxExpirationSeconds must be <= 86400"
        ],
    );
}

#[test]
fn requests_are_shown_with_their_state() {
    let strategy = strategy(KIND.0, KIND.1);
    let mut one = request(json!({"unverifiedUserAnnotations": {"example.com/b": "2", "example.com/a": "1"}}));
    let cells = |one: &Value| Value::from(strategy.cells(one, Time::default())).to_string();
    expect![[
        r#"["req","argo","default","node","example.com/signer","Pending","example.com/a=1,example.com/b=2"]"#
    ]]
    .assert_eq(&cells(&one));
    one["status"] = json!({"conditions": [condition("Denied", "True")]});
    one["spec"]["unverifiedUserAnnotations"] = Value::Null;
    expect![[r#"["req","argo","default","node","example.com/signer","Denied","<none>"]"#]]
        .assert_eq(&cells(&one));
}
