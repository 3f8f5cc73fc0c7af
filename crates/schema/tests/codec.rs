//! JSON and YAML codecs against the built-in rows.
#![allow(clippy::unwrap_used)] // Tests unwrap, their helper functions too.

mod shared;

use apimachinery::json;
use apimachinery::value::Value;
use schema::decode::{self, FieldValidation};
use schema::encode::{self, Body, TypeMeta};
use schema::{Table, TypeId};

fn kind(group: &str, version: &str, kind: &str) -> (&'static Table, TypeId) {
    let table = api::table();
    (table, table.kind(group, version, kind).unwrap())
}

#[test]
fn every_vector_decodes_and_encodes_to_itself() {
    let Some(vectors) = shared::vectors() else { return };
    let table = api::table();
    let (mut failures, mut checked) = (Vec::new(), 0);
    for v in &vectors {
        // Versions no longer served and option types have no rows.
        let Some(id) = table.kind(&v.group, &v.version, &v.kind) else { continue };
        checked += 1;
        let want = shared::compact(&v.read("json"));
        let decoded = match decode::json(table, id, want.as_bytes(), FieldValidation::Strict) {
            Ok(d) => d,
            Err(e) => {
                failures.push(format!("{}: {e}", v.name));
                continue;
            }
        };
        if !decoded.strict.is_empty() {
            failures.push(format!("{}: {:?}", v.name, decoded.strict));
        }
        let got = String::from_utf8(encode::json(table, id, &decoded.value)).unwrap();
        shared::same(&mut failures, &v.name, &got, &want);
        match decode::yaml(table, id, &v.read("yaml"), FieldValidation::Strict) {
            Ok(yaml) if yaml == decoded => {}
            Ok(yaml) => {
                let got = String::from_utf8(encode::json(table, id, &yaml.value)).unwrap();
                failures.push(format!("{}: YAML differs {:?}", v.name, yaml.strict));
                shared::same(&mut failures, &v.name, &got, &want);
            }
            Err(e) => failures.push(format!("{}: YAML: {e}", v.name)),
        }
        // The resident form gives the same bytes once spliced.
        if let Some(revision) =
            decoded.value["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok())
        {
            let body = Body::encode(table, id, &decoded.value);
            let api_version = if v.group == "core" {
                v.version.clone()
            } else {
                decoded.value["apiVersion"].as_str().unwrap().to_owned()
            };
            let meta = TypeMeta::new(&v.kind, &api_version);
            let served = String::from_utf8(body.splice(Some(&meta), revision).to_vec()).unwrap();
            shared::same(&mut failures, &v.name, &served, &want);
            assert_eq!(body.value(Some(&meta), revision).unwrap(), decoded.value);
            assert_eq!(Body::from_stored(body.stored().clone()).unwrap(), body);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(checked > 100, "only {checked} vectors have a row");
}

/// Decodes as `kind`, and gives the strict messages and the JSON, or the error.
fn check(id: (&'static Table, TypeId), text: &str, want: &str) {
    let got = match decode::json(id.0, id.1, text.as_bytes(), FieldValidation::Strict) {
        Ok(d) => {
            let json = String::from_utf8(encode::json(id.0, id.1, &d.value)).unwrap();
            assert_eq!(
                serde_json::from_str::<Value>(&json).unwrap(),
                d.value,
                "the tree is not in canonical form"
            );
            d.strict.into_iter().chain([json]).collect::<Vec<_>>().join("\n")
        }
        Err(e) => e.to_string(),
    };
    assert_eq!(got, want, "{text}");
}

#[test]
fn decodes_as_go_does() {
    let service = kind("", "v1", "Service");
    check(service, "{}", r#"{"metadata":{},"spec":{},"status":{"loadBalancer":{}}}"#);
    check(
        service,
        r#"{"kind":"Service","metadata":{"name":"a","labels":{"x":"<&>"},"creationTimestamp":null},"spec":{"ports":[{"port":80,"nope":1},{"port":81,"targetPort":"http"}],"clusterIP":"","foo":[{}]},"metadata2":3}"#,
        "unknown field \"spec.ports[0].nope\"\nunknown field \"spec.foo\"\nunknown field \"metadata2\"\n{\"kind\":\"Service\",\"metadata\":{\"name\":\"a\",\"labels\":{\"x\":\"\\u003c\\u0026\\u003e\"}},\"spec\":{\"ports\":[{\"port\":80,\"targetPort\":0},{\"port\":81,\"targetPort\":\"http\"}]},\"status\":{\"loadBalancer\":{}}}",
    );
    check(
        service,
        r#"{"metadata":{"labels":{"a":1}},"spec":{"ports":"x"}}"#,
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    );
    check(
        service,
        r#"{"spec":{"ports":[{"port":80.5}]}}"#,
        "json: cannot unmarshal number 80.5 into Go struct field ServicePort.spec.ports.port of type int32",
    );
    check(
        service,
        r#"{"spec":{"selector":{"a":"b","a":"c"},"type":"NodePort","type":"ClusterIP"}}"#,
        "duplicate field \"spec.selector.a\"\nduplicate field \"spec.type\"\n{\"metadata\":{},\"spec\":{\"selector\":{\"a\":\"c\"},\"type\":\"ClusterIP\"},\"status\":{\"loadBalancer\":{}}}",
    );
    check(
        service,
        r#"{"metadata":[]}"#,
        "json: cannot unmarshal array into Go struct field Service.metadata of type v1.ObjectMeta",
    );
    check(service, r#"[]"#, "json: cannot unmarshal array into Go value of type v1.Service");
    check(service, r#"{"spec":"#, "unexpected end of JSON input");
    let deployment = kind("apps", "v1", "Deployment");
    check(
        deployment,
        r#"{"spec":{"replicas":0,"selector":null,"template":{"spec":{"containers":[{"name":"c","env":[{"name":"A","value":""}],"resources":{"limits":{"cpu":"0.5","memory":"1024Mi"},"requests":{"cpu":2}},"volumeMounts":[]}],"hostNetwork":false}}}}"#,
        r#"{"metadata":{},"spec":{"replicas":0,"selector":null,"template":{"metadata":{},"spec":{"containers":[{"name":"c","env":[{"name":"A"}],"resources":{"limits":{"cpu":"500m","memory":"1Gi"},"requests":{"cpu":"2"}}}]}},"strategy":{}},"status":{}}"#,
    );
    check(
        deployment,
        r#"{"spec":{"replicas":"3"}}"#,
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check(
        deployment,
        r#"{"spec":{"replicas":3000000000}}"#,
        "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    let volume = kind("", "v1", "PersistentVolume");
    check(
        volume,
        r#"{"spec":{"accessModes":5}}"#,
        "json: cannot unmarshal number into Go struct field PersistentVolumeSpec.spec.accessModes of type []v1.PersistentVolumeAccessMode",
    );
    check(
        volume,
        r#"{"spec":{"accessModes":[5]}}"#,
        "json: cannot unmarshal number into Go struct field PersistentVolumeSpec.spec.accessModes of type v1.PersistentVolumeAccessMode",
    );
    check(
        volume,
        r#"{"spec":{"hostPath":{"path":5}}}"#,
        "json: cannot unmarshal number into Go struct field HostPathVolumeSource.spec.PersistentVolumeSource.hostPath.path of type string",
    );
    check(
        volume,
        r#"{"spec":{"capacity":{"a":"100u","b":"0.0015","c":"1.5","d":"2e1"}}}"#,
        r#"{"metadata":{},"spec":{"capacity":{"a":"1m","b":"2m","c":"1500m","d":"20"}},"status":{}}"#,
    );
    let secret = kind("", "v1", "Secret");
    check(secret, r#"{"data":{"a":"aGk=","b":null}}"#, r#"{"metadata":{},"data":{"a":"aGk=","b":null}}"#);
    check(secret, r#"{"data":{"a":"!"}}"#, "illegal base64 data at input byte 0");
    let event = kind("", "v1", "Event");
    check(
        event,
        r#"{"firstTimestamp":"2024-01-02T03:04:05+02:00","eventTime":"2024-01-02T03:04:05.5Z"}"#,
        r#"parsing time "2024-01-02T03:04:05.5Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse ".5Z" as ".000000""#,
    );
    check(
        event,
        r#"{"firstTimestamp":"2024-01-02T03:04:05+02:00"}"#,
        r#"{"metadata":{},"involvedObject":{},"source":{},"firstTimestamp":"2024-01-02T01:04:05Z","lastTimestamp":null,"eventTime":null,"reportingComponent":"","reportingInstance":""}"#,
    );
}

#[test]
fn yaml_reads_as_kubectl_reads_it() {
    let (table, id) = kind("", "v1", "ConfigMap");
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, name: b}\nimmutable: yes\ndata:\n  y: \"1\"\n  1: x\n";
    let d = decode::yaml(table, id, text, FieldValidation::Strict).unwrap();
    assert_eq!(d.strict, ["yaml: unmarshal errors:\n  line 3: key \"name\" already set in map"]);
    assert_eq!(
        d.value,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "immutable": true, "data": {"true": "1", "1": "x"}})
    );
    let free = decode::free_yaml("mode: 0644\nf: 1.0\ng: 1.5\n", FieldValidation::Warn).unwrap();
    assert_eq!(free.value, json!({"mode": 420, "f": 1, "g": 1.5}));
    assert!(decode::free_yaml("a: 1\n---\nb: 2\n", FieldValidation::Warn).is_err());
}

#[test]
fn bodies_splice() {
    let (table, id) = kind("", "v1", "ConfigMap");
    let meta = TypeMeta::new("ConfigMap", "v1");
    for (metadata, want) in [
        (json!({}), r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"7"}}"#),
        (
            json!({"generation": 1}),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"7","generation":1}}"#,
        ),
        (
            json!({"name": "a"}),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"7"}}"#,
        ),
        (
            json!({"name": "a", "resourceVersion": "3", "labels": {"a": "b"}}),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"7","labels":{"a":"b"}}}"#,
        ),
    ] {
        let body =
            Body::encode(table, id, &json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}));
        assert_eq!(body.splice(Some(&meta), 7), want);
        for revision in [0, 7, 10, 99_999] {
            let whole = body.splice(None, revision);
            assert_eq!(body.written_len(None, revision), whole.len());
            let typed = body.splice(Some(&meta), revision);
            assert_eq!(body.written_len(Some(&meta), revision), typed.len());
        }
        let custom =
            json!({"apiVersion": "x/v1", "kind": "X", "metadata": metadata, "spec": {"b": null, "a": 1.5}});
        let body = Body::encode_free(&custom);
        let mut want = custom;
        want["metadata"]["resourceVersion"] = json!("7");
        assert_eq!(body.splice(Some(&meta), 7), want.to_string());
        assert_eq!(body.value(Some(&meta), 7).unwrap(), want);
    }
}

