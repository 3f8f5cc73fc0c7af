//! Real programs: shell scripts that answer, and count how often they were asked.

use super::*;
use apimachinery::json;
use apimachinery::value::Value;
use bytes::Bytes;
use client::Transport;
use client::transport::ResponseBody;
use expect_test::{Expect, expect};
use futures::FutureExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// An API server with one service account, whose tokens are numbered.
#[derive(Default)]
struct Accounts(std::sync::atomic::AtomicU32);

impl Transport for Accounts {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> futures::future::BoxFuture<'static, Result<Response<ResponseBody>, client::Error>> {
        let path = request.uri().path().to_owned();
        let (code, answer) = if path.ends_with("/serviceaccounts/robot/token") {
            let asked: Value = serde_json::from_slice(request.body()).unwrap();
            assert_eq!(asked["spec"]["boundObjectRef"]["uid"], asked["spec"]["boundObjectRef"]["name"]);
            assert_eq!(
                (&asked["spec"]["audiences"], &asked["metadata"]["uid"]),
                (&json!(["r.io"]), &json!("7"))
            );
            let number = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            (
                201,
                json!({ "status": { "token": format!("token-{number}"), "expirationTimestamp": "2099-01-01T00:00:00Z" } }),
            )
        } else if path.ends_with("/serviceaccounts/robot") {
            let annotations = json!({ "role": "pull", "other": "x", "more": "y" });
            (
                200,
                json!({ "metadata": { "name": "robot", "namespace": "ns", "uid": "7", "annotations": annotations } }),
            )
        } else {
            (
                404,
                json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": format!("{path} not found") }),
            )
        };
        let body = Full::new(Bytes::from(answer.to_string())).map_err(|never| match never {}).boxed_unsync();
        async move { Ok(Response::builder().status(code).body(body).unwrap()) }.boxed()
    }
}

struct Room {
    dir: tempfile::TempDir,
    client: Client,
    metrics: Metrics,
}

