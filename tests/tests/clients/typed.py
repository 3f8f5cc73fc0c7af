"""The Python client's typed interfaces, on a cluster: writes of every kind, pages, watches, and what leads into pods."""

import sys
import time

from kubernetes import client, config, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

NS = sys.argv[1]
config.load_kube_config()
core, apps, batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()


def refused(status, reason, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == status and f'"reason":"{reason}"' in error.body, (error.status, error.body)
        return
    raise AssertionError(f"not refused: {call}")


def until(function, wanted, **kwargs):
    """Follows objects until one is as wanted."""
    for event in watch.Watch().stream(function, NS, timeout_seconds=60, **kwargs):
        if wanted(event["object"]):
            return event["object"]
    raise AssertionError("never came")


# Objects of classes, in and out.
made = core.create_namespaced_config_map(
    NS,
    client.V1ConfigMap(metadata=client.V1ObjectMeta(name="chart", labels={"sea": "north"}), data={"a": "1"}),
    field_manager="navigator",
)
assert made.metadata.managed_fields[0].manager == "navigator" and made.metadata.creation_timestamp.tzinfo
refused(409, "AlreadyExists", core.create_namespaced_config_map, NS, {"metadata": {"name": "chart"}})
patched = core.patch_namespaced_config_map("chart", NS, {"data": {"b": "2"}})
assert patched.data == {"a": "1", "b": "2"}
patched = core.patch_namespaced_config_map("chart", NS, [{"op": "remove", "path": "/data/a"}])
assert patched.data == {"b": "2"}
made.data = {"late": "yes"}
refused(409, "Conflict", core.replace_namespaced_config_map, "chart", NS, made)
patched.data = {"in": "time"}
replaced = core.replace_namespaced_config_map("chart", NS, patched)
assert replaced.data == {"in": "time"} and replaced.metadata.uid == made.metadata.uid
refused(404, "NotFound", core.read_namespaced_config_map, "none", NS)
refused(422, "Invalid", core.create_namespaced_config_map, NS, {"metadata": {"name": "Not_A_Name"}})
dry = core.create_namespaced_config_map(NS, {"metadata": {"generateName": "dry-"}}, dry_run="All")
refused(404, "NotFound", core.read_namespaced_config_map, dry.metadata.name, NS)

# Pages are of one moment.
for n in range(7):
    core.create_namespaced_secret(NS, client.V1Secret(metadata={"name": f"s-{n}", "labels": {"n": str(n % 2)}}, string_data={"n": str(n)}))
page = core.list_namespaced_secret(NS, limit=3)
assert page.metadata.remaining_item_count == 4, page.metadata
names, revision = [s.metadata.name for s in page.items], page.metadata.resource_version
core.delete_namespaced_secret("s-6", NS)
while page.metadata._continue:
    page = core.list_namespaced_secret(NS, limit=3, _continue=page.metadata._continue)
    names += [s.metadata.name for s in page.items]
    assert page.metadata.resource_version == revision
assert names == [f"s-{n}" for n in range(7)], names
odd = core.list_namespaced_secret(NS, label_selector="n in (1),n!=0")
assert [s.metadata.name for s in odd.items] == ["s-1", "s-3", "s-5"]
one = core.list_namespaced_secret(NS, field_selector="metadata.name=s-2")
assert [s.data["n"] for s in one.items] == ["Mg=="]

# A watch from a list's revision tells all that came after, once.
since = core.list_namespaced_config_map(NS).metadata.resource_version
core.create_namespaced_config_map(NS, {"metadata": {"name": "seen"}})
core.patch_namespaced_config_map("seen", NS, {"data": {"x": "y"}})
core.delete_namespaced_config_map("seen", NS)
events, watching = [], watch.Watch()
for event in watching.stream(core.list_namespaced_config_map, NS, resource_version=since, timeout_seconds=60):
    events.append((event["type"], event["object"].metadata.name))
    if event["type"] == "DELETED":
        watching.stop()
assert events == [("ADDED", "seen"), ("MODIFIED", "seen"), ("DELETED", "seen")], events

# A Deployment, and what leads into its pod.
container = client.V1Container(
    name="web", image="localhost/busybox:debian12",
    command=["sh", "-c", "echo hoisted; mkdir /www; echo ahoy >/www/index.html; exec busybox httpd -f -p 8080 -h /www"],
    readiness_probe=client.V1Probe(tcp_socket=client.V1TCPSocketAction(port=8080), period_seconds=1),
)
template = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels={"app": "web"}),
    spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
)
spec = client.V1DeploymentSpec(selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template)
apps.create_namespaced_deployment(NS, client.V1Deployment(metadata={"name": "web"}, spec=spec))
until(apps.list_namespaced_deployment, lambda d: d.status.available_replicas == 1)
(pod,) = core.list_namespaced_pod(NS, label_selector="app=web").items
assert core.read_namespaced_pod_log(pod.metadata.name, NS).strip() == "hoisted"
said = stream(
    core.connect_get_namespaced_pod_exec, pod.metadata.name, NS,
    command=["sh", "-c", "cat /www/index.html; echo aside >&2"], stderr=True, stdin=False, stdout=True, tty=False,
)
assert "ahoy" in said and "aside" in said, said
shell = stream(
    core.connect_get_namespaced_pod_exec, pod.metadata.name, NS,
    command=["sh"], stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False,
)
shell.write_stdin("echo $((6 * 7)); exit 3\n")
shell.run_forever(timeout=60)
assert shell.read_stdout().strip() == "42" and shell.returncode == 3, shell.returncode
ports = portforward(core.connect_get_namespaced_pod_portforward, pod.metadata.name, NS, ports="8080")
socket = ports.socket(8080)
socket.settimeout(60)
socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
answer = b""
while chunk := socket.recv(4096):
    answer += chunk
