//! The node's certificates, which the cluster signs, and which change while the node is asked for things.

use crate::CONFIGURATION;
use cluster_tests::cluster::NODE;
use cluster_tests::manifests::shell;
use cluster_tests::{Room, until};
use std::path::Path;

const SERVING: &str = "kubernetes.io/kubelet-serving";

/// What the kubelet's server says of itself: the value of a metric.
fn metric(room: &Room, name: &str) -> f64 {
    let text = room.kubectl.run(&format!("get --raw /api/v1/nodes/{NODE}/proxy/metrics"));
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// The serial number of what the server shows now.
fn serial(room: &Room) -> String {
    let address = room.kubectl.field(&format!("node/{NODE}"), ".status.addresses[0].address");
    room.cluster.net.run(&format!(
        "openssl s_client -connect {address}:10250 </dev/null 2>/dev/null | openssl x509 -noout -serial"
    ))
}

/// Says yes to all that is asked for a server.
fn approve(room: &Room) {
    let script = format!(
        "kubectl get csr --field-selector spec.signerName={SERVING} \
         -o go-template='{{{{range .items}}}}{{{{if not .status.conditions}}}}{{{{.metadata.name}}}} {{{{end}}}}{{{{end}}}}' \
         | xargs -r kubectl certificate approve"
    );
    room.kubectl.sh(&script);
}

pub(crate) fn renews_its_certificates(room: &Room) {
    let k = &room.kubectl;
    // That a node may have serving certificates by itself is a right, which can be taken from it for good.
    let binding = "clusterrolebinding tiphys:node-autoapprove-serving";
    k.run(&format!("annotate {binding} rbac.authorization.kubernetes.io/autoupdate=false --overwrite"));
    k.run(&format!("patch {binding} --type merge -p '{{\"subjects\":null}}'"));
    room.cluster.serve_with(&["--cluster-signing-duration=60s".into()]);
    room.cluster.reconfigure(&format!("{CONFIGURATION}serverTLSBootstrap: true\nrotateCertificates: true\n"));
    let ticks = "[sh, -c, 'while sleep 0.2; do echo tick; done']";
    k.apply(&shell("ticks", "").replace("[sleep, infinity]", ticks));
    k.wait("condition=Ready", "pod/ticks");
    // Nobody has agreed yet that the node may serve under its names.
    let refused = k.refused("logs ticks --tail=1");
    assert!(refused.contains("alert"), "{refused}");
    let selector = format!("csr --field-selector spec.signerName={SERVING}");
    let request = k.until(&selector, "asked for", |csr| Some(csr["spec"].clone()));
    assert_eq!(request["username"], format!("system:node:{NODE}"));
    assert_eq!(request["usages"], serde_json::json!(["digital signature", "server auth"]));
    approve(room);
    until("served", || k.output("logs ticks --tail=1").status.success());

    // It goes on through all that follows.
    let mut exec = k.start("exec ticks -- sh -c 'while sleep 0.2; do echo still here; done'");
    let mut follow = k.start("logs -f ticks --tail=1");
    let name = "kubelet_certificate_manager_server_rotation_seconds_count";
    let first = serial(room);
    until("renewed twice", || {
        approve(room);
        assert_eq!(k.run("logs ticks --tail=1"), "tick");
        metric(room, name) >= 2.0
    });
    assert_ne!(serial(room), first);
    let left = metric(room, "kubelet_certificate_manager_server_ttl_seconds");
    assert!((-1.0..=60.0).contains(&left), "{left}");
    exec.line("still here");
    follow.line("tick");
    assert_eq!(k.run("exec ticks -- echo new"), "new");

    // What the node calls with is renewed, too, and nobody has to agree.
    let pki = room.cluster.data().join("kubelet/pki");
    let pair = pki.join("kubelet-client-current.pem");
    assert!(pair.is_symlink(), "{}", pair.display());
    let left = || metric(room, "kubelet_certificate_manager_client_ttl_seconds");
    until("renewed", || (-1.0..=60.0).contains(&left()));
    let flags = format!("--client-certificate={0} --client-key={0}", pair.display());
    assert!(k.run(&format!("auth whoami {flags}")).contains(&format!("system:node:{NODE}")));
    // Old ones do not pile up; while one is written there is one less, or one more.
    until("no more than a pair and the one before it", || std::fs::read_dir(&pki).unwrap().count() == 6);

    // A kubelet that begins anew shows what it has.
    let before = std::fs::read_link(pki.join("kubelet-server-current.pem")).unwrap();
    room.cluster.kill();
    room.cluster.serve();
    assert!(before.exists());
    until("served again", || {
        approve(room);
        k.output("logs ticks --tail=1").status.success()
    });

    k.run(&format!("delete {binding}"));
    shows_what_files_hold(room, &std::fs::read(pki.join("kubelet-server-current.pem")).unwrap());
    room.cluster.serve_with(&[]);
    room.cluster.reconfigure(CONFIGURATION);
}

/// A file, put in place whole.
fn put(path: &Path, content: &[u8]) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// Files that somebody else renews: they are read anew when they change, and what cannot be used changes nothing.
fn shows_what_files_hold(room: &Room, other: &[u8]) {
    let k = &room.kubectl;
    let data = room.cluster.data();
    let (certificate, key) = (data.join("tls.crt"), data.join("tls.key"));
    put(&certificate, &std::fs::read(data.join("pki/kubelet.crt")).unwrap());
    put(&key, &std::fs::read(data.join("pki/kubelet.key")).unwrap());
    let files = "tlsCertFile: $DATA/tls.crt\ntlsPrivateKeyFile: $DATA/tls.key\n";
    room.cluster.reconfigure(&format!("{CONFIGURATION}{files}"));
    until("served", || k.output("logs ticks --tail=1").status.success());
    let first = serial(room);
    put(&certificate, b"nothing of the kind");
    assert_eq!(k.run("logs ticks --tail=1"), "tick");
    assert_eq!(serial(room), first);
    put(&certificate, other);
    put(&key, other);
    until("shown", || serial(room) != first);
}
