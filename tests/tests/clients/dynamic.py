"""The Python client's dynamic interface: kinds found by discovery, one of them defined on the way."""

import sys

from kubernetes import client, config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, UnprocessibleEntityError

NS = sys.argv[1]
config.load_kube_config()
dynamic = DynamicClient(client.ApiClient())
GROUP = f"{NS}.clients.test"


def refused(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error as refusal:
        return refusal
    raise AssertionError(f"not refused: {call}")


maps = dynamic.resources.get(api_version="v1", kind="ConfigMap")
body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "log"}, "data": {"a": "1"}}
assert maps.create(body=body, namespace=NS).data.a == "1"
assert maps.patch(name="log", namespace=NS, body={"data": {"b": "2"}}).data.to_dict() == {"a": "1", "b": "2"}
merged = maps.patch(name="log", namespace=NS, body={"data": {"a": None}}, content_type="application/merge-patch+json")
assert merged.data.to_dict() == {"b": "2"}
merged = merged.to_dict()
merged["data"] = {"c": "3"}
assert maps.replace(body=merged, namespace=NS).data.to_dict() == {"c": "3"}
refused(ConflictError, maps.replace, body=merged, namespace=NS)
assert [m.metadata.name for m in maps.get(namespace=NS, label_selector="!x", field_selector="metadata.name=log").items] == ["log"]

# Server-side apply: fields have owners, and conflicts are told.
body["data"] = {"c": "4", "d": "5"}
refusal = refused(ConflictError, maps.server_side_apply, body=body, namespace=NS, field_manager="first")
assert 'conflict with \\"OpenAPI-Generator\\"' in refusal.body and ".data.c" in refusal.body, refusal.body
maps.server_side_apply(body=body, namespace=NS, field_manager="first", force_conflicts=True)
body["data"] = {"d": "5"}
applied = maps.server_side_apply(body=body, namespace=NS, field_manager="first")
assert applied.data.to_dict() == {"d": "5"}, applied.data

# A definition is served as soon as it is established.
definitions = dynamic.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
schema = {"type": "object", "properties": {"spec": {
    "type": "object",
    "properties": {"knots": {"type": "integer", "maximum": 40}, "crew": {"type": "integer", "default": 1}},
    "x-kubernetes-validations": [{"rule": "self.crew > 0", "message": "somebody must steer"}],
}}}
name = f"boats.{GROUP}"
definitions.create(body={
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
    "spec": {"group": GROUP, "scope": "Namespaced", "names": {"plural": "boats", "kind": "Boat"}, "versions": [
        {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
         "subresources": {"status": {}}}]},
})
for event in definitions.watch(field_selector=f"metadata.name={name}", timeout=60):
    conditions = (event["object"].to_dict().get("status") or {}).get("conditions") or []
    if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
        break
dynamic = DynamicClient(client.ApiClient())
boats = dynamic.resources.get(api_version=f"{GROUP}/v1", kind="Boat")
boat = {"apiVersion": f"{GROUP}/v1", "kind": "Boat", "metadata": {"name": "argo"}, "spec": {"knots": 5, "sunk": True}}
made = boats.create(body=boat, namespace=NS)
assert made.spec.to_dict() == {"knots": 5, "crew": 1}, made.spec
refusal = refused(UnprocessibleEntityError, boats.patch, name="argo", namespace=NS, body={"spec": {"knots": 50, "crew": 0}},
                  content_type="application/merge-patch+json")
told = refusal.body
assert "should be less than or equal to 40" in told, told
refusal = refused(UnprocessibleEntityError, boats.patch, name="argo", namespace=NS, body={"spec": {"crew": 0}},
                  content_type="application/merge-patch+json")
assert "somebody must steer" in refusal.body, refusal.body
boats.status.patch(name="argo", namespace=NS, body={"status": {"at": "sea"}, "spec": {"knots": 6}},
                   content_type="application/merge-patch+json")
seen = boats.get(name="argo", namespace=NS)
assert seen.spec.knots == 5 and not seen.to_dict().get("status"), "status has no schema: it is pruned"
definitions.delete(name=name)
for event in definitions.watch(field_selector=f"metadata.name={name}", timeout=60):
    if event["type"] == "DELETED":
        break
refused(NotFoundError, boats.get, name="argo", namespace=NS)
print("done")
