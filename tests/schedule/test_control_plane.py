"""The same on Kubernetes itself: API server, controllers and scheduler, without kubelets.

Debian 12 has none of these but etcd; its source package `kubernetes` has all, and compiles.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from steps.base.errors import UserError
from steps.config.scheduler import Kubernetes
from steps.plan.plan import Plan
from steps.plan.registry import STEPS
from steps.schedule.kubernetes import ask
from steps.schedule.kubernetes.api import NEEDED, Cluster
from steps.schedule.kubernetes.manifests import Manifests
from steps.schedule.kubernetes.place import Placed
from steps.schedule.kubernetes.pods import RUN, Machine
from tests.conftest import ROOT, planned
from tests.schedule.control_plane import LIMIT_S, ControlPlane, running, unusable
from tests.schedule.test_kubernetes import IMAGE, MI300X, MIXED, USER, container, told

RUNS = ("performance_run", "accuracy_run", "compliance_run")

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),
    pytest.mark.skipif(unusable() is not None, reason=f"no control plane: {unusable()}"),
]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with running(tmp_path_factory.mktemp("kubernetes")) as started:
        for number, device in enumerate(("74a1",) * 4 + ("74a5",) * 2, 1):
            host = {"kubernetes.io/hostname": f"n{number}"}
            started.node(f"n{number}", {**host, "amd.com/gpu.device-id": device}, 8)
        yield started


def of(plan: Plan, plane: ControlPlane, step: str) -> Placed:
    plan = told(plan, kubeconfig=str(plane.admin))
    assert isinstance(plan.scheduler, Kubernetes)
    job = next(job for job in plan.jobs if job.step == step)
    objects = Manifests(plan, Machine(ROOT, USER)).of(job, ["-m", STEPS[step].module], IMAGE)
    return Placed(job, plan.scheduler, objects, Cluster(plan.scheduler))


def until(found: Callable[[], Any], what: str) -> Any:
    limit = time.monotonic() + LIMIT_S
    while not (value := found()):
        assert time.monotonic() < limit, what
        time.sleep(0.1)
    return value


def pods(placed: Placed) -> list[Any]:
    return placed.cluster.pods(RUN, placed.name)


def bound(placed: Placed) -> Any:
    return until(lambda: next((pod for pod in pods(placed) if pod.spec.node_name), None), "a node")


def gone(plane: ControlPlane) -> bool:
    """A pod on a node is there until its kubelet has ended it."""
    left = plane.core.list_namespaced_pod("default").items
    for pod in left:
        if pod.metadata.deletion_timestamp:
            with suppress(ApiException):
                plane.core.delete_namespaced_pod(
                    pod.metadata.name, "default", grace_period_seconds=0
                )
    return not left


def ended(status: int) -> dict[str, Any]:
    state = {"terminated": {"exitCode": status, "reason": "Error" if status else "Completed"}}
    phase = "Failed" if status else "Succeeded"
    return {"phase": phase, "containerStatuses": [container(state)]}


def test_what_a_user_may_not_do_is_named_and_the_documented_role_is_enough(
    plane: ControlPlane, tmp_path: Path
) -> None:
    plan = told(planned(*MI300X), kubeconfig=str(plane.user))
    with pytest.raises(UserError, match="you may not create jobs, get jobs, delete jobs"):
        ask.check(plan, tmp_path)
    rules = [
        {"apiGroups": [group], "resources": ["/".join(filter(None, (kind, part)))], "verbs": [verb]}
        for group, kind, part, verb in NEEDED
    ]
    name = {"name": "reprise"}
    plane.rbac.create_namespaced_role("default", {"metadata": name, "rules": rules})
    plane.rbac.create_namespaced_role_binding(
        "default",
        {
            "metadata": name,
            "roleRef": {"kind": "Role", "apiGroup": "rbac.authorization.k8s.io", **name},
            "subjects": [{"kind": "User", "name": "user"}],
        },
    )
    ask.check(plan, tmp_path)
    placed = of(planned(*MI300X), plane, "performance_run")
    assert isinstance(plan.scheduler, Kubernetes)
    placed.cluster = Cluster(plan.scheduler)
    placed.start()
    assert placed.look() is None
    assert placed.remove().endswith("was deleted")
    until(lambda: gone(plane), "the pod's end")


def test_each_run_has_a_node_of_its_own_and_none_comes_to_it(plane: ControlPlane) -> None:
    """Four nodes have these accelerators; nobody else is let onto the nodes of runs either."""
    runs = [of(planned(*MI300X), plane, step) for step in RUNS]
    for placed in runs:
        placed.start()
    nodes = {bound(placed).spec.node_name for placed in runs}
    assert len(nodes) == 3 and nodes <= {"n1", "n2", "n3", "n4"}
    others = [f"other-{number}" for number in range(8)]
    for name in others:
        spec = {"containers": [{"name": "c", "image": "i"}]}
        plane.core.create_namespaced_pod("default", {"metadata": {"name": name}, "spec": spec})

    def places() -> list[str | None]:
        return [plane.core.read_namespaced_pod(n, "default").spec.node_name for n in others]

    until(lambda: all(places()), "nodes for others")
    assert not nodes & set(places())
    for placed in runs:
        plane.report(bound(placed).metadata.name, ended(0))
        assert until(lambda placed=placed: [placed.look()] != [None], "its end")
    for name in others:
        plane.core.delete_namespaced_pod(name, "default", grace_period_seconds=0)
    until(lambda: gone(plane), "the pods' end")


def test_a_mixed_cluster_gets_its_nodes_by_kind(plane: ControlPlane) -> None:
    placed = of(planned(*MIXED), plane, "performance_run")
    # Containers beside a pod's first are of 1.29; what Debian's source makes is 1.20.
    placed.objects[-1].spec.template.spec.init_containers = None
    placed.start()
    found = until(
        lambda: (
            (known := pods(placed))
            and all(pod.spec.node_name for pod in known)
            and len(known) == 6
            and known
        ),
        "six nodes",
    )
    assert {pod.spec.node_name for pod in found} == {f"n{number}" for number in range(1, 7)}
    roles = {pod.spec.node_name: pod.metadata.labels["org.reprise/role"] for pod in found}
    assert roles["n5"] == roles["n6"] == "mi325x"
    assert sorted(roles[f"n{number}"] for number in range(1, 5)) == ["head", *["mi300x"] * 3]
    placed.remove()
    until(lambda: gone(plane), "the pods' end")
    assert not plane.core.list_namespaced_service("default", label_selector=RUN).items


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (ended(139), "it ended with status 139"),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "it was evicted"),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "it ran into its limit"),
    ],
)
def test_how_a_pod_ends_is_said(plane: ControlPlane, status: dict[str, Any], words: str) -> None:
    placed = of(planned(*MI300X), plane, "performance_run")
    placed.start()
    plane.report(bound(placed).metadata.name, {"phase": "Running"})
    assert placed.look() is None
    plane.report(bound(placed).metadata.name, status)
    with pytest.raises(UserError, match=words):
        until(placed.look, "an end")
    until(lambda: gone(plane), "the pod's end")


def test_a_node_that_is_gone_is_said(plane: ControlPlane) -> None:
    placed = of(planned(*MI300X), plane, "performance_run")
    placed.start()
    pod = bound(placed)
    plane.report(pod.metadata.name, {"phase": "Running"})
    assert placed.look() is None
    plane.core.delete_namespaced_pod(pod.metadata.name, "default", grace_period_seconds=0)
    with pytest.raises(UserError, match="its node vanished, or somebody deleted its pod"):
        until(placed.look, "an end")
    until(lambda: gone(plane), "the pods' end")


def test_a_pod_that_no_node_can_have_is_explained_by_the_scheduler(plane: ControlPlane) -> None:
    plan = told(planned(*MI300X), node_labels={"mi300x": {"amd.com/gpu.device-id": "none"}})
    placed = of(plan, plane, "performance_run")
    placed.start()
    (pod,) = until(lambda: [p for p in pods(placed) if p.status.conditions], "a word")
    assert placed._why(pod).startswith("0/6 nodes are available: 6 node(s) didn't match")
    placed.remove()
    until(lambda: gone(plane), "the pod's end")


def test_a_namespace_that_is_full_refuses_the_job_before_anything_starts(
    plane: ControlPlane, tmp_path: Path
) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    plane.core.create_namespaced_resource_quota("default", quota)
    until(lambda: plane.core.read_namespaced_resource_quota("q", "default").status.hard, "a quota")
    with pytest.raises(UserError, match=r"doesn't allow it .*exceeded quota: q"):
        ask.check(told(planned(*MI300X), kubeconfig=str(plane.admin)), tmp_path)
    plane.core.delete_namespaced_resource_quota("q", "default")