impl Room {
    fn new() -> Self {
        let client = Client::new(Arc::new(Accounts::default()), "kubelet");
        Room { dir: tempfile::tempdir().unwrap(), client, metrics: Metrics::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program that notes what it is asked and then does as it is told.
    fn program(&self, name: &str, script: &str) {
        let asked = self.path("asked");
        let text =
            format!("#!/bin/sh\nread -r request; echo \"$request\" >> {}\n{script}\n", asked.display());
        std::fs::create_dir_all(self.path("bin")).unwrap();
        std::fs::write(self.path("bin").join(name), text).unwrap();
        std::fs::set_permissions(self.path("bin").join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// One that answers.
    fn answers(&self, name: &str, answer: &str) {
        self.program(name, &format!("cat <<END\n{answer}\nEND"));
    }

    fn load(&self, config: &Path) -> Result<Providers, String> {
        let flags = CredentialProviders { config: Some(config.into()), bin_dir: Some(self.path("bin")) };
        Providers::load(&flags, &self.client, &self.metrics)
    }

    fn providers(&self, yaml: &str) -> Result<Providers, String> {
        let path = self.path("config.yaml");
        std::fs::write(&path, format!("{HEAD}{yaml}")).unwrap();
        self.load(&path)
    }

    fn asked(&self) -> String {
        std::fs::read_to_string(self.path("asked")).unwrap_or_default()
    }
}

const HEAD: &str = "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\n";
const ANSWER: &str =
    "\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\"";

fn pod(name: &str, account: &str) -> Pod {
    let pod = json!({ "metadata": { "name": name, "namespace": "ns", "uid": name }, "spec": { "serviceAccountName": account } });
    apimachinery::value::from_value(pod).unwrap()
}

async fn names(providers: &Providers, pod: &Pod, image: &str) -> String {
    let found = providers.lookup(pod, image).await;
    let shown = found.into_iter().map(|credential| {
        let of = match credential.source {
            crate::images::keyring::Source::Account(account) => format!("@{}/{}", account.name, account.uid),
            _ => String::new(),
        };
        format!("{}:{}{of}", credential.auth.username, credential.auth.password)
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn one(more: &str) -> String {
    format!(
        "providers: [{{name: a, apiVersion: credentialprovider.kubelet.k8s.io/v1, matchImages: ['*.r.io'], defaultCacheDuration: 0s{more}}}]"
    )
}

#[tokio::test]
async fn a_program_is_asked_once_as_long_as_its_answer_holds() {
    for (kind, duration, asked) in [
        ("Image", "\"1h\"", 3),
        ("Registry", "\"1h\"", 2),
        ("Global", "\"1h\"", 1),
        ("Global", "\"0s\"", 4),
        ("Global", "null", 4),
    ] {
        let room = Room::new();
        let answer = format!(
            "{{{ANSWER},\"cacheKeyType\":\"{kind}\",\"cacheDuration\":{duration},\"auth\":{{\"*.r.io\":{{\"username\":\"u\",\"password\":\"$SECRET$1\"}}}}}}"
        );
        room.answers("a", &answer);
        let providers = room.providers(&one(", args: [x], env: [{name: SECRET, value: s}]")).unwrap();
        for image in ["a.r.io/x", "a.r.io/y", "b.r.io/x", "a.r.io/x", "other.io/x", "r.io/x"] {
            let want = if image.ends_with(".r.io/x") || image.ends_with(".r.io/y") { "u:sx" } else { "" };
            assert_eq!(names(&providers, &pod("p", "robot"), image).await, want, "{image}");
        }
        assert_eq!(room.asked().lines().count(), asked, "{kind} {duration}");
        let first = r#"{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"a.r.io/x"}"#;
        assert_eq!(room.asked().lines().next(), Some(first));
    }
}

#[tokio::test]
async fn answers_grow_old() {
    let room = Room::new();
    room.answers("a", &format!("{{{ANSWER},\"cacheKeyType\":\"Global\",\"auth\":{{}}}}"));
    let yaml = one("").replace("defaultCacheDuration: 0s", "defaultCacheDuration: 10s");
    let providers = room.providers(&yaml).unwrap();
    let mut asked = Vec::new();
    for wait in [0, 9, 2, 3600] {
        // Programs run in real time, however far the clock was moved.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(wait)).await;
        tokio::time::resume();
        names(&providers, &pod("p", ""), "a.r.io/x").await;
        asked.push(room.asked().lines().count());
    }
    assert_eq!(asked, [1, 1, 2, 3]);
}

#[tokio::test]
async fn who_asks_the_same_at_the_same_time_waits_for_one_answer() {
    let room = Room::new();
    let gate = room.path("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let answer = format!(
        "{{{ANSWER},\"cacheKeyType\":\"Image\",\"auth\":{{\"a.r.io\":{{\"username\":\"u\",\"password\":\"p\"}}}}}}"
    );
    room.program("a", &format!("read -r _ < {}; cat <<END\n{answer}\nEND", gate.display()));
    let providers = room.providers(&one("")).unwrap();
    let pod = pod("p", "");
    let opens = tokio::task::spawn_blocking(move || std::fs::write(gate, "go\n").unwrap());
    let (a, b) = tokio::join!(names(&providers, &pod, "a.r.io/x"), names(&providers, &pod, "a.r.io/x"));
    opens.await.unwrap();
    assert_eq!((a.as_str(), b.as_str(), room.asked().lines().count()), ("u:p", "u:p", 1));
}

#[tokio::test]
async fn tokens_of_service_accounts() {
    let attributes = |cache: &str, more: &str| {
        one(&format!(
            ", tokenAttributes: {{serviceAccountTokenAudience: r.io, cacheType: {cache}, requireServiceAccount: true{more}}}"
        ))
    };
    let keys = ", requiredServiceAccountAnnotationKeys: [role], optionalServiceAccountAnnotationKeys: [other, absent]";
    let answer = format!(
        "{{{ANSWER},\"cacheKeyType\":\"Global\",\"cacheDuration\":\"1h\",\"auth\":{{\"a.r.io\":{{\"username\":\"u\",\"password\":\"p\"}}}}}}"
    );
    let room = Room::new();
    room.answers("a", &answer);
    let providers = room.providers(&attributes("ServiceAccount", keys)).unwrap();
    for (name, account, want) in
        [("p", "robot", "u:p@robot/7"), ("q", "robot", "u:p@robot/7"), ("r", "", ""), ("s", "nobody", "")]
    {
        assert_eq!(names(&providers, &pod(name, account), "a.r.io/x").await, want, "{name}");
    }
    expect![[r#"
        {"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"a.r.io/x","serviceAccountToken":"token-0","serviceAccountAnnotations":{"other":"x","role":"pull"}}
    "#]]
    .assert_eq(&room.asked());

    // With a token's answer for that token alone, each pod's is another.
    let room = Room::new();
    room.answers("a", &answer);
    let providers = room.providers(&attributes("Token", "")).unwrap();
    for name in ["p", "p", "q"] {
        assert_eq!(names(&providers, &pod(name, "robot"), "a.r.io/x").await, "u:p@robot/7");
    }
    assert_eq!(room.asked().lines().count(), 2);

    // Who lacks the annotation has not asked for it.
    let room = Room::new();
    room.answers("a", &answer);
    let lacking = attributes("Token", ", requiredServiceAccountAnnotationKeys: [lacking]");
    let providers = room.providers(&lacking).unwrap();
    assert_eq!(names(&providers, &pod("p", "robot"), "a.r.io/x").await, "");
    assert_eq!(room.asked(), "");

    // A token that comes back is the pod's own.
    let room = Room::new();
    let back = answer.replace("\"p\"}", "\"token-0\"}");
    room.answers("a", &back);
    let providers = room.providers(&attributes("ServiceAccount", "")).unwrap();
    assert_eq!(names(&providers, &pod("p", "robot"), "a.r.io/x").await, "");
    assert_eq!(room.asked().lines().count(), 1);
}

#[tokio::test]
async fn what_programs_do_wrong() {
    let ok = format!("{{{ANSWER},\"cacheKeyType\":\"Global\",\"auth\":{{}}}}");
    for (script, want) in [
        (
            "echo no >&2; exit 3",
            expect![
                "failed to get credential from external registry credential provider: error execing credential provider plugin a for image a.r.io/x: exit status 3: no\n"
            ],
        ),
        (
            "kill -9 $$",
            expect![
                "failed to get credential from external registry credential provider: error execing credential provider plugin a for image a.r.io/x: signal: killed: "
            ],
        ),
        (
            "echo hello",
            expect![
                "failed to get credential from external registry credential provider: error reading GVK from response: couldn't get version/kind; json parse error"
            ],
        ),
        (
            &format!("echo '{}'", ok.replace("/v1", "/v1beta1")),
            expect![
                "failed to get credential from external registry credential provider: apiVersion from credential plugin response did not match expected apiVersion:credentialprovider.kubelet.k8s.io/v1, actual apiVersion:credentialprovider.kubelet.k8s.io/v1beta1"
            ],
        ),
        (
            &format!("echo '{}'", ok.replace("\"auth\"", "\"secret\"")),
            expect![
                "failed to get credential from external registry credential provider: error decoding credential provider plugin response from stdout"
            ],
        ),
        (
            &format!("echo '{}'", ok.replace("Global", "World")),
            expect!["credential provider plugin did not return a valid cacheKeyType: World"],
        ),
    ] as [(&str, Expect); 6]
    {
        let room = Room::new();
        room.program("a", script);
        let providers = room.providers(&one("")).unwrap();
        want.assert_eq(&providers.0[0].provide(&pod("p", ""), "a.r.io/x").await.unwrap_err());
    }
    let room = Room::new();
    room.program("a", "exit 1");
    let providers = room.providers(&one("")).unwrap();
    names(&providers, &pod("p", ""), "a.r.io/x").await;
    let text = room.metrics.registry.render();
    assert!(
        text.contains("kubelet_credential_provider_plugin_errors_total{plugin_name=\"a\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("kubelet_credential_provider_plugin_duration_count{plugin_name=\"a\"} 1\n"),
        "{text}"
    );
    assert!(text.contains("kubelet_credential_provider_config_info{hash=\"sha256:"), "{text}");
}

#[test]
fn configurations() {
    let room = Room::new();
    room.program("a", "");
    std::fs::write(room.path("bin/plain"), "").unwrap();
    let bin = room.path("bin").display().to_string();
    let file = room.path("config.yaml").display().to_string();
    let check = |yaml: &str, expected: Expect| {
        let told = match room.providers(yaml) {
            Ok(providers) => format!("{} accepted", providers.0.len()),
            Err(error) => error.replace(&bin, "BIN").replace(&file, "FILE"),
        };
        expected.assert_eq(&told);
    };
    check(&one(""), expect!["1 accepted"]);
    check(
        "providers: []",
        expect![
            "failed to validate credential provider config: providers: Required value: at least 1 item in plugins is required"
        ],
    );
    check(
        "providers: [{name: ..}]",
        expect![[
            r#"failed to validate credential provider config: [providers.name: Invalid value: "..": provider name cannot be '..', providers.apiVersion: Required value, providers.matchImages: Required value: at least 1 item in matchImages is required, providers.defaultCacheDuration: Required value]"#
        ]],
    );
    check(
        &one("").replace("k8s.io/v1,", "k8s.io/v2,").replace("0s", "-1s"),
        expect![[
            r#"failed to validate credential provider config: [providers.apiVersion: Unsupported value: "credentialprovider.kubelet.k8s.io/v2": supported values: "credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v1alpha1", "credentialprovider.kubelet.k8s.io/v1beta1", providers.defaultCacheDuration: Invalid value: -1s: must be greater than or equal to 0]"#
        ]],
    );
    check(
        &one("").replace("*.r.io", "r.io:x"),
        expect![[
            r#"failed to validate credential provider config: providers.matchImages: Invalid value: "r.io:x": match image is invalid: parse "https://r.io:x": invalid port ":x" after host"#
        ]],
    );
    check(
        &one(
            ", tokenAttributes: {requiredServiceAccountAnnotationKeys: [a/b/c, b], optionalServiceAccountAnnotationKeys: [b, b]}",
        ),
        expect![[
            r#"failed to validate credential provider config: [providers.tokenAttributes.serviceAccountTokenAudience: Required value, providers.tokenAttributes.requireServiceAccount: Required value, providers.tokenAttributes.requiredServiceAccountAnnotationKeys: Invalid value: "a/b/c": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName'), providers.tokenAttributes.optionalServiceAccountAnnotationKeys: Duplicate value: "b", providers.tokenAttributes: Invalid value: ["b"]: annotation keys cannot be both required and optional, providers.tokenAttributes.cacheType: Required value: cacheType is required to be set when tokenAttributes is specified. Supported values are: ServiceAccount, Token]"#
        ]],
    );
    check(
        &one("").replace("name: a", "name: absent"),
        expect!["plugin binary executable BIN/absent did not exist"],
    );
    check(
        &one("").replace("name: a", "name: plain"),
        expect!["error inspecting binary executable BIN/plain: Permission denied (os error 13)"],
    );
    check(
        &one(", colour: red"),
        expect![[
            r#"error decoding config "FILE": strict decoding error: unknown field `colour`, expected one of `name`, `matchImages`, `defaultCacheDuration`, `apiVersion`, `args`, `env`, `tokenAttributes`"#
        ]],
    );

    let dir = room.path("many");
    std::fs::create_dir(&dir).unwrap();
    let empty = room.load(&dir).err().unwrap();
    assert!(empty.starts_with("no configuration files found in directory"), "{empty}");
    room.program("b", "");
    let two = one("").replace("name: a", "name: b");
    std::fs::write(dir.join("1.yml"), format!("{HEAD}{two}")).unwrap();
    std::fs::write(dir.join("0.yaml"), format!("{HEAD}{}", one(""))).unwrap();
    std::fs::write(dir.join("notes.txt"), "not read").unwrap();
    let both = room.load(&dir).unwrap();
    assert_eq!(both.0.iter().map(|provider| provider.name()).collect::<Vec<_>>(), ["a", "b"]);
    std::fs::write(dir.join("2.json"), format!("{HEAD}{two}")).unwrap();
    assert_eq!(
        room.load(&dir).err().unwrap(),
        "duplicate provider name \"b\" found in configuration file(s)"
    );
    let none = CredentialProviders { config: Some(dir), bin_dir: Some("/nowhere".into()) };
    let error = Providers::load(&none, &room.client, &room.metrics).err().unwrap();
    assert_eq!(error, "plugin binary directory /nowhere did not exist");
}
