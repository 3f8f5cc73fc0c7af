//! Stories beside the one that every resource has.

use crate::case::{Body, Case, JSON, MERGE, Story, case};
use crate::cases::namespace;
use apimachinery::json;
use apimachinery::value::Value;
use http::Method;

pub fn stories() -> Vec<Story> {
    vec![metadata(), bodies(), pods(), paths()]
}

fn text(case: Case, media: &str, body: &str) -> Case {
    case.sent(media, Body::Text(body.into()))
}

/// Metadata that may and may not be, on kinds with different rules.
fn metadata() -> Story {
    let namespaces = "p-metadata";
    let mut cases = Vec::new();
    let kinds = [
        (format!("/api/v1/namespaces/{namespaces}/configmaps"), json!({})),
        (
            format!("/api/v1/namespaces/{namespaces}/pods"),
            json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}),
        ),
        (format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespaces}/roles"), json!({})),
        (format!("/api/v1/namespaces/{namespaces}/services"), json!({"spec": {"ports": [{"port": 80}]}})),
        ("/api/v1/namespaces".to_owned(), json!({})),
    ];
    let owner = |more: Value| {
        let mut owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u"});
        owner.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        owner
    };
    let members = [
        ("name", json!("P")),
        ("name", json!("a_b")),
        ("name", json!("-a")),
        ("name", json!("a.")),
        ("name", json!("a".repeat(254))),
        ("name", json!("a".repeat(64))),
        ("name", json!("a/b")),
        ("name", json!("")),
        ("name", json!("..")),
        ("name", json!("a%b")),
        ("name", json!("1a")),
        ("name", json!(5)),
        ("name", json!("a:b")),
        ("labels", json!({"a b": "c"})),
        ("labels", json!({"a": "b c"})),
        ("labels", json!({"a/b/c": ""})),
        ("labels", json!({"": "x"})),
        ("labels", json!({("x".repeat(64)): "y".repeat(64)})),
        ("labels", json!({"a": 1})),
        ("labels", json!({"A/b": "x", "-": "y"})),
        ("annotations", json!({"a b": "x"})),
        ("annotations", json!({"A/B": "x"})),
        ("annotations", json!({"a": "x".repeat(262144)})),
        ("finalizers", json!(["x"])),
        ("finalizers", json!(["a/b", ""])),
        ("finalizers", json!(["orphan", "foregroundDeletion"])),
        ("finalizers", json!(["a/b", "a/b"])),
        ("finalizers", json!(["kubernetes"])),
        ("ownerReferences", json!([{}])),
        ("ownerReferences", json!([owner(json!({})), owner(json!({}))])),
        ("ownerReferences", json!([owner(json!({"kind": "Event"}))])),
        (
            "ownerReferences",
            json!([owner(json!({"controller": true})), owner(json!({"uid": "v", "controller": true}))]),
        ),
        ("ownerReferences", json!([owner(json!({"apiVersion": "a/b/c"}))])),
        ("ownerReferences", json!([owner(json!({"blockOwnerDeletion": true}))])),
        ("namespace", json!("other")),
        ("namespace", json!("X Y")),
        ("uid", json!("abc")),
        ("selfLink", json!("x")),
        ("generation", json!(5)),
        ("generation", json!(-5)),
        ("generation", json!("x")),
        ("generation", json!(1.5)),
        ("resourceVersion", json!("5")),
        ("resourceVersion", json!("x")),
        ("generateName", json!("gen-")),
        ("generateName", json!("A_")),
        ("deletionTimestamp", json!("2020-01-01T00:00:00Z")),
        ("deletionGracePeriodSeconds", json!(5)),
        ("creationTimestamp", json!("2020-01-01T00:00:00Z")),
        ("creationTimestamp", json!("yesterday")),
        ("managedFields", json!([])),
        ("managedFields", json!([{}])),
        ("managedFields", json!([{"manager": "x"}])),
        (
            "managedFields",
            json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}}]),
        ),
        ("managedFields", json!([{"manager": "x", "operation": "Odd", "fieldsType": "Odd"}])),
        (
            "managedFields",
            json!([{"manager": "x".repeat(129), "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"odd": {}}}]),
        ),
    ];
    for (path, object) in &kinds {
        let kind = path.rsplit('/').next().unwrap();
        for (i, (member, value)) in members.iter().enumerate() {
            let mut object = object.clone();
            object["metadata"] = json!({"name": "n"});
            object["metadata"][*member] = value.clone();
            if *member == "generateName" {
                object["metadata"].as_object_mut().unwrap().remove("name");
            }
            let made = case(format!("{kind} {i} {member}"), Method::POST, format!("{path}?dryRun=All"));
            cases.push(made.json(object));
        }
    }
    let maps = &kinds[0].0;
    for name in ["nowhere", "A_B"] {
        let path = format!("/api/v1/namespaces/{name}/configmaps");
        cases.push(
            case(format!("create in {name}"), Method::POST, &path).json(json!({"metadata": {"name": "n"}})),
        );
        cases.push(case(format!("list in {name}"), Method::GET, path));
    }
    cases.push(
        case("create in all", Method::POST, "/api/v1/configmaps").json(json!({"metadata": {"name": "n"}})),
    );
    cases.push(
        case("create in all with one", Method::POST, "/api/v1/configmaps")
            .json(json!({"metadata": {"name": "n", "namespace": namespaces}})),
    );
    // What an update may do to metadata.
    cases.push(
        case("made", Method::POST, maps)
            .json(json!({"metadata": {"name": "m", "labels": {"pairs": "yes"}}}))
            .referred(),
    );
    for (i, (member, value)) in members.iter().enumerate().filter(|(_, (m, _))| *m != "name") {
        let mut object = json!({"metadata": {"name": "m"}});
        object["metadata"][*member] = value.clone();
        let path = format!("{maps}/m?dryRun=All");
        cases.push(case(format!("update {i} {member}"), Method::PUT, path).json(object));
    }
    let after = vec![case("after", Method::DELETE, format!("{maps}/m"))];
    Story { file: "metadata".into(), before: namespace(namespaces), cases, after }
}

/// Bodies that are none.
fn bodies() -> Story {
    let namespaces = "p-bodies";
    let maps = format!("/api/v1/namespaces/{namespaces}/configmaps");
    let mut cases = Vec::new();
    let deep = "{\"metadata\":".repeat(200);
    let bodies = [
        "",
        "hello",
        "{\"metadata\":{\"name\":\"p\"",
        "[1,2]",
        "null",
        "\"x\"",
        "12",
        "{\"metadata\":{\"name\":\"p\"}}xx",
        "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"p\"}}",
        "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v2\",\"metadata\":{\"name\":\"p\"}}",
        "{\"kind\":\"ConfigMap\",\"apiVersion\":\"apps/v1\",\"metadata\":{\"name\":\"p\"}}",
        "{\"kind\":\"Foo\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"p\"}}",
        "{\"kind\":\"ConfigMap\",\"apiVersion\":\"a/b/c\",\"metadata\":{\"name\":\"p\"}}",
        "{\"kind\":5}",
        "{}",
        "{\"metadata\":\"x\"}",
        "{\"metadata\":{\"name\":\"p\"},\"data\":{\"a\":1}}",
        "{\"metadata\":{\"name\":\"p\"},\"data\":[]}",
        "{\"metadata\":{\"name\":\"p\"},\"binaryData\":{\"a\":\"***\"}}",
        "{\"metadata\":{\"name\":\"p\"},\"immutable\":\"yes\"}",
        "{\"kind\":\"ConfigMapList\",\"apiVersion\":\"v1\",\"items\":[]}",
        deep.as_str(),
        "{\"metadata\":{\"name\":\"p\",\"generation\":99999999999999999999}}",
        "{\"metadata\":{\"name\":null}}",
        "{\"metadata\":{\"name\":\"p\"},\"data\":{\"a\":\"\u{1}\"}}",
        "{\"metadata\":{\"name\":\"p\"},\"Data\":{\"a\":\"b\"}}",
        "{\"metadata\":{\"name\":\"p\"},\"data\":{\"a\":\"b\",\"a\":\"c\"}}",
        "{\"metadata\":{\"name\":\"p\"},\"data\":{\"a\":\"\\ud800\"}}",
        "{\"metadata\":{\"name\":\"p\"},\"data\":{\"a\":\"<b>&\u{2028}\u{7f}é\"}}",
        "{\"metadata\":{\"name\":\"p\"},}",
        "{'metadata':{}}",
        "{\"metadata\":{\"name\":tru}}",
        "{\"metadata\" {}}",
        "\u{feff}{}",
    ];
    for (i, body) in bodies.iter().enumerate() {
        for media in [JSON, "application/yaml"] {
            let sent = case(format!("{media} {i}"), Method::POST, format!("{maps}?dryRun=All"));
            cases.push(text(sent, media, body));
        }
        let sent = case(format!("delete {i}"), Method::DELETE, format!("{maps}/p?dryRun=All"));
        cases.push(text(sent, JSON, body));
    }
    for (i, body) in [
        "metadata:\n  name: p\n  foo: 1\ndata:\n  a: b\n  a: c\n",
        "metadata: {name: p}\ndata: {a: yes, b: 012, c: 1.5, d: ~}\n",
        "a: b: c\n",
        "- x\n",
        "metadata:\n\tname: p\n",
        "metadata: {name: p}\ndata: &x {a: b}\nbinaryData: *x\n",
        "metadata: {name: p}\n---\nmetadata: {name: q}\n",
        "metadata: {name: p}\ndata: !!binary eA==\n",
        "metadata: {name: 2001-01-01}\n",
        "metadata: {name: p}\ndata: {<<: {a: b}}\n",
        "%YAML 1.2\n---\nmetadata: {name: p}\n",
        "metadata: {name: p}\ndata: {1: x, true: y, null: z, 1.5: w}\n",
    ]
    .iter()
    .enumerate()
    {
        for validation in ["Strict", "Warn"] {
            let path = format!("{maps}?dryRun=All&fieldValidation={validation}");
            cases.push(text(
                case(format!("YAML {i} {validation}"), Method::POST, path),
                "application/yaml",
                body,
            ));
        }
    }
    for media in [
        "text/plain",
        "application/xml",
        "application/json; charset=utf-8",
        "application/JSON",
        "foo",
        "application/vnd.kubernetes.protobuf",
        "application/cbor",
        "application/yaml",
        "application/x-www-form-urlencoded",
        "application/json;",
    ] {
        let body = "{\"metadata\":{\"name\":\"p\"}}";
        cases.push(text(
            case(format!("POST of {media}"), Method::POST, format!("{maps}?dryRun=All")),
            media,
            body,
        ));
        cases.push(text(
            case(format!("PUT of {media}"), Method::PUT, format!("{maps}/p?dryRun=All")),
            media,
            body,
        ));
        cases.push(text(
            case(format!("DELETE of {media}"), Method::DELETE, format!("{maps}/p?dryRun=All")),
            media,
            "{\"propagationPolicy\":\"Foo\"}",
        ));
    }
    for (i, bytes) in [
        b"k8s\0\x0a\x0f\x0a\x02v1".to_vec(),
        b"k8s\0\xff\xff\xff\xff".to_vec(),
        b"k8s\0".to_vec(),
        b"{}".to_vec(),
        b"k8s\0\x12\x04\x0a\x02\x0a\x00".to_vec(),
    ]
    .into_iter()
    .enumerate()
    {
        let sent = case(format!("protobuf {i}"), Method::POST, format!("{maps}?dryRun=All"));
        cases.push(sent.sent("application/vnd.kubernetes.protobuf", Body::Bytes(bytes)));
    }
    for (i, query) in [
        "dryRun=None",
        "dryRun=All&dryRun=All",
        "dryRun=",
        "fieldManager=a%0Ab&dryRun=All",
        "fieldValidation=strict&dryRun=All",
        "pretty=x&dryRun=All",
        "odd=1&dryRun=All",
    ]
    .iter()
    .enumerate()
    {
        cases.push(
            case(format!("query {i}"), Method::POST, format!("{maps}?{query}"))
                .json(json!({"metadata": {"name": "q"}})),
        );
    }
    for (i, query) in [
        "gracePeriodSeconds=x",
        "gracePeriodSeconds=-5&dryRun=All",
        "dryRun=x",
        "propagationPolicy=Odd",
        "orphanDependents=x",
        "orphanDependents=true&propagationPolicy=Orphan",
    ]
    .iter()
    .enumerate()
    {
        cases.push(case(format!("delete query {i}"), Method::DELETE, format!("{maps}/p?{query}")));
    }
    let manager = "x".repeat(129);
    cases.push(
        case("long manager", Method::POST, format!("{maps}?dryRun=All&fieldManager={manager}"))
            .json(json!({"metadata": {"name": "q"}})),
    );
    Story { file: "bodies".into(), before: namespace(namespaces), cases, after: Vec::new() }
}

/// What pods have beside the story of every resource.
fn pods() -> Story {
    let namespaces = "p-pods";
    let root = format!("/api/v1/namespaces/{namespaces}");
    let pods = format!("{root}/pods");
    let pod = |name: &str| {
        json!({"metadata": {"name": name, "labels": {"pairs": "yes", "app": name}}, "spec": {"containers": [
            {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}, "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]}]}})
    };
    let node = |name: &str| json!({"metadata": {"name": "x"}, "target": {"kind": "Node", "name": name}});
    let mut cases = vec![
        case("a", Method::POST, &pods).json(pod("a")).referred(),
        case("b", Method::POST, &pods).json(pod("b")).referred(),
        case("bind to nothing", Method::POST, format!("{pods}/a/binding")).json(json!({"target": {}})),
        case("bind to what is no node", Method::POST, format!("{pods}/a/binding")).json(json!({"target": {"kind": "Pod", "name": "n"}})),
        case("bind a missing pod", Method::POST, format!("{pods}/none/binding")).json(node("n")),
        case("bind another uid", Method::POST, format!("{pods}/a/binding")).json(json!({"metadata": {"uid": "x"}, "target": {"name": "n"}})),
        case("bind dry", Method::POST, format!("{pods}/a/binding?dryRun=All")).json(node("n")),
        case("bind", Method::POST, format!("{pods}/a/binding")).json(json!({"metadata": {"name": "a", "annotations": {"x": "y"}}, "target": {"kind": "Node", "name": "n"}})),
        case("bind again", Method::POST, format!("{pods}/a/binding")).json(node("m")),
        case("bound", Method::GET, format!("{pods}/a")),
        case("bindings", Method::POST, format!("{root}/bindings")).json(json!({"metadata": {"name": "b"}, "target": {"kind": "Node", "name": "n"}})),
        case("ephemeral get", Method::GET, format!("{pods}/a/ephemeralcontainers")),
        case("log of no container", Method::GET, format!("{pods}/a/log?container=x")),
        case("log of a missing pod", Method::GET, format!("{pods}/none/log")),
        case("log oddly", Method::GET, format!("{pods}/a/log?tailLines=-1&sinceSeconds=0&limitBytes=0&sinceTime=x")),
        case("exec of no container", Method::POST, format!("{pods}/a/exec?container=x&command=a&stdout=1")),
        case("exec nothing", Method::POST, format!("{pods}/a/exec")),
        case("attach nothing", Method::POST, format!("{pods}/a/attach")),
        case("forward a missing pod", Method::POST, format!("{pods}/none/portforward")),
        case("no subresource", Method::GET, format!("{pods}/a/odd")),
        case("evict a missing pod", Method::POST, format!("{pods}/none/eviction")).json(json!({"metadata": {"name": "none"}})),
        case("evict another name", Method::POST, format!("{pods}/b/eviction")).json(json!({"metadata": {"name": "a"}})),
        case("evict oddly", Method::POST, format!("{pods}/b/eviction")).json(json!({"metadata": {"name": "b"}, "deleteOptions": {"dryRun": ["Odd"]}})),
        case("evict dry", Method::POST, format!("{pods}/b/eviction?dryRun=All")).json(json!({"metadata": {"name": "b"}})),
        case("resize get", Method::GET, format!("{pods}/b/resize")),
    ];
    let put = |name: &str, sub: &str, of: &str, change: &dyn Fn(&mut Value)| {
        let mut object = pod(of);
        object["metadata"]["resourceVersion"] = Value::Null;
        change(&mut object);
        case(name, Method::PUT, format!("{pods}/{of}{sub}?dryRun=All")).json(object)
    };
    let with = |name: &str, container: Value| {
        put(name, "/ephemeralcontainers", "a", &move |o| {
            o["spec"]["ephemeralContainers"] = json!([container.clone()])
        })
    };
    cases.extend([
        with("ephemeral", json!({"name": "e", "image": "i", "targetContainerName": "c"})),
        with("ephemeral same name", json!({"name": "c", "image": "i"})),
        with("ephemeral no target", json!({"name": "e", "image": "i", "targetContainerName": "none"})),
        with("ephemeral ports", json!({"name": "e", "image": "i", "ports": [{"containerPort": 1}], "livenessProbe": {"exec": {"command": ["a"]}}, "resources": {"limits": {"cpu": "1"}}, "lifecycle": {}})),
        with("ephemeral no image", json!({"name": "e"})),
        put("resize", "/resize", "b", &|o| o["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2")),
        put("resize image", "/resize", "b", &|o| o["spec"]["containers"][0]["image"] = json!("j")),
        put("resize limits", "/resize", "b", &|o| o["spec"]["containers"][0]["resources"]["limits"] = json!({"cpu": "2", "memory": "2Gi"})),
        put("resize away", "/resize", "b", &|o| o["spec"]["containers"][0]["resources"] = json!({})),
        put("resize storage", "/resize", "b", &|o| o["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] = json!("1Gi")),
        put("update resources", "", "b", &|o| o["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2")),
        put("update image", "", "b", &|o| o["spec"]["containers"][0]["image"] = json!("j")),
        put("update no container", "", "b", &|o| o["spec"]["containers"] = json!([])),
        put("update gates", "", "b", &|o| o["spec"]["schedulingGates"] = json!([{"name": "a.b/c"}])),
        put("update tolerations", "", "b", &|o| o["spec"]["tolerations"] = json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}])),
        put("update deadline", "", "b", &|o| o["spec"]["activeDeadlineSeconds"] = json!(5)),
    ]);
    let budget = |name: &str, spec: Value| {
        case(name, Method::POST, format!("/apis/policy/v1/namespaces/{namespaces}/poddisruptionbudgets"))
            .json(json!({"metadata": {"name": name}, "spec": spec}))
    };
    cases.extend([
        budget("one", json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}})),
        case("evict what is not ready", Method::POST, format!("{pods}/a/eviction?dryRun=All"))
            .json(json!({"metadata": {"name": "a"}})),
        case("token", Method::POST, format!("{root}/serviceaccounts/default/token"))
            .json(json!({"spec": {"audiences": ["x"], "expirationSeconds": 600}})),
        case("token too short", Method::POST, format!("{root}/serviceaccounts/default/token"))
            .json(json!({"spec": {"expirationSeconds": 5}})),
        case("token of nobody", Method::POST, format!("{root}/serviceaccounts/none/token")).json(json!({})),
        case("token bound", Method::POST, format!("{root}/serviceaccounts/default/token"))
            .json(json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}}})),
        case("token bound oddly", Method::POST, format!("{root}/serviceaccounts/default/token"))
            .json(json!({"spec": {"boundObjectRef": {"kind": "Odd", "apiVersion": "v1", "name": "none"}}})),
        case("finalize", Method::PUT, format!("{root}/finalize?dryRun=All"))
            .json(json!({"metadata": {"name": namespaces}, "spec": {"finalizers": ["a.b/c", "kubernetes"]}})),
        case("finalize of another", Method::PUT, format!("{root}/finalize?dryRun=All"))
            .json(json!({"metadata": {"name": "x"}})),
        case("delete the other pod", Method::DELETE, format!("{pods}/b")),
        case("delete gracefully", Method::DELETE, format!("{pods}/a?gracePeriodSeconds=60")),
        case("delete more slowly", Method::DELETE, format!("{pods}/a?gracePeriodSeconds=90")),
        case("delete faster", Method::DELETE, format!("{pods}/a?gracePeriodSeconds=5")),
        text(
            case("hold late", Method::PATCH, format!("{pods}/a")),
            MERGE,
            r#"{"metadata":{"finalizers":["a.b/c"]}}"#,
        ),
        case("bind what goes", Method::POST, format!("{pods}/a/binding")).json(node("n")),
        case("delete at once", Method::DELETE, format!("{pods}/a?gracePeriodSeconds=0")),
        case("get what is gone", Method::GET, format!("{pods}/a")),
    ]);
    Story { file: "pods".into(), before: namespace(namespaces), cases, after: Vec::new() }
}

