//! The crate from outside: a server's directory over its life, TLS between two ends, tokens, requests, kubeconfigs.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PSS_SHA256, RsaPssSaltLength};
use jiff::{SignedDuration, Timestamp};
use pki::{
    Authority, Bundle, Certificate, Csr, Identity, Kubeconfig, Params, PrivateKey, Profile, PublicKey, San,
    Subject, Usage,
    jwt::{Signer, Verifier, unverified_claims},
    key::Algorithm,
    pem,
    public_key::{Jwk, jwks},
    tls::{self, ClientRoots, Slot, Trust, verify_client_chain},
};
use rustls::{ClientConnection, ServerConnection};

const DAY: Duration = Duration::from_secs(86400);

fn params() -> Params {
    Params::new("node-1", &["192.0.2.7".parse().unwrap()], &["10.96.0.1".parse().unwrap()])
}

fn days(n: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_hours(24 * n)
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_server_directory_over_its_life() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("pki");
    let ensure = |params: &Params, day| Bundle::ensure_at(&dir, params, days(day)).unwrap();

    let started = Instant::now();
    let first = ensure(&params(), 0);
    let took = started.elapsed();
    assert!(took < Duration::from_millis(500), "first start took {took:?} (a debug build, a shared machine)");
    assert_eq!(first.renewed.len(), 13);
    assert_eq!(mode(&dir), 0o700);
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let want = if path.extension().unwrap() == "key" { 0o600 } else { 0o644 };
        assert_eq!(mode(&path), want, "{}", path.display());
    }

    let names = |i: &Identity| {
        (i.certificate.subject.common_name.clone(), i.certificate.subject.organizations.clone())
    };
    let named = |cn: &str, o: &[&str]| (cn.to_owned(), o.iter().map(|s| s.to_string()).collect::<Vec<_>>());
    assert_eq!(names(&first.kubelet_client), named("system:node:node-1", &["system:nodes"]));
    assert_eq!(names(&first.admin), named("kubernetes-admin", &["kubeadm:cluster-admins"]));
    assert_eq!(names(&first.super_admin), named("kubernetes-super-admin", &["system:masters"]));
    assert_eq!(names(&first.scheduler), named("system:kube-scheduler", &[]));
    for san in ["kubernetes.default.svc.cluster.local", "10.96.0.1", "192.0.2.7", "node-1", "::1"] {
        assert!(first.apiserver.certificate.sans.contains(&San::host(san)), "{san}");
    }

    assert!(ensure(&params(), 1).renewed.is_empty(), "nothing to do");
    let mut wider = params();
    wider.extra_sans.push(San::host("api.example.com"));
    assert_eq!(ensure(&wider, 1).renewed, ["apiserver"]);
    std::fs::write(dir.join("scheduler.crt"), "torn").unwrap();
    assert_eq!(ensure(&wider, 1).renewed, ["scheduler"]);
    // Two thirds of 90 days: the components' certificates are due, the administrators' are not.
    let later = ensure(&wider, 62);
    assert_eq!(later.renewed.len(), 8, "{:?}", later.renewed);
    assert!(later.kubelet_server.certificate.not_after > days(150));
    // Two thirds of ten years: the authority goes on under the same key, and what it signed stays valid.
    let much_later = ensure(&wider, 2500);
    assert!(much_later.renewed.contains(&"ca"));
    assert!(later.kubelet_client.certificate.is_signed_by(&much_later.cluster_ca.certificate));
    assert_eq!(first.service_account.public(), much_later.service_account.public());

    std::fs::remove_file(dir.join("ca.key")).unwrap();
    let error = Bundle::ensure_at(&dir, &wider, days(2500)).unwrap_err().to_string();
    assert!(error.contains("ca.crt is there but its key ca.key is not"), "{error}");
}

