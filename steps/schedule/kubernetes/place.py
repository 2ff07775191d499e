"""`python -m steps.schedule.kubernetes.place PLAN COMMAND...`: a job's command, in a pod.

Makes what the job needs, passes on what the step prints, waits for its end, and removes all of it.
The exit status is the step's own. Signals end the pod; if this process is killed, it leaves a Job
that the next one for the same result continues with.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from steps import ROOT
from steps.base.console import GO_ON, say
from steps.base.errors import UserError
from steps.base.processes import ENDS
from steps.base.record import Manifest
from steps.config.runtime import ContainerSettings
from steps.config.scheduler import Kubernetes, User
from steps.plan.plan import Job, Plan, load
from steps.plan.registry import STEPS
from steps.schedule.kubernetes import images
from steps.schedule.kubernetes.api import Cluster, LoginError, SilenceError
from steps.schedule.kubernetes.manifests import SPEC, Manifests
from steps.schedule.kubernetes.placed import image_job
from steps.schedule.kubernetes.pods import RUN, Machine
from steps.schedule.waiting import SAID_FIRST_S

POLL_S = 2.0
LOG_S = 10.0
"""How often the step's output is fetched, all of it each time: it is short."""

PULL_LIMIT_S = 300.0
"""How long pulling an image may fail; registries have bad minutes."""

IMAGE = (
    *("InvalidImageName", "ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff"),
    *("RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"),
)
NEVER = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
"""A waiting container's reasons: its image, and errors that don't pass."""

STARTING = ("ContainerCreating", "PodInitializing", "CrashLoopBackOff")
"""Not an error by itself: Ray's workers are restarted until their head is up."""

LOST = ("DeletionByTaintManager", "DeletionByPodGC", "NodeLost")
"""The reason of a pod that was ended because its node was unreachable."""


def main(arguments: list[str]) -> int:
    path, *command = arguments
    for number in ENDS:
        signal.signal(number, _interrupted)
    try:
        plan = load(Path(path))
        return place(plan, command)
    except UserError as error:
        say(f"error: {error}")
        return 1


def place(plan: Plan, command: Sequence[str]) -> int:
    """Run a job's command on a node. Raises UserError if it can't finish."""
    scheduler = plan.scheduler
    assert isinstance(scheduler, Kubernetes)
    output = command[command.index("--output") + 1]
    job = next(job for job in plan.jobs if job.output == output)
    source = image_job(job, plan.jobs)
    settings = ContainerSettings.model_validate_json(source.container)
    image = images.found(
        Manifest.read(ROOT / source.inputs["environment"]), settings, scheduler.registry
    )
    arguments = command[command.index(STEPS[job.step].module) - 1 :]
    objects = Manifests(plan, machine(scheduler)).of(job, arguments, image)
    placed = Placed(job, scheduler, objects, Cluster(scheduler))
    try:
        placed.start()
        while (status := placed.look()) is None:
            time.sleep(POLL_S)
        return status
    except InterruptedError:
        say(f"error: {placed.label}: ended by a signal; {placed.remove()}; {GO_ON}")
        return 128 + signal.SIGTERM
    except SilenceError as error:
        raise UserError(
            f"{placed.label}: the cluster at {placed.cluster.host} doesn't answer ({error}); "
            "nothing was started"
        ) from error


def machine(scheduler: Kubernetes) -> Machine:
    """Raises UserError for root: pods run as the owner of the files they write, never as root."""
    (ROOT / "results").mkdir(exist_ok=True)
    user = scheduler.user
    if user is None and os.getuid() == 0:
        raise UserError(
            "pods don't run as root: start ./reproduce as a user, or set "
            "scheduler.user={uid: 1000, gid: 1000}, who can write to results/"
        )
    return Machine(ROOT, user or User(uid=os.getuid(), gid=os.getgid()))


