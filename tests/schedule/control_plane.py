"""Kubernetes itself, without a node: etcd, the API server, the controllers and the scheduler.

Nodes are objects that a test makes, and it says itself what a kubelet would say of a pod.
"""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client

from tests.programs import logs_of
from tests.schedule.api import kubeconfig

PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "openssl")
ADMIN, USER = "token-of-the-admin", "token-of-the-user"
LIMIT_S = 40.0


def unusable() -> str | None:
    """Why no control plane can be started here; None if one can."""
    absent = [name for name in PARTS if shutil.which(name) is None]
    return f"no {absent[0]} on the PATH" if absent else None


class ControlPlane:
    """`address` of its API; `user` may do what its namespace's Role says, which is nothing yet."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._started: list[subprocess.Popen[bytes]] = []
        self._log = (logs_of("kubernetes", home) / "log").open("wb")

    def start(self) -> None:
        etcd, peer, port = (_free() for _ in range(3))
        at, between = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
        self._begin(
            *("etcd", "--data-dir", str(self.home / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", at, "--advertise-client-urls", at),
            *("--listen-peer-urls", between, "--initial-advertise-peer-urls", between),
            *("--initial-cluster", f"default={between}"),
        )
        key = self.home / "key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens = self.home / "tokens"
        tokens.write_text(f"{ADMIN},admin,1,system:masters\n{USER},user,2\n")
        self.address = f"https://127.0.0.1:{port}"
        self._begin(
            *("kube-apiserver", "--etcd-servers", at, "--secure-port", str(port)),
            *("--bind-address", "127.0.0.1", "--cert-dir", str(self.home / "certificates")),
            *("--service-account-issuer", "https://test", "--service-account-key-file", str(key)),
            *("--service-account-signing-key-file", str(key), "--token-auth-file", str(tokens)),
            *("--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.0.0.0/24"),
            *("--disable-admission-plugins", "ServiceAccount"),
        )
        self.admin = kubeconfig(self.home / "admin", self.address, ADMIN)
        self.user = kubeconfig(self.home / "user", self.address, USER)
        own = client.Configuration(host=self.address)
        own.verify_ssl, own.api_key = False, {"authorization": f"Bearer {ADMIN}"}
        api = client.ApiClient(own)
        self.core, self.batch = client.CoreV1Api(api), client.BatchV1Api(api)
        self.rbac = client.RbacAuthorizationV1Api(api)
        self._await(lambda: self.core.read_namespace("default"))
        common = ("--kubeconfig", str(self.admin), "--leader-elect=false")
        self._begin(
            *("kube-controller-manager", *common, "--node-monitor-grace-period", "1h"),
            *("--port", "0", "--secure-port", str(_free()), "--cert-dir", str(self.home / "cm")),
        )
        self._begin(
            *("kube-scheduler", *common, "--port", "0", "--secure-port", str(_free())),
            *("--cert-dir", str(self.home / "ks")),
        )

    def _begin(self, *command: str) -> None:
        self._started.append(
            subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, cwd=self.home)
        )

    def _await(self, call: Any) -> None:
        limit = time.monotonic() + LIMIT_S
        while True:
            try:
                call()
                return
            except Exception:
                assert all(process.poll() is None for process in self._started), "one has ended"
                assert time.monotonic() < limit, "no API server"
                time.sleep(0.2)

    def node(self, name: str, labels: dict[str, str], accelerators: int) -> None:
        """One that is ready."""
        self.core.create_node({"metadata": {"name": name, "labels": labels}})
        size = {"cpu": "64", "memory": "512Gi", "pods": "100", "amd.com/gpu": str(accelerators)}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
        at = {"lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
        status = {"capacity": size, "allocatable": size, "conditions": [{**ready, **at}]}
        self.core.patch_node_status(name, {"status": status})

    def report(self, pod: str, status: dict[str, Any]) -> None:
        """As its kubelet would."""
        self.core.patch_namespaced_pod_status(pod, "default", {"status": status})

    def stop(self) -> None:
        for process in reversed(self._started):
            process.send_signal(signal.SIGKILL)
            process.wait()
        self._log.close()


@contextmanager
def running(home: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(home)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def _free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