/// Runs a handshake in memory and sends a byte each way; the chain that the server saw.
fn handshake(
    server: rustls::ServerConfig,
    client: rustls::ClientConfig,
    name: &str,
) -> Result<Vec<rustls_pki_types::CertificateDer<'static>>, rustls::Error> {
    let mut client = ClientConnection::new(
        Arc::new(client),
        rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap(),
    )?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    server.writer().write_all(b"!").unwrap();
    let mut wire = Vec::new();
    server.write_tls(&mut wire).unwrap();
    client.read_tls(&mut wire.as_slice()).unwrap();
    client.process_new_packets()?;
    let mut byte = [0];
    client.reader().read_exact(&mut byte).unwrap();
    Ok(server.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect())
}

#[test]
fn tls_between_the_parts() {
    let home = tempfile::tempdir().unwrap();
    let bundle = Bundle::ensure(home.path(), &params()).unwrap();
    let now = Timestamp::now();
    let ca = &bundle.cluster_ca.certificate;
    let trust = Trust::Roots(vec![ca.der().clone()]);
    let roots = ClientRoots::new(std::slice::from_ref(ca)).unwrap();
    let slot = Slot::of(&bundle.apiserver).unwrap();
    let server = || tls::server_config(slot.clone(), std::slice::from_ref(ca), tls::ALPN_ALL).unwrap();
    let client = |trust: &Trust, identity: Option<&Identity>| {
        tls::client_config(trust, identity.map(|i| Slot::of(i).unwrap()), tls::ALPN_ALL).unwrap()
    };

    let chain = handshake(server(), client(&trust, Some(&bundle.admin)), "10.96.0.1").unwrap();
    let who = verify_client_chain(&chain, &roots, now).unwrap();
    assert_eq!(who.subject, Subject::new("kubernetes-admin", &["kubeadm:cluster-admins"]));
    assert!(verify_client_chain(&chain, &roots, days(9000)).is_err(), "expired by then");
    assert_eq!(
        handshake(server(), client(&trust, None), "localhost").unwrap().len(),
        0,
        "a certificate is optional"
    );

    // A stranger's certificate passes the handshake and fails authentication.
    let other = Authority::create("other", DAY, now).unwrap();
    let stranger = other
        .issue(&Profile::client(Subject::new("kubernetes-admin", &["system:masters"]), DAY), now)
        .unwrap();
    let chain = handshake(server(), client(&trust, Some(&stranger)), "localhost").unwrap();
    assert!(verify_client_chain(&chain, &roots, now).is_err());
    // A serving certificate does not authenticate a client.
    let chain = handshake(server(), client(&trust, Some(&bundle.kubelet_server)), "localhost").unwrap();
    assert!(verify_client_chain(&chain, &roots, now).is_err());
    assert!(verify_client_chain(&[], &roots, now).is_err());

    assert!(handshake(server(), client(&trust, None), "elsewhere.example").is_err(), "wrong name");
    let foreign = Trust::Roots(vec![other.certificate.der().clone()]);
    assert!(handshake(server(), client(&foreign, None), "localhost").is_err(), "unknown authority");
    assert!(handshake(server(), client(&Trust::Anyone, None), "elsewhere.example").is_ok());

    // Exchanged live: the next handshake shows the other certificate.
    let config = server();
    slot.set(
        &other
            .issue(&Profile::server(Subject::new("s", &[]), vec![San::host("localhost")], DAY), now)
            .unwrap(),
    )
    .unwrap();
    assert!(handshake(config, client(&foreign, None), "localhost").is_ok());

    // By name: exactly, by the domain, or the one for all others.
    let named = |name: &str| {
        Slot::of(
            &other.issue(&Profile::server(Subject::new("s", &[]), vec![San::host(name)], DAY), now).unwrap(),
        )
        .unwrap()
    };
    let by_name = tls::ByName::new(
        Slot::of(&bundle.apiserver).unwrap(),
        vec![
            (vec!["*.named.example".into()], named("*.named.example")),
            (vec!["a.named.example".into()], named("a.named.example")),
        ],
    );
    let by_name = std::sync::Arc::new(by_name);
    let server = || tls::server_config(by_name.clone(), &[], tls::ALPN_ALL).unwrap();
    for name in ["a.named.example", "b.named.example"] {
        assert!(handshake(server(), client(&foreign, None), name).is_ok(), "{name}");
    }
    assert!(handshake(server(), client(&trust, None), "localhost").is_ok());
    assert!(handshake(server(), client(&foreign, None), "b.c.named.example").is_err());

    // Other authorities count from now on, for who has the pool already.
    let chain = handshake(server(), client(&trust, Some(&stranger)), "localhost").unwrap();
    let held = roots.clone();
    roots.set_pem(other.certificate.to_pem().as_bytes()).unwrap();
    assert!(verify_client_chain(&chain, &held, now).is_ok());

    // A webhook with one self-signed certificate that calls itself an authority.
    let own = Authority::create("hook.example", DAY, now).unwrap();
    let slot = Slot::of_pem(own.certificate.to_pem().as_bytes(), own.key.to_pem().as_bytes()).unwrap();
    let server = || tls::server_config(slot.clone(), &[], tls::ALPN_HTTP1).unwrap();
    let pinned = Trust::pem(own.certificate.to_pem().as_bytes()).unwrap();
    assert!(handshake(server(), client(&pinned, None), "hook.example").is_ok());
    assert!(handshake(server(), client(&pinned, None), "other.example").is_err());
}