assert answer.endswith(b"ahoy\n"), answer
answer = core.connect_get_namespaced_pod_proxy_with_path(f"{pod.metadata.name}:8080", NS, "index.html")
assert answer.strip() == "ahoy", answer
scaled = apps.patch_namespaced_deployment_scale("web", NS, {"spec": {"replicas": 2}})
assert scaled.spec.replicas == 2
until(apps.list_namespaced_deployment, lambda d: d.status.available_replicas == 2)
core.create_namespaced_pod_eviction(pod.metadata.name, NS, client.V1Eviction(metadata={"name": pod.metadata.name}))
until(apps.list_namespaced_deployment, lambda d: d.status.available_replicas == 2)

# What files bring, who may what, and what goes together.
utils.create_from_yaml(client.ApiClient(), namespace=NS, yaml_objects=[{
    "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [
        {"name": "c", "image": "localhost/busybox:debian12", "command": ["true"]}]}}},
}])
until(batch.list_namespaced_job, lambda job: job.status.succeeded == 1)
token = core.create_namespaced_service_account_token("default", NS, {"spec": {"expirationSeconds": 600}}).status.token
limited = client.Configuration.get_default_copy()
limited.cert_file = limited.key_file = None
limited.api_key = {"authorization": f"Bearer {token}"}
nobody = client.ApiClient(limited)
refused(403, "Forbidden", client.CoreV1Api(nobody).list_namespaced_secret, NS)
review = {"spec": {"resourceAttributes": {"namespace": NS, "verb": "list", "resource": "secrets"}}}
theirs = client.AuthorizationV1Api(nobody)
assert theirs.create_self_subject_access_review(review).status.allowed is False
assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed is True
rbac = client.RbacAuthorizationV1Api()
rbac.create_namespaced_role_binding(NS, {
    "metadata": {"name": "look"}, "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": NS}],
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
})
# A grant counts once the authorizer's own watch has brought it.
end = time.monotonic() + 60
while not theirs.create_self_subject_access_review(review).status.allowed:
    assert time.monotonic() < end, "the grant never counted"
assert len(client.CoreV1Api(nobody).list_namespaced_secret(NS).items) == 6
core.delete_collection_namespaced_secret(NS, label_selector="n=1")
assert len(core.list_namespaced_secret(NS).items) == 3
apps.delete_namespaced_deployment("web", NS, propagation_policy="Foreground")
for event in watch.Watch().stream(apps.list_namespaced_deployment, NS, timeout_seconds=60):
    if event["type"] == "DELETED":
        break
assert core.list_namespaced_pod(NS, label_selector="app=web").items == []
print("done")
