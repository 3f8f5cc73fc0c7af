//! What volumes, claims and what drivers tell must be.

use crate::{check, check_update};
use apimachinery::json;
use expect_test::expect;

#[test]
fn volumes_and_claims() {
    check(
        "",
        "PersistentVolume",
        json!({"spec": {}}),
        expect![[r#"
            spec.accessModes: Required value
            spec.capacity: Required value
            spec.capacity: Unsupported value: null: supported values: "storage"
            spec: Required value: must specify a volume type"#]],
    );
    check(
        "",
        "PersistentVolume",
        json!({"spec": {
            "capacity": {"storage": "0"}, "accessModes": ["ReadWriteOncePod", "ReadWriteMany"],
            "hostPath": {"path": "/a/../b"}, "nfs": {"server": "s", "path": "x"}, "volumeMode": "Raw",
        }}),
        expect![[r#"
            spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes
            spec.capacity[storage]: Invalid value: "0": must be greater than zero
            spec.hostPath.path: Invalid value: "/a/../b": must not contain '..'
            spec.nfs: Forbidden: may not specify more than 1 volume type
            spec.volumeMode: Unsupported value: "Raw": supported values: "Block", "Filesystem""#]],
    );
    check(
        "",
        "PersistentVolumeClaim",
        json!({"spec": {"dataSource": {"kind": "Foo"}}}),
        expect![[r#"
        spec.accessModes: Required value: at least 1 access mode is required
        spec.resources[storage]: Required value
        spec.dataSource.name: Required value
        spec.dataSource: Invalid value: "Foo": must be 'PersistentVolumeClaim' when referencing the default apiGroup"#]],
    );
    check_update(
        "",
        "PersistentVolumeClaim",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}}),
        json!({"spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}}),
        expect![[r#"
            spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
            @@ -1,12 +1,12 @@
             {
              "AccessModes": [
            -  "ReadWriteOnce"
            +  "ReadWriteMany"
              ],
              "Selector": null,
              "Resources": {
               "Limits": null,
               "Requests": {
            -   "storage": "2Gi"
            +   "storage": "1Gi"
               }
              },
              "VolumeName": "",
        "#]],
    );
}

#[test]
fn storage() {
    const GROUP: &str = "storage.k8s.io";
    check(
        GROUP,
        "StorageClass",
        json!({"provisioner": "A b", "reclaimPolicy": "Recycle", "volumeBindingMode": "X"}),
        expect![[r#"
            provisioner: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"
            volumeBindingMode: Unsupported value: "X": supported values: "Immediate", "WaitForFirstConsumer""#]],
    );
    check(
        GROUP,
        "VolumeAttachment",
        json!({"spec": {"attacher": "a", "nodeName": "N"}}),
        expect![[r#"
        spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName
        spec.nodeName: Invalid value: "N": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]],
    );
    check(
        GROUP,
        "CSINode",
        json!({"spec": {"drivers": [{"name": "d", "nodeID": ""}, {"name": "d", "nodeID": "n", "allocatable": {"count": -1}}]}}),
        expect![[r#"
            spec.drivers[0].nodeID: Required value
            spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0
            spec.drivers[1].name: Duplicate value: "d""#]],
    );
    check(
        GROUP,
        "VolumeAttributesClass",
        json!({"driverName": ""}),
        expect![[r#"
            driverName: Required value
            parameters: Required value: must contain at least one key/value pair"#]],
    );
}