@dataclass
class Placed:
    """One job's objects, and its pods' states."""

    job: Job
    scheduler: Kubernetes
    objects: Sequence[Any]
    cluster: Cluster
    clock: Callable[[], float] = time.monotonic
    _passed: int = 0
    _fetched: float = 0.0
    _running: Any | None = None
    _started: bool = False
    _stuck: float | None = None
    _mention: float = SAID_FIRST_S
    _ours: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._heard = self._since = self.clock()

    @property
    def label(self) -> str:
        return f"{self.job.step} {self.job.key}"

    @property
    def name(self) -> str:
        return str(self.objects[-1].metadata.name)

    # ---- start and end ------------------------------------------------------------------------

    def start(self) -> None:
        """Create the objects that don't exist. Those of an earlier ./reproduce for the same job
        continue; those for another job with this result are ended, or both would write it.
        """
        found = self.cluster.job(self.name)
        if found is not None:
            same = found.metadata.labels.get(SPEC) == self.objects[-1].metadata.labels[SPEC]
            if same and not _ended(found) and not found.metadata.deletion_timestamp:
                say(f"{self.label}: goes on in Kubernetes job {self.name}, which was left there")
                self._started = True
                return
        if found is not None or self.cluster.pods(RUN, self.name):
            self._sweep()
        self._started = True
        try:
            for made in self.objects:
                if not self.cluster.create(made):
                    self.cluster.delete(made)
                    self._await_end()
                    self.cluster.create(made)
        except (UserError, SilenceError):
            self.remove()
            raise

    def _sweep(self) -> None:
        for made in reversed(self.objects):
            self.cluster.delete(made)
        self._await_end()

    def _await_end(self) -> None:
        limit_s = self.scheduler.silence_limit_min * 60
        begun = self.clock()
        while pods := self.cluster.pods(RUN, self.name):
            if self.clock() - begun > limit_s:
                pod = pods[0]
                raise UserError(
                    f"{self.label}: pod {pod.metadata.name}, which an earlier ./reproduce left on "
                    f"node {pod.spec.node_name}, doesn't end; if that node is lost, remove it with "
                    f"kubectl delete pod --force {pod.metadata.name}, and run again"
                )
            time.sleep(POLL_S)

    def remove(self) -> str:
        """Returns a sentence about what was done."""
        if not self._started:
            return "nothing was in Kubernetes"
        try:
            for made in reversed(self.objects):
                self.cluster.delete(made)
        except (SilenceError, UserError) as error:
            return f"Kubernetes didn't delete job {self.name} ({error}), so it goes on"
        return f"Kubernetes job {self.name} was deleted"

    # ---- while it is there --------------------------------------------------------------------

    def look(self) -> int | None:
        """The step's exit status once it has ended, and None before. Raises UserError if it can't
        finish; then it is removed.
        """
        now = self.clock()
        try:
            job = self.cluster.job(self.name)
            pods = self.cluster.pods(RUN, self.name)
        except (SilenceError, LoginError) as error:
            self._silent(now, error)
            return None
        self._heard = now
        own = [pod for pod in pods if _job_of(pod) == self.name]
        pod = own[-1] if own else None
        if self._running is not None and self._running.metadata.name not in (
            pod.metadata.name for pod in own
        ):
            raise self._failure(_vanished(self._where(self._running)))
        if job is None:
            raise self._failure(f"somebody deleted it (Kubernetes job {self.name})")
        if pod is not None and (reason := self._lost(pod)):
            raise self._failure(reason)
        if pod is not None and (ended := _terminated(pod)):
            return self._end(pod, ended, now)
        if condition := _ended(job):
            raise self._failure(self._unfinished(condition, pod))
        if pod is not None and pod.status.phase == "Running":
            self._follow(pod, now)
        waiting = [p for p in (pods if self._several else own) if p.status.phase == "Pending"]
        if waiting or not own:
            self._wait(waiting[0] if waiting else None, now)
        return None

    @property
    def _several(self) -> bool:
        return len(self.objects) > 2

    def _silent(self, now: float, error: Exception) -> None:
        """Raises UserError after the limit; until then, a login may be renewed."""
        if now - self._heard >= self.scheduler.silence_limit_min * 60:
            raise UserError(
                f"{self.label}: the cluster at {self.cluster.host} hasn't answered for "
                f"{self.scheduler.silence_limit_min} min ({error}); Kubernetes job {self.name} "
                "goes on there, and the next ./reproduce with it"
            )
        if isinstance(error, LoginError):
            self.cluster = type(self.cluster)(self.scheduler)

    def _follow(self, pod: Any, now: float) -> None:
        if self._running is None:
            self._running = pod
            say(f"{self.label}: runs on {pod.spec.node_name} (Kubernetes job {self.name})")
        if now - self._fetched >= LOG_S:
            self._pass_on(pod, now)

    def _pass_on(self, pod: Any, now: float) -> str:
        self._fetched = now
        text = self.cluster.log(pod.metadata.name, "step") or ""
        sys.stderr.write(text[self._passed :])
        sys.stderr.flush()
        self._passed = len(text)
        return text

    def _end(self, pod: Any, ended: Any, now: float) -> int:
        text = self._pass_on(pod, now)
        where = self._where(pod)
        if ended.reason == "OOMKilled":
            raise self._failure(
                f"it needed more memory than it had ({where}); raise runtime.memory_gb, or free "
                "some on the node"
            )
        if pod.status.reason == "DeadlineExceeded":
            raise self._failure(_over(where))
        if ended.exit_code and not _errors(text):
            # The manifest asks for the log's end here (FallbackToLogsOnError): nodes keep it when
            # their logs can't be read.
            if errors := _errors(ended.message or ""):
                raise self._failure(f"{errors[-1].removeprefix('error: '):.400} ({where})")
            if ended.reason in (None, "Error", "Completed"):
                said = _line(ended.message)
            else:
                said = ": ".join(filter(None, (ended.reason, _line(ended.message))))
            words = f"it ended with status {ended.exit_code} ({where})"
            raise self._failure(f"{words}; Kubernetes says {said}" if said else words)
        self.remove()
        return int(ended.exit_code)

    def _lost(self, pod: Any) -> str | None:
        """Why a pod was ended, if neither its step nor we ended it."""
        where = self._where(pod)
        disrupted = _condition(pod.status.conditions, "DisruptionTarget")
        reason = disrupted.reason if disrupted else pod.status.reason
        if reason in LOST:
            return _vanished(where)
        if reason == "PreemptionByScheduler":
            return f"others were preferred to it ({where})"
        if disrupted or pod.status.reason == "Evicted":
            message = (disrupted.message if disrupted else pod.status.message) or "no reason given"
            return f"it was evicted ({where}: {' '.join(message.split()):.200})"
        return _vanished(where) if pod.metadata.deletion_timestamp else None

    def _where(self, pod: Any) -> str:
        return f"Kubernetes job {self.name} on {pod.spec.node_name}"

    def _unfinished(self, condition: Any, pod: Any | None) -> str:
        """Raises UserError for a Job that has ended without a container that ended."""
        if condition.reason == "DeadlineExceeded" or (
            pod is not None and pod.status.reason == "DeadlineExceeded"
        ):
            return _over(f"Kubernetes job {self.name}")
        words = _line(condition.message or condition.reason) or "no reason given"
        if pod is not None and (said := pod.status.message or pod.status.reason):
            of = f"{pod.status.reason}: " if pod.status.message and pod.status.reason else ""
            words = f"{of}{_line(said)}"
        return f"Kubernetes ended job {self.name} ({words})"

    def _wait(self, pod: Any | None, now: float) -> None:
        """Handles a pod that hasn't started or doesn't exist yet."""
        waited = now - self._since
        stuck = _stuck(pod) if pod is not None else None
        if pod is not None and stuck is not None:
            self._stuck = now if self._stuck is None else self._stuck
            reason, message = stuck
            if reason in NEVER or now - self._stuck >= PULL_LIMIT_S:
                raise self._failure(_unstartable(pod, reason, message))
        else:
            self._stuck = None
        limit_min = self.scheduler.pending_limit_min
        if waited >= limit_min * 60:
            raise self._failure(
                f"no node for {limit_min} min (Kubernetes says: {self._why(pod)}), which is "
                "scheduler.pending_limit_min"
            )
        if waited >= self._mention:
            self._mention = 2 * waited
            say(
                f"{self.label}: has waited for a node for {waited / 60:.0f} min (Kubernetes says: "
                f"{self._why(pod)})"
            )

    def _why(self, pod: Any | None) -> str:
        """Why it waits, as the cluster says."""
        if pod is None:
            return self.cluster.complaint(self.name) or "there is no pod yet"
        condition = _condition(pod.status.conditions, "PodScheduled")
        if condition is not None and condition.status == "False":
            return f"{' '.join(str(condition.message).split()):.300}"
        return self.cluster.complaint(pod.metadata.name) or "the node prepares it"

    def _failure(self, words: str) -> UserError:
        return UserError(f"{self.label}: {words}; {self._removed()}{GO_ON}")

    def _removed(self) -> str:
        done = self.remove()
        return "" if done.endswith("was deleted") else f"{done}; "


