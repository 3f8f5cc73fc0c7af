//! What containers and pods are beside their usual lives: all containers start anew, variables come from files, sysctls
//! are refused, images are shown credentials for.

use crate::{Node, container, now};
use apimachinery::json;
use apimachinery::value::Value;
use base64::Engine as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_all_containers_start_anew() {
    let mut node = Node::new();
    let mut source = container("a");
    source["restartPolicy"] = json!("Never");
    source["restartPolicyRules"] =
        json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } }]);
    node.create("web", json!({ "restartPolicy": "Never", "initContainers": [container("i")], "containers": [source, container("b")] }));
    let run = |n: &Node, name: &str, code: i32| {
        n.runtime.set_now(now());
        n.runtime.exit(&n.runtime.container_named(name).unwrap(), code);
    };
    node.until("the init container runs", |n| n.runtime.container_named("i").is_some()).await;
    node.until("it is shown", |n| {
        let pod = n.api.pod("web").unwrap();
        pod.status.init_container_statuses.first().is_some_and(|s| s.state.running.is_some())
    })
    .await;
    run(&node, "i", 0);
    node.until("ready", |n| n.ready("web")).await;
    let sandbox = node.runtime.sandboxes().into_keys().next().unwrap();
    let before: Vec<String> = node.runtime.containers().into_keys().collect();
    run(&node, "a", 42);
    node.until("the init container runs again", |n| {
        n.runtime.container_named("i").is_some_and(|id| !before.contains(&id))
    })
    .await;
    node.until("what is gone says why", |n| {
        let pod = n.api.pod("web").unwrap();
        pod.status.container_statuses.iter().all(|status| {
            status.last_state.terminated.as_ref().is_some_and(|t| t.reason == "RestartingAllContainers")
                && status.restart_count == 1
        })
    })
    .await;
    assert!(before.iter().all(|id| !node.runtime.containers().contains_key(id)), "nothing old is left");
    run(&node, "i", 0);
    node.until("ready again", |n| n.ready("web")).await;
    assert_eq!(node.runtime.sandboxes().into_keys().collect::<Vec<_>>(), [sandbox], "in the same sandbox");
    let pod = node.api.pod("web").unwrap();
    let condition = pod.status.conditions.iter().find(|c| c.type_ == "AllContainersRestarting").unwrap();
    assert_eq!(condition.status, "False");
    let restarts = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    assert_eq!(restarts.map(|s| s.restart_count).collect::<Vec<_>>(), [1, 1, 1]);
    // Another code is a plain failure.
    run(&node, "a", 1);
    run(&node, "b", 0);
    node.until("failed", |n| n.phase("web") == "Failed").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_a_replaced_container_leaves_its_pod_ready() {
    let mut node = Node::new();
    node.create("web", json!({ "restartPolicy": "Always", "containers": [container("a"), container("b")] }));
    node.until("ready", |n| n.ready("web")).await;
    let mut changes = node.api.changes.subscribe();
    node.runtime.set_now(now());
    let changed = node.api.edit("/api/v1/namespaces/default/pods/web", |mut pod| {
        pod["spec"]["containers"][0]["image"] = json!("another");
        pod
    });
    assert!(changed.is_some());
    node.until("replaced", |n| {
        let statuses = n.api.pod("web").unwrap().status.container_statuses;
        statuses.iter().map(|s| s.restart_count).eq([1, 0]) && n.ready("web")
    })
    .await;
    while let Ok((path, pod, _)) = changes.try_recv() {
        if path.ends_with("/pods/web") {
            let conditions = pod["status"]["conditions"].as_array().unwrap();
            let ready = conditions.iter().filter(|c| c["type"] == "Ready" || c["type"] == "ContainersReady");
            assert!(ready.into_iter().all(|c| c["status"] == "True"), "{pod:#}");
        }
    }
    node.stop().await;
}