#[test]
fn ciphers_of_both_libraries_are_understood() {
    use rustls::CipherSuite::{TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256};
    use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
    let home = tempfile::tempdir().unwrap();
    let bundle = Bundle::ensure(home.path(), &params()).unwrap();
    let slot = Slot::of(&bundle.apiserver).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(bundle.cluster_ca.certificate.der().clone()).unwrap();
    let mut agreed = 0;
    for suite in ring::ALL_CIPHER_SUITES.iter().chain(aws_lc_rs::ALL_CIPHER_SUITES) {
        let only = CryptoProvider { cipher_suites: vec![*suite], ..(*tls::provider()).clone() };
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(only))
            .with_protocol_versions(&[if suite.tls13().is_some() {
                &rustls::version::TLS13
            } else {
                &rustls::version::TLS12
            }])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let server = tls::server_config(slot.clone(), &[], tls::ALPN_ALL).unwrap();
        // The server's key is of one kind, and suites of TLS 1.2 are for one or the other.
        agreed += usize::from(handshake(server, client, "localhost").is_ok());
    }
    assert_eq!(agreed, 2 * (3 + 3));

    let names = |suites: &[rustls::SupportedCipherSuite]| {
        let mut names: Vec<_> = suites.iter().map(|suite| u16::from(suite.suite())).collect();
        names.sort_unstable();
        names
    };
    let ours = &tls::provider().cipher_suites;
    assert_eq!(names(ours), names(aws_lc_rs::DEFAULT_CIPHER_SUITES));
    let (first, first_old) =
        (ours[0].suite(), ours.iter().find(|suite| suite.tls13().is_none()).unwrap().suite());
    assert_eq!((first, first_old), (TLS13_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256));
}

