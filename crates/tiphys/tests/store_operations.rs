//! What operators do with the store, in the real binary: a cluster moved into etcd and back, keys that change while it
//! runs, a snapshot looked back at, a disk that stands still.
#![allow(clippy::unwrap_used)]

mod plane;

use apimachinery::json;
use apimachinery::value::Value;
use http::Method;
use plane::{Door, Server};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use store::suite::member;

fn tiphys(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tiphys")).args(arguments).output().unwrap()
}

/// What it prints; it has to succeed.
fn told(arguments: &[&str]) -> String {
    let output = tiphys(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What it complains of; it has to fail.
fn refused(arguments: &[&str]) -> String {
    let output = tiphys(arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", text(from), text(to)]).status();
    assert!(status.unwrap().success());
}

/// All objects of these resources, without their revisions: etcd gives its own. What servers write of themselves while
/// they run is left out.
async fn objects(door: &Door) -> BTreeMap<String, Value> {
    let mut objects = BTreeMap::new();
    for path in [
        "/api/v1/configmaps",
        "/api/v1/secrets",
        "/api/v1/namespaces",
        "/api/v1/serviceaccounts",
        "/api/v1/services",
        "/apis/networking.k8s.io/v1/ipaddresses",
        "/apis/networking.k8s.io/v1/servicecidrs",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/apps/v1/deployments",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/example.com/v1/widgets",
    ] {
        let list = door.get(path).await;
        for item in list["items"].as_array().unwrap() {
            let mut item = item.clone();
            // Where this very server listens.
            if item["metadata"]["name"] == "kubernetes" || item["metadata"]["name"] == "cluster-info" {
                continue;
            }
            let meta = item["metadata"].as_object_mut().unwrap();
            meta.remove("resourceVersion");
            let key = format!("{path} {}/{}", meta.get("namespace").unwrap_or(&Value::Null), meta["name"]);
            objects.insert(key, item);
        }
    }
    objects
}

/// What of one is not in the other, or is otherwise.
fn same(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) {
    let all = before.keys().chain(after.keys());
    let differs = all.filter(|key| before.get(*key) != after.get(*key));
    let told: Vec<_> = differs.map(|key| (key, before.get(key), after.get(key))).collect();
    assert!(told.is_empty(), "{told:#?}");
}

/// Waits until controllers have made what every namespace has, and roles are put together.
async fn settled(door: &Door) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let count = async |path: &str, name: &str| {
            let list = door.get(path).await;
            let items = list["items"].as_array().unwrap().iter();
            items.filter(|item| name.is_empty() || item["metadata"]["name"] == name).count()
        };
        let namespaces = count("/api/v1/namespaces", "").await;
        let view = door.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/view").await;
        let aggregated = view["rules"].as_array().is_some_and(|rules| rules.len() > 3);
        if count("/api/v1/configmaps", "kube-root-ca.crt").await == namespaces
            && count("/api/v1/serviceaccounts", "default").await == namespaces
            && count("/apis/networking.k8s.io/v1/ipaddresses", "").await
                == count("/api/v1/services", "").await
            && aggregated
        {
            return;
        }
        assert!(Instant::now() < until, "controllers do not settle");
    }
}

async fn fill(door: &Door) {
    let definition = json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "listKind": "WidgetList", "singular": "widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }}}],
        },
    });
    door.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let named = |name: &str| json!({"metadata": {"name": name}});
    for index in 0..20 {
        let mut map = named(&format!("map-{index}"));
        map["data"] = json!({"a": "b".repeat(index * 100)});
        door.create("/api/v1/namespaces/default/configmaps", map).await;
    }
    let mut secret = named("secret");
    secret["stringData"] = json!({"password": "canary"});
    door.create("/api/v1/namespaces/default/secrets", secret).await;
    let mut service = named("service");
    service["spec"] = json!({"type": "NodePort", "ports": [{"port": 80}]});
    door.create("/api/v1/namespaces/default/services", service).await;
    let mut widget = named("widget");
    (widget["apiVersion"], widget["kind"]) = ("example.com/v1".into(), "Widget".into());
    widget["spec"] = json!({"size": 3, "deep": {"list": [1, 2, {"x": null}]}});
    // Served once the definition is established.
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    let until = Instant::now() + Duration::from_secs(30);
    while door.insist(Method::POST, path, &widget).await.0 != 201 {
        assert!(Instant::now() < until, "the custom resource is not served");
    }
    settled(door).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_moves_into_etcd_and_back() {
    pki::tls::install_provider();
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(&home.path().join("members"), 1) else { return };
    let place = |name: &str| home.path().join(name);
    let (first, second) = (place("first"), place("second"));
    let mut server = Server::started(&first, &[]).await;
    fill(&server.door()).await;
    let before = objects(&server.door()).await;
    assert!(before.len() > 60, "{:?}", before.keys());
    server.stop();

    let etcd = ["--store", "etcd", "--etcd-servers", &members[0].url];
    let out = [&["store", "move", "--to", "etcd", "--data-dir", text(&first)][..], &etcd].concat();
    let said = told(&out);
    assert!(said.contains("keys written; etcd is at revision"), "{said}");
    assert!(refused(&out).contains("etcd has keys below /registry already"));
    // What upstream's own tools find there is in upstream's form.
    let raw = ["get", "/registry/configmaps/default/map-3", "--print-value-only", "--hex"];
    assert!(member::etcdctl(&members[0].url, &raw).starts_with(r"\x6b\x38\x73\x00"));

    // The same keys and certificates, the store elsewhere.
    std::fs::create_dir(place("over-etcd")).unwrap();
    copy(&first.join("pki"), &place("over-etcd"));
    let mut server = Server::started(&place("over-etcd"), &etcd).await;
    same(&before, &objects(&server.door()).await);
    let added = json!({"metadata": {"name": "added"}, "data": {"while": "in etcd"}});
    server.door().create("/api/v1/namespaces/default/configmaps", added).await;
    let before = objects(&server.door()).await;
    server.stop();

    let back = [&["store", "move", "--to", "embedded", "--data-dir", text(&second)][..], &etcd].concat();
    let said = told(&back);
    assert!(said.contains("/registry/configmaps/"), "{said}");
    assert!(refused(&back).contains("a store is there already"));
    copy(&first.join("pki"), &second);
    let mut server = Server::started(&second, &[]).await;
    same(&before, &objects(&server.door()).await);
    // Addresses and node ports are still held.
    let taken = before.values().find(|object| object["metadata"]["name"] == "service").unwrap();
    let port = &taken["spec"]["ports"][0]["nodePort"];
    let rival = json!({"metadata": {"name": "rival"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    let path = "/api/v1/namespaces/default/services";
    let (code, told, _) = server.door().insist(Method::POST, path, &rival).await;
    assert_eq!(code, 422, "{told}");
    assert!(told["message"].as_str().unwrap().contains("provided port is already allocated"), "{told}");
    server.stop();
}

/// An encryption configuration with these keys, the first of which is written with.
fn configure(path: &Path, keys: &[(&str, &str)]) {
    let keys: Vec<String> =
        keys.iter().map(|(name, secret)| format!("        - {{name: {name}, secret: {secret}}}\n")).collect();
    let content = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers:\n  - aescbc:\n      keys:\n{}  - identity: {{}}\n",
        keys.concat()
    );
    // Replaced whole, as a Secret's files are.
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}

const OLD: (&str, &str) = ("old", "c2VjcmV0IGlzIHNlY3VyZQ==");
const NEW: (&str, &str) = ("new", "dGhpcyBpcyBwYXNzd29yZA==");

/// Whether this is anywhere in the store's files.
fn kept(data: &Path, what: &str) -> bool {
    let files = std::fs::read_dir(data.join("store")).unwrap();
    let found = |file: std::io::Result<std::fs::DirEntry>| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        bytes.windows(what.len()).any(|window| window == what.as_bytes())
    };
    files.into_iter().any(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_it_runs_and_old_ones_look_back() {
    pki::tls::install_provider();
    let home = tempfile::tempdir().unwrap();
    let (data, config) = (home.path().join("data"), home.path().join("encryption.yaml"));
    configure(&config, &[OLD]);
    let flags =
        ["--encryption-provider-config", text(&config), "--encryption-provider-config-automatic-reload"];
    let mut server = Server::started(&data, &flags).await;
    let door = server.door();
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |name: &str| json!({"metadata": {"name": name}, "stringData": {"password": "canary"}});
    door.create(secrets, secret("first")).await;
    assert!(kept(&data, "k8s:enc:aescbc:v1:old:") && !kept(&data, "canary") && !kept(&data, "Y2FuYXJ5"));
    let snapshot = home.path().join("snapshot");
    told(&["snapshot", "save", text(&snapshot), "--data-dir", text(&data)]);

    // A file that is none changes nothing, and says so.
    let broken = config.with_extension("broken");
    std::fs::write(&broken, "kind: Nonsense").unwrap();
    std::fs::rename(&broken, &config).unwrap();
    server.has_said("error processing encryption config file").await;
    door.create(secrets, secret("second")).await;
    assert!(!kept(&data, "k8s:enc:aescbc:v1:new:"));

    configure(&config, &[NEW, OLD]);
    server.has_said("Loaded new kms encryption config content").await;
    // Counted right after it is said.
    let until = Instant::now() + Duration::from_secs(10);
    for status in ["failure", "success"] {
        let counted = |metrics: String| {
            metrics.lines().any(|line| {
                line.starts_with("apiserver_encryption_config_controller_automatic_reloads_total{")
                    && line.contains(&format!("status=\"{status}\""))
            })
        };
        while !counted(door.raw("/metrics").await.1) {
            assert!(Instant::now() < until, "no {status} is counted");
        }
    }
    // Written as it is, it is written anew.
    let object = door.get(&format!("{secrets}/first")).await;
    let (code, again, _) = door.insist(Method::PUT, &format!("{secrets}/first"), &object).await;
    assert_eq!(code, 200);
    assert_ne!(again["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    assert!(kept(&data, "k8s:enc:aescbc:v1:new:"));
    let (code, same, _) = door.insist(Method::PUT, &format!("{secrets}/first"), &again).await;
    assert_eq!((code, same), (200, again), "once");
    server.stop();

    // Without the old key, what has been written anew is read, and what has not fails alone.
    configure(&config, &[NEW]);
    let mut server = Server::started(&data, &flags).await;
    let door = server.door();
    assert_eq!(door.get(&format!("{secrets}/first")).await["data"]["password"], "Y2FuYXJ5");
    assert_eq!(door.raw(&format!("{secrets}/second")).await.0, 500);
    door.get("/api/v1/configmaps").await;
    server.stop();

    // The snapshot was made with the old key: it takes the old key to look at its secrets.
    let look = |keys: &[(&str, &str)]| {
        configure(&config, keys);
        [&flags[..2], &["--snapshot", text(&snapshot)]].concat()
    };
    let mut server = Server::started(&data, &look(&[NEW, OLD])).await;
    assert_eq!(server.door().get(&format!("{secrets}/first")).await["data"]["password"], "Y2FuYXJ5");
    assert_eq!(server.door().raw(&format!("{secrets}/second")).await.0, 404, "it was not there yet");
    server.stop();
    let mut server = Server::started(&data, &look(&[NEW])).await;
    assert_eq!(server.door().raw(&format!("{secrets}/first")).await.0, 500);
    server.door().get("/api/v1/configmaps").await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_what_is_printed_may_stop() {
    pki::tls::install_provider();
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    Server::started(&data, &[]).await.stop();
    let snapshot = home.path().join("snapshot");
    assert!(told(&["snapshot", "save", text(&snapshot), "--data-dir", text(&data)]).contains("revision"));
    for arguments in [
        &["snapshot", "inspect", text(&snapshot)][..],
        &["store", "verify", "--data-dir", text(&data)],
        &["kubeconfig", "--data-dir", text(&data)],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiphys"));
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && complaint.is_empty(),
            "{arguments:?}: {}: {complaint}",
            output.status
        );
    }
}

/// A file system of its own, that can be made to stand still.
struct Disk {
    mount: std::path::PathBuf,
}

impl Disk {
    fn mounted(home: &Path) -> Self {
        let (image, mount) = (home.join("image"), home.join("mount"));
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", text(&image)]);
        run("mount", &["-o", "loop", text(&image), text(&mount)]);
        Disk { mount }
    }

    fn freeze(&self) {
        run("fsfreeze", &["-f", text(&self.mount)]);
    }

    fn thaw(&self) {
        run("fsfreeze", &["-u", text(&self.mount)]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Thawed already, unless the test failed: only then is there something to do.
        let _ = Command::new("fsfreeze").args(["-u", text(&self.mount)]).stderr(Stdio::null()).status();
        run("umount", &["-l", text(&self.mount)]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_frozen_disk_turns_readiness_red_and_keeps_nobody_waiting() {
    pki::tls::install_provider();
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::mounted(home.path());
    let mut server = Server::started(&disk.mount.join("data"), &[]).await;
    let door = server.door();
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str| json!({"metadata": {"name": name}});
    door.create(maps, map("before")).await;
    disk.freeze();
    let frozen = Instant::now();
    let writing = tokio::spawn({
        let (door, map) = (door.clone(), map("during"));
        async move {
            let begun = Instant::now();
            let answer = door.raw_within(Method::POST, maps, map, Duration::from_secs(20)).await;
            (answer, begun.elapsed())
        }
    });
    // Asked as a load balancer does.
    let red = loop {
        let (code, _) = door.raw("/readyz").await;
        if code != 200 {
            break frozen.elapsed();
        }
        assert!(frozen.elapsed() < Duration::from_secs(30), "readiness stays green");
    };
    assert!(red <= Duration::from_secs(5), "readiness turned red after {red:?}");
    // Reads go on.
    assert_eq!(door.raw(&format!("{maps}/before")).await.0, 200);
    let ((code, answer), took) = writing.await.unwrap();
    assert_eq!(code, 504, "{answer}");
    assert!(answer.contains("request did not complete within the allotted timeout"), "{answer}");
    assert!((9..13).contains(&took.as_secs()), "the write was answered after {took:?}");
    disk.thaw();
    let until = Instant::now() + Duration::from_secs(10);
    while door.raw("/readyz").await.0 != 200 {
        assert!(Instant::now() < until, "readiness stays red");
    }
    let (code, made) = door.raw_within(Method::POST, maps, map("after"), Duration::from_secs(5)).await;
    assert_eq!(code, 201, "{made}");
    println!("red after {red:?}, the write answered after {took:?}");
    server.stop();
}
