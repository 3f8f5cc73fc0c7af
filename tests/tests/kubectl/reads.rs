//! Looking: get, describe, explain, events, wait.

use super::{has, head};
use cluster_tests::Room;
use cluster_tests::manifests::{service, shell, web};

pub(crate) fn get(room: &Room) {
    let k = &room.kubectl;
    k.apply(&(web("web", 2) + &service("web", "") + &shell("lone", "")));
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    k.wait("condition=Ready", "pod/lone");
    assert_eq!(head(&k.run("get pods")), ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    let wide = k.run("get pods -o wide");
    assert_eq!(
        head(&wide),
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    );
    assert_eq!(
        wide.lines()
            .filter(|line| line.contains("1/1") && line.contains("Running") && line.contains("helm"))
            .count(),
        3
    );
    assert_eq!(
        head(&k.run("get deployment -o wide")),
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    );
    assert_eq!(head(&k.run("get rs")), ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]);
    assert_eq!(head(&k.run("get svc")), ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    assert_eq!(head(&k.run("get nodes")), ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
    has(&k.run("get all"), &["pod/lone", "service/web", "deployment.apps/web", "replicaset.apps/web-"]);
    has(&k.run("get pod/lone svc/web -o name"), &["pod/lone\nservice/web"]);
    has(
        &k.run("get pod lone -o yaml"),
        &["apiVersion: v1\nkind: Pod\n", "  name: lone\n", "  phase: Running\n"],
    );
    assert_eq!(k.json("pod lone")["kind"], "Pod");
    assert_eq!(k.json("pods")["items"].as_array().unwrap().len(), 3);
    assert_eq!(k.field("deployment web", ".status.readyReplicas"), "2");
    assert_eq!(
        k.run("get pods --sort-by=.metadata.name -o 'custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[0].image' -l app=lone"),
        "NAME   IMAGE\nlone   localhost/busybox:debian12"
    );
    assert_eq!(k.run("get pod lone -o 'go-template={{.spec.nodeName}}'"), "helm");
    has(&k.run("get pods -L app --show-labels"), &["APP", "LABELS", "pod-template-hash="]);
    for (selector, count) in [
        ("-l app=web", 2),
        ("-l 'app in (web, lone)'", 3),
        ("-l 'app notin (web)'", 1),
        ("-l '!pod-template-hash'", 1),
        ("-l app!=web,app", 1),
        ("--field-selector metadata.name=lone", 1),
        ("--field-selector status.phase=Running,spec.nodeName=helm", 3),
        ("--field-selector status.phase!=Running", 0),
    ] {
        let found = k.run(&format!("get pods --no-headers --ignore-not-found {selector} -o name"));
        assert_eq!(found.lines().count(), count, "{selector}: {found}");
    }
    assert_eq!(k.refused("get pod absent"), "Error from server (NotFound): pods \"absent\" not found");
    assert_eq!(k.refused("get nonsense"), "error: the server doesn't have a resource type \"nonsense\"");
    has(
        &k.refused("get pods --field-selector spec.colour=red"),
        &["Error from server (BadRequest)", "field label not supported: spec.colour"],
    );
    assert_eq!(k.run("get jobs"), format!("No resources found in {} namespace.", k.namespace));
    // Pages, of which the user sees nothing.
    assert_eq!(k.run("get pods --chunk-size=1 -o name").lines().count(), 3);
    has(&k.run("get --raw /readyz"), &["ok"]);
    has(&k.run("get pods -A"), &["NAMESPACE", &k.namespace]);
}

pub(crate) fn watch(room: &Room) {
    let k = &room.kubectl;
    k.apply(&shell("before", ""));
    k.wait("condition=Ready", "pod/before");
    let mut pods = k.start("get pods --watch");
    pods.line("before");
    k.apply(&shell("after", ""));
    for status in ["Pending", "ContainerCreating", "Running"] {
        let line = pods.line(status);
        assert!(line.starts_with("after"), "{line}");
    }
    let mut kinds = k.start("get pods --watch-only --output-watch-events");
    let mut labels = k.start("get pods -l app=after --watch -o name");
    labels.line("pod/after");
    k.run("label pod after app=other --overwrite");
    let changed = labels.line("pod/after");
    assert_eq!(changed, "pod/after");
    kinds.line("MODIFIED");
    k.run("delete pod before");
    kinds.line("DELETED");
}

pub(crate) fn describe(room: &Room) {
    let k = &room.kubectl;
    k.run("create configmap chart --from-literal=course=north");
    k.run("create secret generic key --from-literal=password=fleece");
    let more = "volumes: [{name: chart, configMap: {name: chart}}]";
    let pod = shell("lone", more).replace("[sleep, infinity]", "[sleep, infinity]\n    env: [{name: KEY, valueFrom: {secretKeyRef: {name: key, key: password}}}]\n    volumeMounts: [{name: chart, mountPath: /chart}]\n    resources: {requests: {cpu: 10m}, limits: {memory: 32Mi}}");
    k.apply(&(web("web", 1) + &service("web", "") + &pod));
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    k.wait("condition=Ready", "pod/lone");
    k.event("lone", "Started");
    let pod = k.run("describe pod lone");
    has(
        &pod,
        &[
            "Name:             lone\n",
            "Node:             helm/192.0.2.10\n",
            "Status:           Running\n",
            &format!("    Container ID:  {}://", room.cluster.engine()),
            "    State:          Running\n",
            "    Restart Count:  0\n",
            "      KEY:  <set to the key 'password' in secret 'key'>  Optional: false\n",
            "      /chart from chart (rw)\n",
            "      /var/run/secrets/kubernetes.io/serviceaccount from kube-api-access-",
            "QoS Class:                   Burstable\n",
            "node.kubernetes.io/not-ready:NoExecute op=Exists for 300s",
            "Successfully assigned",
            "  default-scheduler  ",
            "Container image \"localhost/busybox:debian12\" already present on machine",
        ],
    );
    has(
        &k.run("describe deployment web"),
        &[
            "Replicas:               1 desired | 1 updated | 1 total | 1 available | 0 unavailable",
            "MinimumReplicasAvailable",
            "NewReplicaSet:   web-",
            "Scaled up replica set web-",
        ],
    );
    has(&k.run("describe service web"), &["TargetPort:", "http/TCP", "Endpoints:", "10.244.0."]);
    has(&k.run("describe rs -l app=web"), &["Controlled By:  Deployment/web", "Created pod: web-"]);
    has(&k.run("describe configmap chart"), &["course:\n----\nnorth"]);
    let secret = k.run("describe secret key");
    has(&secret, &["password:  6 bytes"]);
    assert!(!secret.contains("fleece"));
    has(
        &k.run("describe node helm"),
        &["KubeletReady", "Allocated resources:", "PodCIDR:", "Kubelet Version:            v1.36"],
    );
    has(&k.run(&format!("describe namespace {}", k.namespace)), &["Status:       Active"]);
    k.run("create job visit --image=localhost/busybox:debian12 -- true");
    k.wait("condition=Complete", "job/visit");
    has(
        &k.run("describe job visit"),
        &["Pods Statuses:    0 Active (0 Ready) / 1 Succeeded / 0 Failed", "SuccessfulCreate", "Completed"],
    );
    has(&k.refused("describe pod absent"), &["Error from server (NotFound): pods \"absent\" not found"]);
}

pub(crate) fn explain_and_resources(room: &Room) {
    let k = &room.kubectl;
    has(&k.run("explain pods"), &["KIND:       Pod\nVERSION:    v1\n", "apiVersion\t<string>"]);
    has(
        &k.run("explain deployment.spec.strategy"),
        &[
            "GROUP:      apps\n",
            "FIELD: strategy <DeploymentStrategy>",
            "rollingUpdate\t<RollingUpdateDeployment>",
        ],
    );
    has(
        &k.run("explain pod.spec.containers.imagePullPolicy"),
        &["ENUM:\n    Always\n    IfNotPresent\n    Never"],
    );
    has(&k.run("explain job --recursive"), &["completionMode\t<string>"]);
    has(&k.refused("explain pods.spec.colour"), &["error: field \"colour\" does not exist"]);
    let resources = k.run("api-resources");
    assert_eq!(head(&resources), ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]);
    for line in [
        ["pods", "po", "v1", "true", "Pod"],
        ["deployments", "deploy", "apps/v1", "true", "Deployment"],
        ["nodes", "no", "v1", "false", "Node"],
    ] {
        assert!(
            resources.lines().any(|found| found.split_whitespace().collect::<Vec<_>>() == line),
            "{line:?}"
        );
    }
    has(
        &k.run("api-resources --namespaced=false --verbs=list -o name"),
        &["nodes", "clusterroles.rbac.authorization.k8s.io"],
    );
    has(
        &k.run("api-resources --api-group=batch -o wide"),
        &["cronjobs", "create,delete,deletecollection,get,list,patch,update,watch"],
    );
    has(&k.run("api-versions"), &["admissionregistration.k8s.io/v1\n", "apps/v1\n", "\nv1"]);
}

pub(crate) fn auth(room: &Room) {
    let k = &room.kubectl;
    let ns = &k.namespace;
    assert_eq!(k.run("auth can-i create pods"), "yes");
    k.run("create serviceaccount jason");
    k.run("create role rower --verb=get,list --resource=pods");
    k.run(&format!("create rolebinding rower --role=rower --serviceaccount={ns}:jason"));
    let jason = format!("--as=system:serviceaccount:{ns}:jason");
    k.granted(&format!("list pods {jason}"));
    let no = k.output(&format!("auth can-i delete pods {jason}"));
    assert_eq!((no.status.code(), String::from_utf8(no.stdout).unwrap().trim()), (Some(1), "no"));
    has(
        &k.run(&format!("auth can-i --list {jason}")),
        &["pods", "[get list]", "selfsubjectreviews.authentication.k8s.io"],
    );
    has(&k.run("auth whoami"), &["Username", "kubernetes-admin"]);
    has(
        &k.refused(&format!("delete pod x {jason}")),
        &[&format!(
            "Error from server (Forbidden): pods \"x\" is forbidden: User \"system:serviceaccount:{ns}:jason\" cannot delete resource \"pods\" in API group \"\" in the namespace \"{ns}\""
        )],
    );
    let token = k.run("create token jason --duration=10m");
    assert_eq!(token.split('.').count(), 3);
    let as_jason = format!(
        "kubectl --kubeconfig /dev/null --server https://192.0.2.10:6443 --insecure-skip-tls-verify --token {token} -n {ns}"
    );
    assert_eq!(k.sh(&format!("{as_jason} get pods -o name")), "");
    let reconciled = k.feed("auth reconcile -f -", &format!("{{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {{name: rower, namespace: {ns}}}, rules: [{{apiGroups: [''], resources: [pods], verbs: [get, list, watch]}}]}}"));
    has(&reconciled, &["role.rbac.authorization.k8s.io/rower reconciled"]);
}

pub(crate) fn wait_and_events(room: &Room) {
    let k = &room.kubectl;
    let waiting = k.start("wait --for=create pod/lone --timeout=$PATIENCE");
    k.apply(&shell("lone", ""));
    let (ok, said) = waiting.finish();
    assert!(ok, "{said}");
    assert_eq!(k.run("wait --for=condition=Ready pod/lone --timeout=$PATIENCE"), "pod/lone condition met");
    assert_eq!(
        k.run("wait --for=jsonpath='{.status.phase}'=Running pod -l app=lone --timeout=$PATIENCE"),
        "pod/lone condition met"
    );
    has(
        &k.refused("wait --for=condition=Nonsense pod/lone --timeout=1s"),
        &["timed out waiting for the condition on pods/lone"],
    );
    k.event("lone", "Started");
    let events = k.run("events --for pod/lone");
    assert_eq!(head(&events), ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    has(&events, &["Scheduled", "Pulled", "Created", "Started", "Pod/lone"]);
    assert_eq!(head(&k.run("get events")), ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    assert_eq!(k.run("events --types=Warning"), format!("No events found in {} namespace.", k.namespace));
    let deletion = k.start("wait --for=delete pod/lone --timeout=$PATIENCE");
    k.run("delete pod lone --wait=false");
    let (ok, said) = deletion.finish();
    assert!(ok, "{said}");
}

pub(crate) fn version(room: &Room) {
    let k = &room.kubectl;
    let text = k.run("version");
    has(&text, &[&format!("Client Version: v{}", k.version), "Server Version: v1.36.2"]);
    assert!(!text.contains("WARNING"), "{text}");
    has(&k.run("version -o json"), &["\"serverVersion\"", "\"minor\": \"36\""]);
    has(&k.run("cluster-info"), &["Kubernetes control plane", "https://192.0.2.10:6443"]);
    has(&k.run("config view"), &["certificate-authority-data: DATA+OMITTED"]);
}
