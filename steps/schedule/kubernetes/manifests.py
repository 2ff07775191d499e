"""Kubernetes' objects for a job of the plan, typed by its client, which knows no other keys.

One pod, or, for a system of several nodes, one per node: Ray starts the engines on the others, as
between machines.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from steps.base.record import canonical_json
from steps.config.groups import NodeKind, Requirement
from steps.config.runtime import ContainerSettings
from steps.config.scheduler import Kubernetes
from steps.plan.plan import Job, Plan
from steps.schedule.kubernetes.placed import image_job
from steps.schedule.kubernetes.pods import (
    DOMAIN,
    HEAD,
    RAY_PORT,
    ROLE,
    RUN,
    Image,
    Machine,
    Object,
    Pods,
)
from steps.schedule.resources import Resources, modes_of, nodes_of

CHECKOUT, SPEC, JOB = (f"{DOMAIN}/{name}" for name in ("checkout", "spec", "job"))

RAY = ("-m", "ray.scripts.scripts", "start", "--disable-usage-stats", "--block")

KEPT_S = 3600
"""How long ended objects are kept if nothing removes them."""

WORKER_STARTS = 20
"""A node's Ray may start before the head's, and retries."""


class Manifests:
    """Builds the objects of one plan's jobs."""

    def __init__(self, plan: Plan, machine: Machine) -> None:
        assert isinstance(plan.scheduler, Kubernetes)
        self._plan = plan
        self._scheduler = plan.scheduler
        self._machine = machine
        self._resources = Resources(plan)

    def of(self, job: Job, arguments: Sequence[str], image: Image) -> list[Object]:
        """The objects of a job whose command is the image's Python with these arguments, in order
        of creation; the last is the Job that decides. Raises UserError for settings of the runtime
        that Kubernetes can't express.
        """
        settings = ContainerSettings.model_validate_json(image_job(job, self._plan.jobs).container)
        parts = (self._scheduler, self._machine, settings, image, self._labels(job))
        pods = Pods(*parts, modes_of(job))
        needed = self._resources.requirement(job)
        if nodes_of(job, needed) == 1:
            return self._closed(pods, job, arguments, needed.kinds[0])
        return self._cluster(pods, job, arguments, needed)

    def _closed(
        self, pods: Pods, job: Job, arguments: Sequence[str], kind: NodeKind
    ) -> list[Object]:
        """One pod, without a network."""
        main = pods.container("step", arguments, pods.accelerators(kind))
        return [pods.policy(among=False), self._job(pods, job, pods.spec([main], kind))]

    def _cluster(
        self, pods: Pods, job: Job, arguments: Sequence[str], needed: Requirement
    ) -> list[Object]:
        """The step and Ray's head on a node of the first kind, Ray on all others."""
        first, *others = needed.kinds
        heading = (*RAY, "--head", f"--port={RAY_PORT}", "--include-dashboard=false")
        ray = pods.container("ray", heading, pods.accelerators(first))
        ray.restart_policy = "Always"  # beside the step, and before it
        ray.startup_probe = client.V1Probe(
            tcp_socket=client.V1TCPSocketAction(port=RAY_PORT), failure_threshold=30
        )
        head = pods.spec([pods.container("step", arguments, {})], first)
        head.init_containers = [ray]
        objects: list[Object] = [
            pods.policy(among=True),
            pods.service(),
        ]
        remaining = [first.model_copy(update={"nodes": first.nodes - 1}), *others]
        for kind in (kind for kind in remaining if kind.nodes > 0):
            joining = (*RAY, f"--address={pods.name}:{RAY_PORT}")
            container = pods.container("ray", joining, pods.accelerators(kind))
            spec = pods.spec([container], kind)
            spec.restart_policy = "OnFailure"
            objects.append(self._job(pods, job, spec, kind))
        return [*objects, self._job(pods, job, head)]

    def _job(self, pods: Pods, job: Job, spec: Object, joining: NodeKind | None = None) -> Object:
        """`joining`: nodes of this kind that join the head."""
        limit_s = self._resources.limit_min(job, self._scheduler) * 60
        spec.active_deadline_seconds = limit_s
        role = joining.hardware if joining else HEAD
        name = f"{pods.name}-{role}" if joining else pods.name
        count = joining.nodes if joining else 1
        template = client.V1PodTemplateSpec(
            metadata=client.V1ObjectMeta(labels={**pods.labels, ROLE: role}), spec=spec
        )
        metadata = client.V1ObjectMeta(
            name=name,
            labels={**pods.labels, ROLE: role},
            annotations={JOB: f"{job.step} {job.key}"},
        )
        made = client.V1Job(
            api_version="batch/v1",
            kind="Job",
            metadata=metadata,
            spec=client.V1JobSpec(
                completions=count,
                parallelism=count,
                # A second try would hide an unstable node.
                backoff_limit=WORKER_STARTS if joining else 0,
                pod_replacement_policy="Failed",
                # Whatever becomes of this machine.
                active_deadline_seconds=limit_s + self._scheduler.pending_limit_min * 60,
                ttl_seconds_after_finished=KEPT_S,
                template=template,
            ),
        )
        digest = hashlib.sha256(canonical_json(plain(made)).encode()).hexdigest()[:12]
        metadata.labels = {**pods.labels, ROLE: role, SPEC: digest}
        return made

    def _labels(self, job: Job) -> dict[str, str]:
        checkout = hashlib.sha256(str(self._machine.root).encode()).hexdigest()[:12]
        return {
            CHECKOUT: checkout,
            RUN: name_of(job, self._machine.root),
            "app.kubernetes.io/managed-by": "reprise",
        }


def name_of(job: Job, root: Path) -> str:
    """One name per result: a second job for it has the same name."""
    digest = hashlib.sha256(f"{root}\0{job.output}".encode()).hexdigest()[:12]
    return f"reprise-{job.step.replace('_', '-')}-{digest}"


def plain(made: Object) -> dict[str, Any]:
    """The object as the API takes it."""
    found: dict[str, Any] = made.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def text(objects: Sequence[Object]) -> str:
    """YAML documents, as `kubectl apply --filename -` takes them."""
    return "".join(
        f"---\n{yaml.safe_dump(plain(made), sort_keys=False, width=100)}" for made in objects
    )