#[test]
fn defaults_gates_and_pruning_follow_the_rows() {
    let (table, id) = kind("", "v1", "Service");
    let mut value = json!({"spec": {"ports": [{"port": 1}, {"port": 2, "protocol": "UDP"}]}});
    schema::defaults::apply(table, id, &mut value);
    assert_eq!(
        value["spec"]["ports"],
        json!([{"port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "UDP"}])
    );

    let (table, id) = kind("", "v1", "Pod");
    let pod = json!({"spec": {"containers": [{"name": "a", "restartPolicyRules": [{"action": "Restart"}]}]}});
    let drop = |old: Option<&Value>, on: bool| {
        let mut new = pod.clone();
        schema::gates::drop_disabled(table, id, &mut new, old, &|_| on);
        new["spec"]["containers"][0].get("restartPolicyRules").is_some()
    };
    let other = json!({"spec": {"initContainers": [{"restartPolicyRules": [{}]}]}});
    assert_eq!(
        [drop(None, true), drop(None, false), drop(Some(&pod), false), drop(Some(&other), false)],
        [true, false, true, true]
    );

    let mut value = json!({"spec": {"x": 1, "containers": [{"name": "a", "y": {"z": 1}}]}, "w": []});
    assert_eq!(schema::prune::prune(table, id, &mut value), ["spec.containers[0].y", "spec.x", "w"]);
    assert_eq!(value, json!({"spec": {"containers": [{"name": "a"}]}}));
}
