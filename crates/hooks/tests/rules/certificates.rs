//! What trust bundles and requests for certificates must be.

use crate::{check, check_update};
use apimachinery::json;
use apimachinery::value::Value;
use expect_test::{Expect, expect};

#[test]
fn trust_bundles() {
    const KIND: (&str, &str) = ("certificates.k8s.io", "ClusterTrustBundle");
    let bundle = |name: &str, signer: &str, pem: &str| json!({"metadata": {"name": name}, "spec": {"signerName": signer, "trustBundle": pem}});
    let new = |name: &str, signer: &str, pem: &str, expected: Expect| {
        check(KIND.0, KIND.1, bundle(name, signer, pem), expected);
    };
    let several = format!("of us\n{AUTHORITY}\nand of\r\n{}", OTHER_AUTHORITY.replace('\n', "\r\n"));
    new("anchors", "", &several, expect![""]);
    new("example.com:signer:anchors", "example.com/signer", AUTHORITY, expect![""]);
    new(
        "example.com:signer:anchors",
        "",
        AUTHORITY,
        expect![[
            r#"metadata.name: Invalid value: "example.com:signer:anchors": ClusterTrustBundle without signer name must not have ":" in its name"#
        ]],
    );
    new(
        "anchors",
        "example.com/signer",
        AUTHORITY,
        expect![[
            r#"metadata.name: Invalid value: "anchors": ClusterTrustBundle for signerName example.com/signer must be named with prefix example.com:signer:"#
        ]],
    );
    new(
        "example:anchors",
        "example",
        AUTHORITY,
        expect![[
            r#"spec.signerName: Invalid value: "example": must be a fully qualified domain and path of the form 'example.com/signer-name'"#
        ]],
    );
    new(
        "anchors",
        "",
        "none",
        expect![[
            r#"spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided"#
        ]],
    );
    new(
        "anchors",
        "",
        &format!("{AUTHORITY}{OTHER_AUTHORITY}{AUTHORITY}"),
        expect![[
            r#"spec.trustBundle: Invalid value: "<value omitted>": duplicate trust anchor (indices [0 2])"#
        ]],
    );
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let headers =
        AUTHORITY.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nProc-Type: 4\n\n");
    new(
        "anchors",
        "",
        &[AUTHORITY, AUTHORITY, key, &headers, no_certificate, LEAF, cut].concat(),
        expect![[r#"
            spec.trustBundle: Invalid value: "<value omitted>": entry 2 has bad block type: PRIVATE KEY
            spec.trustBundle: Invalid value: "<value omitted>": entry 3 has PEM block headers
            spec.trustBundle: Invalid value: "<value omitted>": entry 4 does not parse as X.509
            spec.trustBundle: Invalid value: "<value omitted>": entry 5 does not have the CA bit set"#]],
    );
    new(
        "anchors",
        "",
        &"x".repeat((1 << 20) + 1),
        expect!["spec.trustBundle: Too long: may not be more than 1048576 bytes"],
    );
    // What was taken by an older server stays.
    check_update(KIND.0, KIND.1, bundle("anchors", "", "old"), bundle("anchors", "", "old"), expect![""]);
    check_update(
        KIND.0,
        KIND.1,
        bundle("example.com:a:b", "example.com/a", "old"),
        bundle("example.com:a:b", "example.com/b", "new"),
        expect![[r#"
            metadata.name: Invalid value: "example.com:a:b": ClusterTrustBundle for signerName example.com/b must be named with prefix example.com:b:
            spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided
            spec.signerName: Invalid value: "example.com/b": field is immutable"#]],
    );
}

#[test]
fn volumes_of_trust_bundles() {
    let check = |source: Value, expected: Expect| {
        let volume = json!({"name": "v", "projected": {"sources": [{ "clusterTrustBundle": source }]}});
        let container = json!({"name": "c", "image": "i", "imagePullPolicy": "Always",
            "terminationMessagePath": "/t", "terminationMessagePolicy": "File"});
        let spec = json!({"containers": [container], "volumes": [volume], "restartPolicy": "Always", "dnsPolicy": "Default"});
        check("", "Pod", json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}), expected);
    };
    check(json!({"name": "anchors", "path": "ca.pem"}), expect![""]);
    check(json!({"name": "example.com:signer:anchors", "path": "ca.pem"}), expect![""]);
    check(json!({"signerName": "example.com/signer", "labelSelector": {}, "path": "ca.pem"}), expect![""]);
    check(
        json!({"path": "../ca.pem"}),
        expect![[r#"
            spec.volumes[0].projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified
            spec.volumes[0].projected.sources[0].clusterTrustBundle.path: Invalid value: "../ca.pem": must not contain '..'"#]],
    );
    check(
        json!({"name": "anchors", "signerName": "example.com/signer", "optional": true, "path": "ca.pem"}),
        expect![[
            r#"spec.volumes[0].projected.sources[0].clusterTrustBundle: Invalid value: {"Name":"anchors","SignerName":"example.com/signer","LabelSelector":null,"Optional":true,"Path":"ca.pem"}: only one of name and signerName may be used"#
        ]],
    );
    check(
        json!({"name": "", "labelSelector": {"matchLabels": {"a": "b"}}, "path": "ca.pem"}),
        expect![[r#"
        spec.volumes[0].projected.sources[0].clusterTrustBundle.name: Required value: must be a valid object name
        spec.volumes[0].projected.sources[0].clusterTrustBundle.name: Invalid value: "": not a valid clustertrustbundlename: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.volumes[0].projected.sources[0].clusterTrustBundle.labelSelector: Invalid value: {"matchLabels":{"a":"b"}}: labelSelector must be unset if name is specified"#]],
    );
    check(json!({"name": "Example:a", "path": "ca.pem"}), expect![""]);
    check(
        json!({"signerName": "example", "labelSelector": {"matchLabels": {"a": "b c"}}, "path": ""}),
        expect![[r#"
            spec.volumes[0].projected.sources[0].clusterTrustBundle.signerName: Invalid value: "example": must be a fully qualified domain and path of the form 'example.com/signer-name'
            spec.volumes[0].projected.sources[0].clusterTrustBundle.labelSelector.matchLabels: Invalid value: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            spec.volumes[0].projected.sources[0].clusterTrustBundle.path: Required value"#]],
    );
}

#[test]
fn certificates() {
    check(
        "certificates.k8s.io",
        "CertificateSigningRequest",
        json!({"spec": {"request": "", "signerName": "kubernetes.io/legacy-unknown", "usages": ["x", "any", "any"], "expirationSeconds": 5}}),
        expect![[r#"
            spec.request: Invalid value: "": PEM block type must be CERTIFICATE REQUEST
            spec.usages[0]: Unsupported value: "x": supported values: "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping"
            spec.usages[2]: Duplicate value: "any"
            spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version
            spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 600 seconds (10 minutes)"#]],
    );
}

/// The certificate of an authority; the others are made as it is.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBhzCCAS2gAwIBAgIUA9L5mNpNGO71uRQAbCkB2gV+ibAwCgYIKoZIzj0EAwIw\n\
GDEWMBQGA1UEAwwNYXV0aG9yaXR5IG9uZTAgFw0yNjExMjgxNDE4MjRaGA8yMTI2\n\
MTEwNDE0MTgyNFowGDEWMBQGA1UEAwwNYXV0aG9yaXR5IG9uZTBZMBMGByqGSM49\n\
AgEGCCqGSM49AwEHA0IABJGTzD8ztwbVd2UkTYqb3Bx4nZ1aQ0/Z3vLhuAbx4Af6\n\
S/Tv+mJlChw/6yNHKwq/Evfyo5T0wdGS3uPYoJOlL1ujUzBRMB0GA1UdDgQWBBSU\n\
nTVc0TMPc4nArJX2qMjYV+VlKDAfBgNVHSMEGDAWgBSUnTVc0TMPc4nArJX2qMjY\n\
V+VlKDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCHam7Ie19s\n\
KmqRNjo5Tpd3fpDvEIIhHNLFhXyR9e5cGgIgPVFZw2YEenNQIiSZlwM52+95eluA\n\
0dSp80AJ4MK/0Gs=\n\
-----END CERTIFICATE-----\n";

/// Of another one.
const OTHER_AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBhzCCAS2gAwIBAgIUQN44Q9DVNkwTWVAxDCIImhpyNDYwCgYIKoZIzj0EAwIw\n\
GDEWMBQGA1UEAwwNYXV0aG9yaXR5IHR3bzAgFw0yNjExMjgxNDE4MjRaGA8yMTI2\n\
MTEwNDE0MTgyNFowGDEWMBQGA1UEAwwNYXV0aG9yaXR5IHR3bzBZMBMGByqGSM49\n\
AgEGCCqGSM49AwEHA0IABIRyi0IY6g4d25isgfEDBf9BQqIRqD6uDqAwBXGlhh+N\n\
EsAoeSqE4OdhBksJLlWoydmzL9esecTuMjbzVferp5CjUzBRMB0GA1UdDgQWBBTC\n\
CfxNMBfZoI3mRv9VBc8B1y0DRjAfBgNVHSMEGDAWgBTCCfxNMBfZoI3mRv9VBc8B\n\
1y0DRjAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQDrdlQpSs9t\n\
JZc0G/5azr5dAE5oDw/6Asd20UnS9KlwdwIgbkD90E96einwZviEcdECyOOv4sQF\n\
4BaK+97qQVsZTj4=\n\
-----END CERTIFICATE-----\n";

/// Of nobody who may sign.
const LEAF: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBcTCCARigAwIBAgIUTrTQcI1z9xMdTTWsBPUyAykqrUowCgYIKoZIzj0EAwIw\n\
DzENMAsGA1UEAwwEbGVhZjAgFw0yNjExMjgxNDE4MjRaGA8yMTI2MTEwNDE0MTgy\n\
NFowDzENMAsGA1UEAwwEbGVhZjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJ5f\n\
4CYKs9bzlveGUGp195XETOIzQzvtziRyTmVfDhmZpyymoA0jCETv3BvEMjepVQYE\n\
xWJVJjT7pJwhhqVatOujUDBOMB0GA1UdDgQWBBQrj/i80CFZ5Jo4tHvnSIRiQKg4\n\
UTAfBgNVHSMEGDAWgBQrj/i80CFZ5Jo4tHvnSIRiQKg4UTAMBgNVHRMBAf8EAjAA\n\
MAoGCCqGSM49BAMCA0cAMEQCICZebUNfudBD6m49f5xwklaDCvhc4ZkvxVy7b+uq\n\
/DDBAiBMliLEvfemcMn2TZ2BNJBVsk1B8IX/AS/22lTqMm92WA==\n\
-----END CERTIFICATE-----\n";
