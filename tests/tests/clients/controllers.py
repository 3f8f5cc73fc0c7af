"""What controllers written in Python stand on: informers, and leader election by Lease."""

import sys
import threading

from kubernetes import client, config, watch
from kubernetes.informer import SharedInformer
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

NS = sys.argv[1]
config.load_kube_config()
core = client.CoreV1Api()

# An informer knows what was there, and hears of what comes and goes.
core.create_namespaced_config_map(NS, {"metadata": {"name": "before", "labels": {"known": "yes"}}})
heard, changed = [], threading.Condition()


def hear(kind):
    def note(one):
        with changed:
            heard.append((kind, one.metadata.name))
            changed.notify_all()
    return note


informer = SharedInformer(core.list_namespaced_config_map, namespace=NS, label_selector="known=yes")
for kind in ("ADDED", "MODIFIED", "DELETED"):
    informer.add_event_handler(kind, hear(kind))
informer.start()
with changed:
    assert changed.wait_for(lambda: ("ADDED", "before") in heard, 60), heard
core.create_namespaced_config_map(NS, {"metadata": {"name": "after", "labels": {"known": "yes"}}})
core.create_namespaced_config_map(NS, {"metadata": {"name": "other"}})
core.patch_namespaced_config_map("after", NS, {"data": {"a": "b"}})
core.delete_namespaced_config_map("before", NS)
# One that leaves the selection has gone, for who looks through it.
core.patch_namespaced_config_map("after", NS, {"metadata": {"labels": {"known": "no"}}})
with changed:
    assert changed.wait_for(lambda: ("DELETED", "after") in heard, 60), heard
assert heard == [
    ("ADDED", "before"), ("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "before"), ("DELETED", "after"),
], heard
informer.stop()

# Of two candidates one leads; the other takes over when it is gone.
leading, ended = [], threading.Event()


def candidate(name):
    lock = LeaseLock("helm", NS, name)

    def lead():
        leading.append(name)
        ended.wait(60)

    return electionconfig.Config(
        lock, lease_duration=3, renew_deadline=2, retry_period=1, onstarted_leading=lead, onstopped_leading=lambda: None
    )


first = threading.Thread(target=leaderelection.LeaderElection(candidate("first")).run, daemon=True)
first.start()
coordination = client.CoordinationV1Api()


def holder(name):
    for event in watch.Watch().stream(coordination.list_namespaced_lease, NS, timeout_seconds=60):
        lease = event["object"]
        if lease.metadata.name == "helm" and lease.spec.holder_identity == name:
            return lease
    raise AssertionError(f"{name} never led")


lease = holder("first")
assert lease.spec.lease_duration_seconds == 3 and lease.spec.renew_time
# What it held is given away, as when its holder releases it.
coordination.patch_namespaced_lease("helm", NS, {"spec": {"holderIdentity": "second", "leaseTransitions": 1}})
assert holder("second").spec.lease_transitions == 1
print("done")