/// Addresses and methods that are none.
fn paths() -> Story {
    let mut cases = Vec::new();
    let paths = [
        "/api/",
        "/apis/",
        "/api/v1/",
        "/api/v2",
        "/apis/foo",
        "/apis/apps/v2",
        "/apis/apps/v1/foos",
        "/api/v1/namespaces//pods",
        "/api/v1/foo/bar/baz",
        "/foo",
        "/apis/apps/v1/namespaces/default/deployments/w/foo",
        "/api/v1/namespaces/default/pods/p/foo",
        "/api/v1/pods/p",
        "/api/v1/nodes/x/pods",
        "/healthz",
        "/livez",
        "/readyz",
        "/healthz/ping",
        "/healthz/nope",
        "/version/",
        "/openapi/v3/foo",
        "/swagger.json",
        "/api/v1/namespaces/default/bindings",
        "/api//v1",
        "/api/v1/namespaces/default/pods/",
        "/apis/batch/v1beta1",
        "/apis/autoscaling",
        "/apis/apps",
        "/api",
        "/api/v1",
        "/apis/apps/v1",
        "/apis/autoscaling/v1",
        "/apis/autoscaling/v2",
        "/apis/events.k8s.io/v1",
        "/apis/resource.k8s.io/v1",
        "/apis/authorization.k8s.io/v1",
        "/apis/authentication.k8s.io/v1",
        "/apis/certificates.k8s.io/v1",
        "/apis/policy/v1",
    ];
    for path in paths {
        cases.push(case(format!("GET {path}"), Method::GET, path));
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/api/v1/namespaces/nowhere",
            "/api/v1/nodes",
            "/api/v1/namespaces/nowhere/pods/zz",
            "/api/v1/namespaces/nowhere/pods",
            "/version",
            "/foo",
            "/api/v1/namespaces/nowhere/pods/zz/status",
            "/api/v1/namespaces/nowhere/pods/zz/log",
            "/api/v1/componentstatuses",
            "/api/v1/namespaces/nowhere/bindings",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            "/api/v1/namespaces/nowhere/foos",
        ] {
            // All nodes are the business of other stories.
            if method == Method::DELETE && path == "/api/v1/nodes" {
                continue;
            }
            let one = case(format!("{method} {path}"), method.clone(), path);
            cases.push(if method == Method::PATCH { text(one, MERGE, "{}") } else { one });
        }
    }
    let accepts = [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "text/html",
        "*/*",
        "application/*",
        "text/*",
        "application/cbor",
        "application/json;q=0.1,application/yaml",
        "application/json;pretty=1",
        "application/json;as=Table;v=v2;g=meta.k8s.io",
        "application/json;as=Odd;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
        "application/yaml;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
        "application/json;stream=watch",
        "foo",
        "application/json;v=v1",
    ];
    for accept in accepts {
        for path in [
            "/api/v1/namespaces/nowhere/configmaps",
            "/api/v1/namespaces/nowhere/configmaps/nope",
            "/api/v1/namespaces/nowhere/foos",
            "/apis/apps/v1",
            "/api",
            "/version",
        ] {
            if path == "/version" && !accept.contains("html") {
                continue;
            }
            cases.push(case(format!("GET {path} as {accept}"), Method::GET, path).accept(accept));
        }
    }
    Story { file: "paths".into(), before: Vec::new(), cases, after: Vec::new() }
}