fn variable(name: &str, key: &str, optional: bool) -> Value {
    let reference = json!({ "volumeName": "v", "path": "dir/env", "key": key, "optional": optional });
    json!({ "name": name, "valueFrom": { "fileKeyRef": reference } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_reads_variables_from_files() {
    let mut node = Node::new();
    let mut web = container("a");
    web["env"] =
        json!([variable("X", "KEY", false), variable("Y", "OTHER", true), { "name": "Z", "value": "$(X)!" }]);
    node.create("web", json!({ "restartPolicy": "Always", "volumes": [{ "name": "v", "emptyDir": {} }], "initContainers": [container("i")], "containers": [web] }));
    node.until("the init container is shown", |n| {
        let pod = n.api.pod("web").unwrap();
        pod.status.init_container_statuses.first().is_some_and(|s| s.state.running.is_some())
    })
    .await;
    let uid = node.api.pod("web").unwrap().metadata.uid;
    let volume = node.dir.path().join(format!("kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/v"));
    std::fs::create_dir(volume.join("dir")).unwrap();
    // A link out of the volume leads nowhere.
    std::fs::write(node.dir.path().join("secret"), "KEY='stolen'").unwrap();
    std::os::unix::fs::symlink(node.dir.path().join("secret"), volume.join("dir/env")).unwrap();
    node.runtime.set_now(now());
    node.runtime.exit(&node.runtime.container_named("i").unwrap(), 0);
    let waiting = |n: &Node| {
        let pod = n.api.pod("web")?;
        pod.status
            .container_statuses
            .first()?
            .state
            .waiting
            .as_ref()
            .map(|w| format!("{}: {}", w.reason, w.message))
    };
    node.until("refused", |n| {
        waiting(n).as_deref() == Some("CreateContainerConfigError: couldn't parse env file")
    })
    .await;
    std::fs::remove_file(volume.join("dir/env")).unwrap();
    std::fs::write(volume.join("dir/env"), "# made by i\nKEY='a b'\n").unwrap();
    node.until("ready", |n| n.ready("web")).await;
    let id = node.runtime.container_named("a").unwrap();
    let made = node.runtime.containers()[&id].config.clone();
    let env = |key: &str| {
        made.envs.iter().find(|e| e.key == key).map(|e| String::from_utf8_lossy(&e.value).into_owned())
    };
    assert_eq!([env("X"), env("Y"), env("Z")], [Some("a b".into()), None, Some("a b!".into())]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_refuses_unsafe_sysctls() {
    let mut node = Node::with(|config| config.allowed_unsafe_sysctls = vec!["kernel.msg*".into()]);
    let with = |name: &str| json!({ "restartPolicy": "Never", "securityContext": { "sysctls": [{ "name": name, "value": "1" }] }, "containers": [container("a")] });
    node.create("web", with("kernel.sem"));
    node.create("two", with("kernel.msgmax"));
    node.until("refused", |n| n.phase("web") == "Failed").await;
    let status = node.api.pod("web").unwrap().status;
    assert_eq!(
        (status.reason.as_str(), status.message.as_str()),
        ("SysctlForbidden", "Pod was rejected: forbidden sysctl: \"kernel.sem\" not allowlisted")
    );
    node.until("allowed", |n| n.ready("two")).await;
    node.stop().await;
}

/// A pod that pulls with a Secret, or none.
fn pulls(secret: Option<&str>, policy: &str) -> Value {
    let mut one = container("a");
    one["image"] = json!("r.io/private:1");
    one["imagePullPolicy"] = json!(policy);
    let secrets: Vec<Value> = secret.into_iter().map(|name| json!({ "name": name })).collect();
    json!({ "restartPolicy": "Never", "imagePullSecrets": secrets, "containers": [one] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_shows_credentials_for_images_that_are_there() {
    let mut node = Node::new();
    let login = json!({ "auths": { "r.io": { "username": "u", "password": "p" } } }).to_string();
    let login = base64::engine::general_purpose::STANDARD.encode(login);
    let secret = json!({ "metadata": { "name": "login", "namespace": "default" }, "type": "kubernetes.io/dockerconfigjson", "data": { ".dockerconfigjson": login } });
    node.api.put("/api/v1/namespaces/default/secrets/login", secret);
    node.create("web", pulls(Some("login"), "IfNotPresent"));
    node.until("ready", |n| n.ready("web")).await;
    let pulled = |n: &Node| n.runtime.calls().iter().filter(|call| call.starts_with("pull_image")).count();
    assert_eq!(pulled(&node), 1);
    node.create("two", pulls(Some("login"), "Never"));
    node.until("who has the Secret uses it", |n| n.ready("two")).await;
    node.stop().await;
    node.start();
    node.create("three", pulls(None, "Never"));
    let reason = |n: &Node| {
        let pod = n.api.pod("three")?;
        pod.status.container_statuses.first()?.state.waiting.as_ref().map(|w| w.reason.clone())
    };
    node.until("who has none does not", |n| reason(n).as_deref() == Some("ErrImageNeverPull")).await;
    node.create("four", pulls(None, "IfNotPresent"));
    node.until("the registry decides", |n| n.ready("four")).await;
    assert_eq!(pulled(&node), 2);
    let records = std::fs::read_dir(node.dir.path().join("kubelet/image_manager/pulled")).unwrap();
    let record = std::fs::read_to_string(records.flatten().next().unwrap().path()).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["kind"], "ImagePulledRecord");
    assert_eq!(record["credentialMapping"], json!({ "r.io/private": { "nodePodsAccessible": true } }));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_critical_pods_make_room() {
    let mut node = Node::with(|config| config.max_pods = 2);
    let spec = |name: &str, priority: i64| json!({ "restartPolicy": "Always", "priority": priority, "terminationGracePeriodSeconds": 0, "containers": [container(name)] });
    node.create("web", spec("a", 0));
    node.create("two", spec("b", 2_000_001_000));
    node.until("both run", |n| n.ready("web") && n.ready("two")).await;
    node.create("plain", spec("c", 0));
    node.until("no room for another", |n| n.phase("plain") == "Failed").await;
    assert_eq!(node.api.pod("plain").unwrap().status.reason, "OutOfpods");
    node.create("three", spec("d", 2_000_001_000));
    node.until("room is made", |n| n.ready("three")).await;
    // Who knows that it has ended need not wait until the API does.
    node.until("it is told", |n| n.phase("web") == "Failed").await;
    let status = node.api.pod("web").unwrap().status;
    assert_eq!(
        (status.phase.as_str(), status.reason.as_str(), status.message.as_str()),
        ("Failed", "Preempting", "Preempted in order to admit critical pod")
    );
    assert!(
        status.conditions.iter().any(|c| c.type_ == "DisruptionTarget" && c.reason == "TerminationByKubelet")
    );
    assert!(node.ready("two"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_sandboxes_that_die_are_stopped_and_forgotten() {
    let mut node = Node::with(|config| {
        let little = std::time::Duration::from_secs(1);
        (config.restart_initial, config.restart_most) = (little, little);
    });
    node.create("web", json!({ "containers": [container("a")] }));
    node.until("ready", |n| n.ready("web")).await;
    let mut made: Vec<String> = node.runtime.sandboxes().into_keys().collect();
    for round in 1..=3 {
        node.runtime.set_now(now());
        let dead = made.last().unwrap().clone();
        node.runtime.kill_sandbox(&dead);
        node.until("another sandbox", |n| n.runtime.sandboxes().keys().any(|id| !made.contains(id))).await;
        made.extend(node.runtime.sandboxes().into_keys().filter(|id| !made.contains(id)).collect::<Vec<_>>());
        node.until("ready again", |n| {
            n.ready("web") && n.api.pod("web").unwrap().status.container_statuses[0].restart_count == round
        })
        .await;
        let calls = node.runtime.take_calls();
        assert!(calls.contains(&format!("stop_pod_sandbox {dead}")), "its network is given back: {calls:?}");
        let failed = |event: &String| event.starts_with("Failed");
        assert!(!node.api.events().iter().any(failed), "{:?}", node.api.events());
    }
    // Of the last run before this there is something to be read; of those before it, nothing: they go after it is told.
    node.until("the first is forgotten", |n| !n.runtime.sandboxes().contains_key(&made[0])).await;
    let left: Vec<String> = node.runtime.sandboxes().into_keys().collect();
    assert!(
        !left.contains(&made[0]) && left.contains(&made[2]) && left.contains(&made[3]),
        "{made:?} {left:?}"
    );
    node.stop().await;
}
