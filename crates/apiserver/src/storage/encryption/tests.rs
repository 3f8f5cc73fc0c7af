//! Providers as they are configured.

use super::*;
use store::Identity;

const ONE: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

fn configuration(providers: &str) -> Result<Configuration, ConfigError> {
    Configuration::parse(&format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, '*.example.com']\n  providers:\n{providers}"
    ))
}

fn encryption(providers: &str) -> Result<Encryption, ConfigError> {
    let resources = HashMap::from([
        ("/registry/secrets/".into(), (String::new(), "secrets".into())),
        ("/registry/pods/".into(), (String::new(), "pods".into())),
    ]);
    Encryption::new(configuration(providers)?, resources, "/registry", Arc::new(Identity))
}

fn provider(name: &str, key: &str) -> String {
    format!("  - {name}: {{keys: [{{name: {key}, secret: {ONE}}}]}}\n")
}

fn secret() -> Key {
    Key::new("/registry/secrets/", "default/a")
}

#[test]
fn values_are_sealed_and_told_by_their_prefix() {
    for name in ["aescbc", "aesgcm", "secretbox"] {
        let encryption = encryption(&provider(name, "one")).unwrap();
        for key in [secret(), Key::new("/registry/example.com/widgets/", "ns/w")] {
            let kept = encryption.save(&key, &"canary".into()).unwrap();
            assert!(kept.starts_with(format!("k8s:enc:{name}:v1:one:").as_bytes()));
            assert!(!kept.windows(6).any(|window| window == b"canary"));
            let loaded = encryption.load(&key, kept).unwrap();
            assert_eq!(loaded, Loaded { value: "canary".into(), stale: false });
        }
        let pod = Key::new("/registry/pods/", "default/a");
        assert_eq!(encryption.save(&pod, &"plain".into()).unwrap(), "plain");
    }
}

#[test]
fn what_another_provider_wrote_is_read_and_stale() {
    let old = encryption(&provider("aescbc", "one")).unwrap();
    let kept = old.save(&secret(), &"v".into()).unwrap();
    let rotated = encryption(&[provider("aesgcm", "two"), provider("aescbc", "one")].concat()).unwrap();
    assert_eq!(rotated.load(&secret(), kept.clone()).unwrap(), Loaded { value: "v".into(), stale: true });
    let away = encryption(&["  - identity: {}\n", &provider("aescbc", "one")].concat()).unwrap();
    assert_eq!(away.load(&secret(), kept.clone()).unwrap(), Loaded { value: "v".into(), stale: true });
    assert_eq!(away.load(&secret(), "v".into()).unwrap(), Loaded { value: "v".into(), stale: false });
    let begun = encryption(&[&provider("aescbc", "one"), "  - identity: {}\n"].concat()).unwrap();
    assert_eq!(begun.load(&secret(), "v".into()).unwrap(), Loaded { value: "v".into(), stale: true });
    let other = encryption(&provider("aesgcm", "one")).unwrap();
    assert_eq!(other.load(&secret(), kept.clone()).unwrap_err().0, "no matching prefix found");
    assert_eq!(other.load(&secret(), "v".into()).unwrap_err().0, "no matching prefix found");
    let pod = Key::new("/registry/pods/", "default/a");
    let refused = other.load(&pod, kept).unwrap_err();
    assert_eq!(refused.0, "identity transformer tried to read encrypted data");
}

#[test]
fn configurations_are_read_strictly() {
    for (providers, why) in [
        ("  - {}\n", "provider does not contain exactly one of the expected providers"),
        ("  - unknown: {}\n", "unknown field `unknown`"),
        ("  - aescbc: {keys: []}\n", "keys must be provided"),
        ("  - aescbc: {keys: [{name: 'a:b', secret: YQ==}]}\n", "key names must not contain ':'"),
        ("  - aesgcm: {keys: [{name: a, secret: YQ==}]}\n", "expected one of [16, 24, 32]"),
        ("  - secretbox: {keys: [{name: a, secret: '!'}]}\n", "secrets must be base64 encoded"),
    ] {
        let error = encryption(providers).unwrap_err().0;
        assert!(error.contains(why), "{providers}: {error}");
    }
}

#[test]
fn a_configuration_is_replaced_under_way() {
    let encryption = encryption(&provider("aescbc", "one")).unwrap();
    let kept = encryption.save(&secret(), &"v".into()).unwrap();
    assert!(!encryption.is_outdated("/registry/secrets/", 1));
    let rotated = [provider("aesgcm", "two"), provider("aescbc", "one")].concat();
    encryption.reload(configuration(&rotated).unwrap()).unwrap();
    assert!(encryption.save(&secret(), &"v".into()).unwrap().starts_with(b"k8s:enc:aesgcm:v1:two:"));
    assert_eq!(encryption.load(&secret(), kept).unwrap(), Loaded { value: "v".into(), stale: true });
    encryption.outdate(7);
    let outdated = |prefix, revision| encryption.is_outdated(prefix, revision);
    assert!(outdated("/registry/secrets/", 7) && !outdated("/registry/secrets/", 8));
    assert!(!outdated("/registry/pods/", 7), "what nobody encrypts is as it was");
    // What cannot be used changes nothing.
    let bad = configuration("  - aescbc: {keys: []}\n").and_then(|bad| encryption.reload(bad));
    assert!(bad.is_err());
    assert!(encryption.save(&secret(), &"v".into()).unwrap().starts_with(b"k8s:enc:aesgcm:v1:two:"));
}