#[test]
fn tokens() {
    #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Claims {
        iss: String,
        sub: String,
    }
    let claims =
        Claims { iss: "https://kubernetes.default.svc".into(), sub: "system:serviceaccount:a:b".into() };
    for pem in [PrivateKey::generate().unwrap().to_pem(), rsa_key().to_owned()] {
        let signer = Signer::new(PrivateKey::from_pem(pem.as_bytes()).unwrap());
        let token = signer.sign(&claims).unwrap();
        // Through the key set, as a relying party does it.
        let set = jwks(std::slice::from_ref(signer.public())).unwrap();
        let json = serde_json::to_string(&set.keys[0]).unwrap();
        assert!(json.starts_with(r#"{"use":"sig","kty":""#), "{json}");
        let key = PublicKey::from_jwk(&serde_json::from_str::<Jwk>(&json).unwrap()).unwrap();
        assert_eq!(&key, signer.public());
        let verifier = Verifier::new(vec![PrivateKey::generate().unwrap().public().clone(), key]);
        assert_eq!(verifier.verify::<Claims>(&token).unwrap(), claims);
        assert_eq!(unverified_claims::<Claims>(&token).unwrap(), claims);
        for i in (0..token.len()).step_by(7) {
            let mut bad = token.clone().into_bytes();
            bad[i] = if bad[i] == b'A' { b'B' } else { b'A' };
            assert!(verifier.verify::<Claims>(std::str::from_utf8(&bad).unwrap()).is_err(), "byte {i}");
        }
        let stranger = Verifier::new(vec![PrivateKey::generate().unwrap().public().clone()]);
        assert!(stranger.verify::<Claims>(&token).is_err());
    }
    // No algorithm, and the classic confusion of a public key with an HMAC secret.
    let verifier = Verifier::new(vec![PrivateKey::generate().unwrap().public().clone()]);
    for token in ["", "..", "a.b", "a.b.c.d", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"] {
        assert!(verifier.verify::<serde_json::Value>(token).is_err(), "{token}");
    }
}

#[test]
fn rsa_keys_are_read() {
    let key = PrivateKey::from_pem(rsa_key().as_bytes()).unwrap();
    assert_eq!(key.jws_algorithm(), "RS256");
    assert_eq!(key.public().key_id().len(), 43);
    let public = PublicKey::all_from_pem(key.public().to_pem().as_bytes()).unwrap();
    assert_eq!(&public[0], key.public());
    assert_eq!(PublicKey::all_from_pem(rsa_key().as_bytes()).unwrap(), public);
}

#[test]
fn requests_are_signed_with_the_usages_of_the_signer() {
    let now = Timestamp::now();
    let ca = Authority::create("kubernetes", 30 * DAY, now).unwrap();
    let subject = Subject::new("system:node:n", &["system:nodes", "more"]);
    let sans =
        [San::host("n"), San::host("192.0.2.1"), San::host("2001:db8::1"), San::Uri("spiffe://x/y".into())];
    let of = |algorithm| PrivateKey::generate_as(algorithm).unwrap();
    let made = [Algorithm::P256, Algorithm::P384, Algorithm::P521, Algorithm::Ed25519].map(of);
    let rsa = PrivateKey::from_pem(rsa_key().as_bytes()).unwrap();
    for key in made.into_iter().chain([rsa]) {
        let pem = Csr::create(&key, &subject, &sans).unwrap();
        let csr = Csr::from_pem(pem.as_bytes()).unwrap();
        let mut organizations = csr.subject.organizations.clone();
        organizations.sort();
        assert_eq!(
            (csr.subject.common_name.as_str(), organizations.as_slice()),
            ("system:node:n", &["more".to_owned(), "system:nodes".into()][..])
        );
        assert_eq!(csr.sans, sans);
        let usages = [Usage::DigitalSignature, Usage::ServerAuth];
        let made = ca.sign_csr(&csr, &usages, 365 * DAY, now).unwrap();
        assert_eq!(
            (made.usages.as_slice(), made.sans.as_slice(), &made.subject),
            (&usages[..], &sans[..], &csr.subject)
        );
        assert!(made.is_signed_by(&ca.certificate) && !made.is_ca);
        assert_eq!(made.not_after, ca.certificate.not_after, "never outlives its authority");
        assert_eq!(&made.public_key().unwrap(), key.public());
        assert_eq!(Certificate::from_pem(made.to_pem().as_bytes()).unwrap(), made);

        // Any changed byte of what is signed is noticed.
        let der = rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes())
            .map(|c: rustls_pki_types::CertificateSigningRequestDer| c.to_vec())
            .unwrap();
        for i in (0..der.len()).step_by(11) {
            let mut bad = der.clone();
            bad[i] ^= 0x10;
            // What remains of the request is what was signed; only the outer frame may differ.
            if let Ok(got) = Csr::from_der(&bad) {
                assert_eq!(
                    (got.subject, got.sans, got.public_key),
                    (csr.subject.clone(), csr.sans.clone(), csr.public_key.clone()),
                    "byte {i}"
                );
            }
        }
    }
    assert!(
        Csr::from_pem(b"nothing")
            .unwrap_err()
            .to_string()
            .contains("PEM block type must be CERTIFICATE REQUEST")
    );
}

