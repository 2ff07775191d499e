"""A real Slurm of several nodes on this machine: one controller, one slurmd per node."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.programs import logs_of

CONFIGURATION = Path("/etc/slurm/slurm.conf")
"""Where Slurm looks when its variables are taken away, as inside a job step of the plugin."""

NEEDED = ("slurmctld", "slurmd", "sbatch", "squeue", "srun", "scontrol")
LIMIT_S = 180.0
ACCELERATORS = 8
CONTROLLER = 16817
"""The port of the controller; those of the nodes follow it."""


def unusable() -> str | None:
    """Why no Slurm can be started here; None if one can."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"no {absent[0]} (apt-get install slurmctld slurmd slurm-client)"
    if os.geteuid() != 0:
        return "starting Slurm's daemons needs root"
    if CONFIGURATION.exists() and not CONFIGURATION.is_symlink():
        return f"{CONFIGURATION} is there: this machine belongs to a cluster"
    return None


class Slurm:
    """Nodes n1, n2, ... of one partition, `main`; `types`: the accelerators of each, None: none.
    `urgent`: a second partition of that name, whose jobs end those of `main`.
    """

    def __init__(self, home: Path, types: list[str | None], *, urgent: bool = False) -> None:
        self.home = home
        self._urgent = urgent
        self.nodes = {f"n{number}": kind for number, kind in enumerate(types, 1)}

    def start(self) -> None:
        for port in (CONTROLLER, *self._ports().values()):
            with socket.socket() as client:
                left = client.connect_ex(("127.0.0.1", port)) == 0
            assert not left, f"port {port} is taken: end the Slurm that another run left"
        for folder in ("state", "run", "gpu", *(f"spool/{node}" for node in self.nodes)):
            (self.home / folder).mkdir(parents=True)
        self.log = logs_of("slurm", self.home)
        for number in range(ACCELERATORS):  # Slurm refuses plain files as devices
            os.mknod(self.home / f"gpu/gpu{number}", 0o20666, os.makedev(1, 3))
        (self.home / "slurm.conf").write_text(self._configuration(), encoding="utf-8")
        (self.home / "gres.conf").write_text(self._accelerators(), encoding="utf-8")
        CONFIGURATION.parent.mkdir(exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            link = CONFIGURATION.with_name(name)
            link.unlink(missing_ok=True)
            link.symlink_to(self.home / name)
        self.start_controller()
        for node in self.nodes:
            subprocess.run(["slurmd", "-N", node], check=True, timeout=LIMIT_S)
        wait_for(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), "idle nodes")

    def start_controller(self) -> None:
        subprocess.run(["slurmctld"], check=True, timeout=LIMIT_S)

    def stop_controller(self) -> None:
        pid = _pid(self.home / "run/slurmctld.pid")
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the controller's end")

    def vanish(self, node: str) -> None:
        """What a power cut does: daemon and everything that it started are gone at once."""
        daemon = _pid(self.home / f"run/slurmd-{node}.pid")
        jobs = ask("squeue", "--noheader", f"--nodelist={node}", "--format=%i").split()
        steps = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if any(_text(path).startswith(f"slurmstepd: [{job}.") for job in jobs)
        ]
        for victim in [daemon, *(child for step in steps for child in [step, *_below(step)])]:
            if victim is not None:
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)

    def states(self) -> dict[str, str]:
        return dict(line.split() for line in ask("sinfo", "-h", "-N", "-o", "%N %T").splitlines())

    def stop(self) -> None:
        subprocess.run(["scancel", "--me"], capture_output=True, check=False, timeout=LIMIT_S)
        for path in (self.home / "run").glob("*.pid"):
            pid = _pid(path)
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for name in ("slurm.conf", "gres.conf"):
            CONFIGURATION.with_name(name).unlink(missing_ok=True)

    def _configuration(self) -> str:
        host = socket.gethostname().split(".")[0]
        settings = {
            "ClusterName": "bed",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": CONTROLLER,
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/none",
            "CredType": "cred/none",
            "StateSaveLocation": self.home / "state",
            "SlurmdSpoolDir": self.home / "spool/%n",
            "SlurmctldPidFile": self.home / "run/slurmctld.pid",
            "SlurmdPidFile": self.home / "run/slurmd-%n.pid",
            "SlurmctldLogFile": self.log / "slurmctld.log",
            "SlurmdLogFile": self.log / "slurmd-%n.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "SchedulerParameters": "sched_interval=1,bf_interval=1,batch_sched_delay=0",
            "SlurmdParameters": "config_overrides",
            "GresTypes": "gpu",
            "MpiDefault": "none",
            "ReturnToService": 2,
            "SlurmdTimeout": 5,
            "MinJobAge": 3600,
            "KillWait": 5,
            "LaunchParameters": "disable_send_gids",
        }
        lines = [f"{key}={value}" for key, value in settings.items()]
        ports = self._ports()
        for node, kind in self.nodes.items():
            has = f"Gres=gpu:{kind}:{ACCELERATORS} " if kind else ""
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[node]} "
                f"CPUs=8 RealMemory=4000 {has}State=UNKNOWN"
            )
        whole = "Nodes=ALL MaxTime=2-00:00:00 State=UP"
        lines.append(f"PartitionName=main Default=YES PriorityTier=1 {whole}")
        if self._urgent:
            lines += ["PreemptType=preempt/partition_prio", "PreemptMode=CANCEL"]
            lines.append(f"PartitionName=urgent PriorityTier=10 {whole}")
        return "\n".join(lines) + "\n"

    def _ports(self) -> dict[str, int]:
        return {node: CONTROLLER + number for number, node in enumerate(self.nodes, 1)}

    def _accelerators(self) -> str:
        return "".join(
            f"NodeName={node} Name=gpu Type={kind} File={self.home}/gpu/gpu[0-{ACCELERATORS - 1}] "
            "Flags=amd_gpu_env\n"
            for node, kind in self.nodes.items()
            if kind
        )


@contextmanager
def running(home: Path, types: list[str | None], *, urgent: bool = False) -> Iterator[Slurm]:
    slurm = Slurm(home, types, urgent=urgent)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


def ask(*command: str) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=LIMIT_S
    ).stdout


def wait_for(
    held: Callable[[], bool], what: str, meanwhile: Callable[[], None] = lambda: None
) -> None:
    limit = time.monotonic() + LIMIT_S
    while not held():
        meanwhile()
        assert time.monotonic() < limit, f"{what}: not within {LIMIT_S:.0f} s"
        time.sleep(0.1)


def _pid(path: Path) -> int | None:
    return int(path.read_text()) if path.exists() else None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _below(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in listed for child in _text(path).split()]
    return [*children, *(below for child in children for below in _below(child))]