def _unstartable(pod: Any, reason: str, message: str) -> str:
    said = f"{reason}: {message:.400}" if message else reason
    if reason in IMAGE:
        return (
            f"image {pod.spec.containers[0].image} can't be pulled on {pod.spec.node_name} "
            f"({said}); push it where the nodes reach it (scheduler.registry, "
            "scheduler.image_pull_secrets), or load it there"
        )
    return f"its container can't be started on {pod.spec.node_name} ({said})"


def _errors(text: str) -> list[str]:
    """The step's own message about its end."""
    return [line for line in text.splitlines() if line.startswith("error: ")]


def _line(words: str | None) -> str:
    return f"{' '.join((words or '').split()):.400}"


def _vanished(where: str) -> str:
    return f"its node vanished, or somebody deleted its pod ({where}); nothing of it was kept"


def _over(where: str) -> str:
    return f"it ran into its limit ({where}); raise scheduler.time.allowance_min"


def _ended(job: Any) -> Any | None:
    """The Job's condition that says so."""
    conditions = job.status.conditions if job.status else None
    return _condition(conditions, "Failed") or _condition(conditions, "Complete")


def _condition(conditions: Sequence[Any] | None, kind: str) -> Any | None:
    found = [c for c in conditions or () if c.type == kind and (c.status == "True" or _no(kind, c))]
    return found[0] if found else None


def _no(kind: str, condition: Any) -> bool:
    """For this condition the reason is in its opposite."""
    return kind == "PodScheduled" and condition.status == "False"


def _job_of(pod: Any) -> str | None:
    labels = pod.metadata.labels or {}
    return labels.get("batch.kubernetes.io/job-name") or labels.get("job-name")


def _terminated(pod: Any) -> Any | None:
    """How the step has ended; None if it hasn't."""
    for status in pod.status.container_statuses or ():
        if status.name == "step" and status.state and status.state.terminated:
            return status.state.terminated
    return None


def _stuck(pod: Any) -> tuple[str, str] | None:
    """Why a container of it can't start."""
    statuses = [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]
    for status in statuses:
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason and waiting.reason not in STARTING:
            return waiting.reason, _line(waiting.message)
    return None


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    for ending in ENDS:
        signal.signal(ending, signal.SIG_IGN)
    raise InterruptedError


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