#[test]
fn who_holds_a_key_proves_it() {
    let uid = b"7a5c4c59-4b41-4b3c-a3d9-0d3b7c3f2f5e";
    let ed25519 = PrivateKey::generate_as(Algorithm::Ed25519).unwrap();
    let signature = ed25519.sign_jws(uid).unwrap();
    assert!(ed25519.public().proves(uid, &signature));
    assert!(!ed25519.public().proves(b"another", &signature));
    assert_eq!(ed25519.public().modulus_bits(), None);
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa3072).unwrap();
    let encoded = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    let key = PrivateKey::from_pem(pem::encode("PRIVATE KEY", encoded.as_ref()).as_bytes()).unwrap();
    assert_eq!(key.public().modulus_bits(), Some(3072));
    // With a salt as long as the digest, and as Go signs.
    for salt in [RsaPssSaltLength::Digest, RsaPssSaltLength::Max] {
        let how: &'static _ = Box::leak(Box::new(RSA_PSS_SHA256.with_pss_salt_length(salt)));
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(how, &SystemRandom::new(), uid, &mut signature).unwrap();
        assert!(key.public().proves(uid, &signature), "{salt:?}");
        signature[100] ^= 1;
        assert!(!key.public().proves(uid, &signature), "{salt:?}");
    }
}

#[test]
fn kubeconfigs() {
    let home = tempfile::tempdir().unwrap();
    let bundle = Bundle::ensure(home.path(), &params()).unwrap();
    let path = home.path().join("admin.conf");
    let config = bundle.kubeconfig("https://127.0.0.1:6443", &bundle.admin);
    config.save(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    let back = Kubeconfig::load(&path).unwrap();
    assert_eq!(back, config);
    assert_eq!(back.current_context, "kubernetes-admin@kubernetes");
    tls::client_config_of(&back.resolve(None).unwrap(), tls::ALPN_ALL).unwrap();

    let text = "
apiVersion: v1
kind: Config
preferences: {}
current-context: c
clusters:
- name: k
  cluster: {server: 'https://x:1', certificate-authority: ca.crt, tls-server-name: y}
contexts:
- {name: c, context: {cluster: k, user: u, namespace: ns}}
users:
- name: u
  user:
    token: abc
    exec: {apiVersion: client.authentication.k8s.io/v1, command: get, args: null, env: [{name: A, value: '1'}], interactiveMode: Never, provideClusterInfo: false}
";
    let path = home.path().join("files.conf");
    std::fs::write(&path, text).unwrap();
    let config = Kubeconfig::load(&path).unwrap();
    let resolved = config.resolve(None).unwrap();
    assert_eq!(resolved.certificate_authority.unwrap().0, std::fs::read(home.path().join("ca.crt")).unwrap());
    assert_eq!((resolved.namespace.as_str(), resolved.user.token.as_str()), ("ns", "abc"));
    assert_eq!(resolved.user.exec.unwrap().env[0].value, "1");
    assert_eq!(Kubeconfig::parse(&config.to_yaml().unwrap()).unwrap(), config);
    assert!(
        config.resolve(Some("none")).unwrap_err().to_string().contains("context \"none\" does not exist")
    );
    assert!(Kubeconfig::parse("clusters: null\nusers:\ncontexts: []").unwrap().clusters.is_empty());
}

proptest::proptest! {
    #[test]
    fn garbage_is_refused_without_a_panic(data: Vec<u8>, text: String) {
        let _ = Certificate::from_der(&data);
        let _ = Csr::from_der(&data);
        let _ = PublicKey::from_spki(&data);
        let _ = PrivateKey::from_pem(&data);
        let _ = Kubeconfig::parse(&text);
        let _ = Verifier::default().verify::<serde_json::Value>(&text);
    }
}

/// An RSA key, made once: it takes a while.
fn rsa_key() -> &'static str {
    static KEY: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    KEY.get_or_init(|| {
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        pki::pem::encode("PRIVATE KEY", der.as_ref())
    })
}
