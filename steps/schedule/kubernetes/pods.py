"""The pods of a job, their service and their network: typed by Kubernetes' client.

Nothing here holds a secret: what runs in a pod needs none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client

from steps.base.errors import UserError
from steps.config.accelerators import Modes
from steps.config.groups import NodeKind
from steps.config.runtime import ContainerSettings
from steps.config.scheduler import Kubernetes, User
from steps.machine.runtime import mounts

DOMAIN = "org.reprise"
RUN, ROLE = f"{DOMAIN}/run", f"{DOMAIN}/role"
HEAD = "head"

RAY_PORT = 6379

LOST_AFTER_S = 60
"""How long a pod stays on a node that Kubernetes can't reach."""

UNCONFINED = "seccomp=unconfined"

Object = Any
"""A model of the client."""


AMD = "gfx"
"""The prefix of AMD's architectures; their device plugin names partitions."""


@dataclass(frozen=True)
class Image:
    """An image as nodes find it, with its interpreter. `pulled` False: it must exist there."""

    reference: str
    python: str
    pulled: bool


@dataclass(frozen=True)
class Machine:
    """The submitting machine's part of manifests: the checkout and the owner of its files."""

    root: Path
    user: User


@dataclass(frozen=True)
class Pods:
    """Parts of the pods of one job. `modes`: its accelerators' partition modes."""

    scheduler: Kubernetes
    machine: Machine
    settings: ContainerSettings
    image: Image
    labels: Mapping[str, str]
    modes: Modes

    @property
    def name(self) -> str:
        return self.labels[RUN]

    # ---- a pod --------------------------------------------------------------------------------

    def container(
        self, name: str, arguments: Sequence[str], accelerators: Mapping[str, str]
    ) -> Object:
        limits = dict(accelerators)
        if self.settings.memory_gb:
            limits["memory"] = f"{int(self.settings.memory_gb * 1024)}Mi"
        return client.V1Container(
            name=name,
            image=self.image.reference,
            image_pull_policy="IfNotPresent" if self.image.pulled else "Never",
            command=[self.image.python],
            # Kubernetes replaces what looks like a variable of its own, and $$ by $.
            args=[argument.replace("$", "$$") for argument in arguments],
            working_dir=str(self.machine.root),
            # As in steps/machine/runtime: this user isn't of the image.
            env=[
                client.V1EnvVar(name="HOME", value="/tmp"),
                client.V1EnvVar(name="USER", value="reprise"),
                client.V1EnvVar(name="PYTHONDONTWRITEBYTECODE", value="1"),
            ],
            resources=client.V1ResourceRequirements(limits=limits or None),
            security_context=client.V1SecurityContext(
                allow_privilege_escalation=False,
                read_only_root_filesystem=True,
                capabilities=client.V1Capabilities(
                    drop=["ALL"], add=list(self.settings.capabilities) or None
                ),
            ),
            volume_mounts=[*self._mounts()[1], *_memory_mounts()],
            termination_message_policy="FallbackToLogsOnError",
        )

    def spec(self, containers: list[Object], kind: NodeKind) -> Object:
        """The parts of a pod that owns a node of this kind."""
        pulling = [
            client.V1LocalObjectReference(name=name) for name in self.scheduler.image_pull_secrets
        ]
        return client.V1PodSpec(
            containers=containers,
            restart_policy="Never",
            node_selector=self._selector(kind) or None,
            affinity=self._alone(),
            tolerations=self._tolerations(kind),
            volumes=[*self._mounts()[0], *self._memory_volumes()],
            security_context=self._user(),
            termination_grace_period_seconds=math.ceil(self.settings.stop_limit_s),
            automount_service_account_token=False,
            enable_service_links=False,
            image_pull_secrets=pulling or None,
        )

    def accelerators(self, kind: NodeKind) -> dict[str, str]:
        """All of a node's accelerators. Raises UserError for an architecture without a known device
        plugin, and for devices of a system without accelerators.
        """
        if kind.architecture is None:
            if self.settings.devices:
                raise UserError(
                    f"{kind.hardware} has no accelerators and runtime.devices names "
                    f"{', '.join(self.settings.devices)}: in Kubernetes devices come from a "
                    "device plugin; set runtime.devices=[]"
                )
            return {}
        resource = self.scheduler.accelerators.get(kind.architecture[:3])
        if resource is None:
            raise UserError(
                f"no device plugin is known for {kind.architecture}; name its resource in "
                f"scheduler.accelerators.{kind.architecture[:3]}"
            )
        return {self._resource(resource, kind): str(kind.accelerators * self.modes.devices)}

    def _plain(self, kind: NodeKind) -> tuple[str, ...]:
        """The name in nodes' taints, for any strategy of the plugin."""
        found = self.scheduler.accelerators.get((kind.architecture or "")[:3])
        return (found,) if found else ()

    def _resource(self, resource: str, kind: NodeKind) -> str:
        """The name by the device plugin's strategy: one for all, or one for each pair of modes."""
        if self.scheduler.resource_naming_strategy == "single" or kind.architecture is None:
            return resource
        if not kind.architecture.startswith(AMD):
            return resource
        modes = f"{self.modes.compute}_{self.modes.memory}".lower()
        return f"{resource.rpartition('/')[0]}/{modes}".lstrip("/")

    def _selector(self, kind: NodeKind) -> dict[str, str]:
        """The labels of this kind. Raises UserError if nothing distinguishes it from others."""
        if kind.architecture is None:
            return self.scheduler.node_labels.get(kind.hardware, {})
        if kind.hardware not in self.scheduler.node_labels:
            raise UserError(
                f"nothing distinguishes nodes with {kind.hardware} from others; say in "
                f"scheduler.node_labels.{kind.hardware} which labels they have (kubectl get nodes "
                "--show-labels)"
            )
        return self.scheduler.node_labels[kind.hardware]

    def _alone(self) -> Object:
        """Keeps the node free of other pods but those of DaemonSets: the rule works both ways. A
        DaemonSet's pod has a controller's revision; a StatefulSet's has one too, but also a label
        with its pod's name.
        """
        private = client.V1LabelSelectorRequirement(
            key="kubernetes.io/metadata.name",
            operator="NotIn",
            values=list(self.scheduler.shared_namespaces),
        )
        anywhere = client.V1LabelSelector(
            match_expressions=[private] if self.scheduler.shared_namespaces else None
        )

        def without(key: str, operator: str) -> Object:
            matched = client.V1LabelSelectorRequirement(key=key, operator=operator)
            return client.V1PodAffinityTerm(
                label_selector=client.V1LabelSelector(match_expressions=[matched]),
                namespace_selector=anywhere,
                topology_key="kubernetes.io/hostname",
            )

        return client.V1Affinity(
            pod_anti_affinity=client.V1PodAntiAffinity(
                required_during_scheduling_ignored_during_execution=[
                    without("controller-revision-hash", "DoesNotExist"),
                    without("statefulset.kubernetes.io/pod-name", "Exists"),
                ]
            )
        )

    def _tolerations(self, kind: NodeKind) -> list[Object]:
        """Nodes with accelerators often have a taint against pods that don't request any."""
        found = [
            client.V1Toleration(key=resource, operator="Exists", effect="NoSchedule")
            for resource in dict.fromkeys((*self._plain(kind), *self.accelerators(kind)))
        ]
        lost = [
            client.V1Toleration(
                key=f"node.kubernetes.io/{state}",
                operator="Exists",
                effect="NoExecute",
                toleration_seconds=LOST_AFTER_S,
            )
            for state in ("not-ready", "unreachable")
        ]
        return [*found, *lost]

    def _user(self) -> Object:
        """Raises UserError for a group without a number, and for security options unknown here."""
        unknown = [name for name in self.settings.groups if name not in self.scheduler.group_ids]
        if unknown:
            raise UserError(
                f"Kubernetes knows groups by number: say in scheduler.group_ids.{unknown[0]} which "
                f"the nodes have (getent group {unknown[0]})"
            )
        if others := set(self.settings.security) - {UNCONFINED}:
            raise UserError(
                f"runtime.security={sorted(others)[0]} can't be expressed in Kubernetes, "
                f"only {UNCONFINED} can"
            )
        free = UNCONFINED in self.settings.security
        return client.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=self.machine.user.uid,
            run_as_group=self.machine.user.gid,
            supplemental_groups=[self.scheduler.group_ids[n] for n in self.settings.groups] or None,
            seccomp_profile=client.V1SeccompProfile(
                type="Unconfined" if free else "RuntimeDefault"
            ),
        )

    # ---- volumes ------------------------------------------------------------------------------

    def _mounts(self) -> tuple[list[Object], list[Object]]:
        """Volumes and where they are mounted. Raises UserError for a path outside the claim."""
        found = mounts.of_step(self.machine.root, self.settings.mounts)
        claim, at = self.scheduler.volume.claim, self.scheduler.volume.mounted_at
        volumes, mounted = [], []
        for number, (path, mount) in enumerate(found.items()):
            below = None
            if claim and at:
                if not Path(path).is_relative_to(at):
                    raise UserError(
                        f"{path} isn't on claim {claim}, which this machine has at {at}; put it "
                        "there, or fix scheduler.volume"
                    )
                below = Path(path).relative_to(at).as_posix()
            else:
                place = client.V1HostPathVolumeSource(path=path, type="Directory")
                volumes.append(client.V1Volume(name=f"site-{number}", host_path=place))
            mounted.append(
                client.V1VolumeMount(
                    name="site" if claim else f"site-{number}",
                    mount_path=mount["bind"],
                    sub_path=below if below != "." else None,
                    read_only=mount["mode"] == "ro",
                )
            )
        if claim:
            source = client.V1PersistentVolumeClaimVolumeSource(claim_name=claim)
            volumes.append(client.V1Volume(name="site", persistent_volume_claim=source))
        return volumes, mounted

    def _memory_volumes(self) -> list[Object]:
        sizes = {"shm": self.settings.shm_size_gb, "tmp": self.settings.tmp_size_gb}
        return [
            client.V1Volume(
                name=name,
                empty_dir=client.V1EmptyDirVolumeSource(
                    medium="Memory", size_limit=f"{int(size * 1024)}Mi"
                ),
            )
            for name, size in sizes.items()
        ]

    # ---- network ------------------------------------------------------------------------------

    def policy(self, *, among: bool) -> Object:
        """The job's pods have no network, except that several reach each other and name servers,
        because they look up the head.
        """
        own = [client.V1NetworkPolicyPeer(pod_selector=self._own())]
        names = [client.V1NetworkPolicyPort(port=53, protocol=p) for p in ("UDP", "TCP")]
        return client.V1NetworkPolicy(
            api_version="networking.k8s.io/v1",
            kind="NetworkPolicy",
            metadata=client.V1ObjectMeta(name=self.name, labels=dict(self.labels)),
            spec=client.V1NetworkPolicySpec(
                pod_selector=self._own(),
                policy_types=["Ingress", "Egress"],
                ingress=[client.V1NetworkPolicyIngressRule(_from=own)] if among else None,
                egress=[
                    client.V1NetworkPolicyEgressRule(to=own),
                    client.V1NetworkPolicyEgressRule(ports=names),
                ]
                if among
                else None,
            ),
        )

    def _own(self) -> Object:
        return client.V1LabelSelector(match_labels={RUN: self.name})

    def service(self) -> Object:
        return client.V1Service(
            api_version="v1",
            kind="Service",
            metadata=client.V1ObjectMeta(name=self.name, labels=dict(self.labels)),
            spec=client.V1ServiceSpec(
                cluster_ip="None",
                publish_not_ready_addresses=True,
                selector={RUN: self.name, ROLE: HEAD},
                ports=[client.V1ServicePort(name="ray", port=RAY_PORT)],
            ),
        )


def _memory_mounts() -> list[Object]:
    places = {"shm": "/dev/shm", "tmp": "/tmp"}
    return [client.V1VolumeMount(name=name, mount_path=path) for name, path in places.items()]
