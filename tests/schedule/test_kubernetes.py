"""What Kubernetes is given for a plan, and what is said of what becomes of it there."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from steps.base.errors import UserError
from steps.config.scheduler import Kubernetes, User, Volume
from steps.plan.plan import Job, Plan
from steps.plan.registry import STEPS
from steps.schedule.kubernetes import ask
from steps.schedule.kubernetes.api import Cluster
from steps.schedule.kubernetes.manifests import Manifests, text
from steps.schedule.kubernetes.place import LOG_S, PULL_LIMIT_S, Placed
from steps.schedule.kubernetes.placed import placed
from steps.schedule.kubernetes.pods import Image, Machine
from steps.schedule.kubernetes.run import require_images
from steps.schedule.resources import SHARING, STAYING, Resources
from tests.conftest import ROOT, planned
from tests.schedule.api import TOKEN, Api, kubeconfig, serving

SCHEMA = "1.37"
USER = User(uid=1000, gid=1000)
SITE = ("scheduler=kubernetes", "scheduler.user={uid: 1000, gid: 1000}")
REHEARSAL = ("runtime=docker", "scenario=Offline", *SITE)
AMD = (*SITE, "+scheduler.group_ids.video=44")
MI300X = ("experiment=amd-v5.1", "system=amd-mi300x", "scenario=Offline", *AMD)
MIXED = (
    *("experiment=mangoboost-v5.1", "system=mangoboost-mi300x-mi325x", "scenario=Offline", *AMD),
    "scheduler.registry=registry.site:5000/reprise",
    "scheduler.image_pull_secrets=[registry-login]",
)
IMAGE = Image("registry.site/i@sha256:1", "/opt/reprise/bin/python", True)


def told(plan: Plan, **changes: object) -> Plan:
    """The plan of a site that says something else to the scheduler."""
    scheduler = plan.scheduler.model_copy(update=changes)
    return plan.model_copy(update={"scheduler": scheduler})


def objects_of(plan: Plan, step: str, **settings: object) -> list[dict[str, Any]]:
    """`settings`: what else than planned the runtime says."""
    job = next(job for job in plan.jobs if job.step == step)
    container = json.dumps({**json.loads(job.container), **settings})
    job = job.model_copy(update={"container": container})
    maker = Manifests(plan, Machine(ROOT, USER))
    made = maker.of(job, ["-m", STEPS[step].module, "--config", '{"a":"$x"}'], IMAGE)
    return list(yaml.safe_load_all(text(made)))


def pod_of(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["spec"]["template"]["spec"]
    return found


SDXL = ("experiment=amd-v5.1", "benchmark=stable-diffusion-xl", "scenario=Offline", *AMD)


@pytest.mark.parametrize(
    ("overrides", "strategy", "expected"),
    [
        (MI300X, "single", {"amd.com/gpu": "8"}),
        (MI300X, "mixed", {"amd.com/spx_nps1": "8"}),
        ((*SDXL, "system=amd-mi325x-epyc-9655"), "single", {"amd.com/gpu": "64"}),
        ((*SDXL, "system=amd-mi325x-epyc-9655"), "mixed", {"amd.com/cpx_nps1": "64"}),
    ],
)
def test_a_pod_asks_for_all_devices_of_its_node(
    overrides: tuple[str, ...], strategy: str, expected: dict[str, str]
) -> None:
    plan = told(planned(*overrides), resource_naming_strategy=strategy)
    spec = pod_of(objects_of(plan, "performance_run")[-1])
    limits = spec["containers"][0]["resources"]["limits"]
    assert {name: n for name, n in limits.items() if name.startswith("amd.com/")} == expected
    tolerated = {one["key"] for one in spec["tolerations"]}
    assert {"amd.com/gpu", *expected} <= tolerated


# ---- manifests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [REHEARSAL, MI300X, MIXED], ids=["docker", "mi300x", "mixed"])
def test_every_manifest_is_what_the_api_of_kubernetes_describes(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    plan = planned(*overrides)
    count = 0
    for _, objects in ask.manifests(plan, tmp_path):
        for made in yaml.safe_load_all(text(objects)):
            kubernetes_validate.validate(made, SCHEMA, strict=True)
            count += 1
    assert count >= 8


def test_the_schemas_see_a_wrong_key_and_a_wrong_type() -> None:
    (_, made) = objects_of(planned(*REHEARSAL), "performance_run")
    for path, value in (("backofLimit", 0), ("backoffLimit", "none")):
        wrong = {**made, "spec": {**made["spec"], path: value}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, SCHEMA, strict=True)


def test_a_measured_run_owns_its_node() -> None:
    policy, made = objects_of(planned(*MI300X), "performance_run")
    pod = pod_of(made)
    assert pod["nodeSelector"] == {"amd.com/gpu.device-id": "74a1"}
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"amd.com/gpu": "8"}
    repelled = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert {term["topologyKey"] for term in repelled} == {"kubernetes.io/hostname"}
    keys = [term["labelSelector"]["matchExpressions"][0] for term in repelled]
    # Whatever isn't a DaemonSet's: those have no pod's name, and a revision.
    assert {"key": "controller-revision-hash", "operator": "DoesNotExist"} in keys
    assert {"key": "statefulset.kubernetes.io/pod-name", "operator": "Exists"} in keys
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & policy["spec"].keys(), (
        "nothing reaches it, it reaches nothing"
    )
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= (
        made["spec"]["template"]["metadata"]["labels"].items()
    )


def test_nothing_hangs_and_nothing_is_tried_twice() -> None:
    plan = planned(*MI300X)
    assert isinstance(plan.scheduler, Kubernetes)
    _, made = objects_of(plan, "performance_run")
    limit_s = pod_of(made)["activeDeadlineSeconds"]
    assert limit_s > 3600
    pending_s = plan.scheduler.pending_limit_min * 60
    assert made["spec"]["activeDeadlineSeconds"] == limit_s + pending_s
    assert (made["spec"]["backoffLimit"], pod_of(made)["restartPolicy"]) == (0, "Never")
    assert made["spec"]["podReplacementPolicy"] == "Failed"


def test_a_pod_may_do_little() -> None:
    pod = pod_of(objects_of(planned(*REHEARSAL), "performance_run")[1])
    user = pod["securityContext"]
    assert (user["runAsNonRoot"], user["runAsUser"], user["runAsGroup"]) == (True, 1000, 1000)
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    read_only = {m["mountPath"]: m.get("readOnly") for m in container["volumeMounts"]}
    assert read_only[str(ROOT)] is True and read_only[str(ROOT / "results")] is False
    memory = {v["name"]: v["emptyDir"] for v in pod["volumes"] if "emptyDir" in v}
    assert memory["shm"] == {"medium": "Memory", "sizeLimit": "2048Mi"}
    assert container["args"][-1] == '{"a":"$$x"}', "Kubernetes makes one dollar of two"


def test_a_claim_is_mounted_where_the_checkout_is(tmp_path: Path) -> None:
    volume = Volume(claim="site", mounted_at=str(ROOT.parent))
    plan = told(planned(*REHEARSAL), volume=volume)
    pod = pod_of(objects_of(plan, "performance_run")[1])
    (found,) = [v for v in pod["volumes"] if "emptyDir" not in v]
    assert found["persistentVolumeClaim"] == {"claimName": "site"}
    mounts = {m["mountPath"]: m for m in pod["containers"][0]["volumeMounts"]}
    assert mounts[str(ROOT)]["subPath"] == ROOT.name
    elsewhere = Volume(claim="site", mounted_at=str(tmp_path))
    with pytest.raises(UserError, match=rf"isn't on claim site, .* at {tmp_path}"):
        objects_of(told(plan, volume=elsewhere), "performance_run")


def test_a_mixed_cluster_is_one_job_per_kind_and_ray_between_them() -> None:
    policy, service, *jobs = objects_of(planned(*MIXED), "performance_run")
    kinds = {
        made["metadata"]["labels"]["org.reprise/role"]: (
            made["spec"]["completions"],
            pod_of(made)["nodeSelector"]["amd.com/gpu.device-id"],
        )
        for made in jobs
    }
    assert kinds == {"mi300x": (3, "74a1"), "mi325x": (2, "74a5"), "head": (1, "74a1")}
    head = pod_of(jobs[-1])
    (ray,), (step,) = head["initContainers"], head["containers"]
    assert ray["restartPolicy"] == "Always" and ray["resources"]["limits"] == {"amd.com/gpu": "8"}
    assert "limits" not in step["resources"], "the engines are Ray's"
    joined = pod_of(jobs[0])["containers"][0]["args"]
    assert f"--address={service['metadata']['name']}:6379" in joined
    selected = service["spec"]["selector"].items()
    assert selected <= jobs[-1]["spec"]["template"]["metadata"]["labels"].items()
    assert not selected <= jobs[0]["spec"]["template"]["metadata"]["labels"].items()
    own = {"org.reprise/run": service["metadata"]["name"]}
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": own}}]}]
    assert head["imagePullSecrets"] == [{"name": "registry-login"}]


def test_no_secret_is_in_any_manifest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary0123456789")
    plan = planned(*MIXED)
    everything = "".join(text(objects) for _, objects in ask.manifests(plan, tmp_path))
    assert "registry-login" in everything and "canary" not in everything


def test_a_job_without_an_image_is_refused() -> None:
    natively = [job.model_copy(update={"container": ""}) for job in planned(*REHEARSAL).jobs]
    plan = planned(*REHEARSAL).model_copy(update={"jobs": tuple(natively)})
    with pytest.raises(UserError, match=r"has no image, .*choose runtime=docker or runtime=p"):
        require_images(plan)


def test_several_nodes_without_ray_are_refused() -> None:
    several = ["experiment=null-engine", "runtime=docker", "cluster=2-nodes", "scenario=Offline"]
    plan = planned("scheduler=kubernetes", *several, "hardware.engine.placement.cluster=slurm")
    with pytest.raises(UserError, match=r"set hardware\.engine\.placement\.cluster=auto"):
        require_images(plan)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"groups": ["render"]}, r"scheduler\.group_ids\.render .*getent group render"),
        ({"security": ["label=disable"]}, r"runtime\.security=label=disable can't be expressed"),
        ({"devices": ["/dev/kfd"]}, r"names /dev/kfd: .*set runtime\.devices=\[\]"),
    ],
)
def test_what_kubernetes_cannot_be_told_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        objects_of(planned(*REHEARSAL), "performance_run", **settings)


def test_accelerators_and_nodes_that_are_not_known_are_named() -> None:
    for changes, words in (
        ({"accelerators": {}}, r"no device plugin is known for gfx942"),
        ({"node_labels": {}}, r"nothing distinguishes nodes with mi300x from others"),
    ):
        with pytest.raises(UserError, match=words):
            objects_of(told(planned(*MI300X), **changes), "performance_run")


def test_what_stays_is_limited_by_the_profile() -> None:
    profile = yaml.safe_load((ROOT / "workflow/profiles/kubernetes/profile.yaml").read_text())
    assert profile["resources"] == ["here=2"]
    plan = planned(*REHEARSAL)
    resources = Resources(plan)
    counted = {job.step for job in plan.jobs if resources.of(job) == {"here": 1}}
    assert counted == {job.step for job in plan.jobs} & {*STAYING, *SHARING}
    assert counted == {job.step for job in plan.jobs if not placed(job)}


def test_where_a_job_runs_changes_nothing_of_it() -> None:
    here, there = planned("runtime=docker", "scenario=Offline"), planned(*REHEARSAL)
    assert here.jobs == there.jobs
    assert {job.step for job in there.jobs if placed(job)} == {
        *("describe", "performance_run", "accuracy_run", "compliance_run")
    }


# ---- what becomes of a job ----------------------------------------------------------------------


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as served:
        yield served


class Bench:
    """One run's command at the API, and a clock that a test turns."""

    def __init__(self, api: Api, home: Path) -> None:
        self.api, self.now = api, 0.0
        config = kubeconfig(home / "kubeconfig", api.address)
        plan = told(planned(*REHEARSAL), pending_limit_min=30, kubeconfig=str(config))
        assert isinstance(plan.scheduler, Kubernetes)
        self.scheduler = plan.scheduler
        self.job: Job = next(job for job in plan.jobs if job.step == "performance_run")
        maker = Manifests(plan, Machine(ROOT, USER))
        self.objects = maker.of(self.job, ["-m", STEPS["performance_run"].module], IMAGE)
        self.placed = self.another()

    def another(self) -> Placed:
        cluster = Cluster(self.scheduler)
        return Placed(self.job, self.scheduler, self.objects, cluster, clock=lambda: self.now)

    @property
    def pod(self) -> str:
        (pod,) = self.api.of("pods")
        return str(pod["metadata"]["name"])

    def after(self, seconds: float) -> int | None:
        self.now += seconds
        return self.placed.look()

    def runs(self) -> None:
        self.placed.start()
        self.api.bind(self.pod, "n2")
        self.api.report(self.pod, {"phase": "Running"})
        assert self.after(LOG_S) is None

    def ends(self, status: int, reason: str = "Completed") -> None:
        phase = "Failed" if status else "Succeeded"
        ended = {"terminated": {"exitCode": status, "reason": reason}}
        self.api.report(self.pod, {"phase": phase, "containerStatuses": [container(ended)]})


def container(state: dict[str, Any]) -> dict[str, Any]:
    known = {"name": "step", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return {**known, "state": state}


def waiting(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [container(state)]}


@pytest.fixture
def bench(api: Api, tmp_path: Path) -> Bench:
    return Bench(api, tmp_path)


Said = Callable[[], list[str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return lambda: capsys.readouterr().err.splitlines()


def test_a_run_is_made_followed_and_removed(bench: Bench, said: Said) -> None:
    bench.runs()
    name = bench.placed.name
    assert said() == [f"{bench.placed.label}: runs on n2 (Kubernetes job {name})"]
    bench.api.logs[bench.pod] = "half\n"
    assert bench.after(LOG_S) is None
    bench.api.logs[bench.pod] = "half\nperformance_run: results/x (70 s)\n"
    bench.ends(0)
    assert bench.after(LOG_S) == 0
    assert said() == ["half", "performance_run: results/x (70 s)"]
    assert bench.api.objects == {}


def test_a_step_that_fails_speaks_for_itself(bench: Bench, said: Said) -> None:
    bench.runs()
    bench.api.logs[bench.pod] = "error: performance_run: no model\n"
    bench.ends(1, "Error")
    assert bench.after(1) == 1
    assert said()[1:] == ["error: performance_run: no model"]


def test_a_step_that_ends_without_a_word_is_spoken_for(bench: Bench) -> None:
    bench.runs()
    bench.ends(139, "Error")
    with pytest.raises(UserError, match=r"it ended with status 139 \(Kubernetes job .* on n2"):
        bench.after(1)
    assert bench.api.objects == {}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True",
                             "reason": "DeletionByTaintManager"}]},
            "its node vanished, or somebody",
        ),
        ({"phase": "Failed", "reason": "NodeLost"}, "its node vanished, or somebody"),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"},
            "it was evicted (Kubernetes job",
        ),
        (
            {"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True",
                                                "reason": "PreemptionByScheduler"}]},
            "others were preferred to it (Kubernetes job",
        ),
        (
            {"phase": "Failed", "reason": "DeadlineExceeded"},
            "it ran into its limit (Kubernetes job",
        ),
        (
            {"phase": "Failed", "containerStatuses": [
                container({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})]},
            "it needed more memory than it had (Kubernetes job",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_is_ended_gets_one_sentence(
    bench: Bench, status: dict[str, Any], words: str
) -> None:
    bench.runs()
    bench.api.report(bench.pod, status)
    with pytest.raises(UserError) as raised:
        bench.after(1)
    text = str(raised.value)
    assert text.startswith(f"{bench.placed.label}: {words}") and "\n" not in text
    assert text.endswith("; ./reproduce goes on from what is finished")
    assert bench.api.objects == {}, "nothing stays"


def test_an_image_that_is_nowhere_is_named(bench: Bench) -> None:
    bench.placed.start()
    bench.api.bind(bench.pod, "n2")
    bench.api.report(bench.pod, waiting("ImagePullBackOff", "Back-off pulling image"))
    assert bench.after(1) is None, "registries have bad minutes"
    assert bench.after(PULL_LIMIT_S - 1) is None
    with pytest.raises(UserError, match=r"image registry.site/i@sha256:1 can't be pulled on n2"):
        bench.after(2)


def test_an_image_that_never_comes_is_named_at_once(bench: Bench) -> None:
    bench.placed.start()
    bench.api.report(bench.pod, waiting("ErrImageNeverPull", "not present with pull policy Never"))
    with pytest.raises(UserError, match=r"ErrImageNeverPull: not present .*scheduler.registry"):
        bench.after(1)


@pytest.mark.parametrize("reason", ["CreateContainerError", "RunContainerError", "SomethingNew"])
def test_a_container_that_cannot_be_made_is_given_up_with_its_reason(
    bench: Bench, reason: str
) -> None:
    bench.placed.start()
    bench.api.bind(bench.pod, "n2")
    said = 'failed to prepare subPath for volumeMount "site" of container "step"'
    bench.api.report(bench.pod, waiting(reason, said))
    assert bench.after(1) is None, "a node has bad minutes"
    assert bench.after(PULL_LIMIT_S - 1) is None
    with pytest.raises(UserError, match=rf"can't be started on n2 \({reason}: failed to prepare s"):
        bench.after(2)


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_is_being_made_is_waited_for(bench: Bench, reason: str) -> None:
    bench.placed.start()
    bench.api.bind(bench.pod, "n2")
    bench.api.report(bench.pod, waiting(reason, ""))
    assert [bench.after(PULL_LIMIT_S) for _ in range(3)] == [None] * 3


REJECTED = "Pod was rejected: Allocate failed due to no healthy devices present"
RUNC = 'OCI runtime create failed: error mounting "/data": no such file or directory'


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": REJECTED},
            rf"\(UnexpectedAdmissionError: {REJECTED}\)",
        ),
        ({"phase": "Failed", "reason": "OutOfcpu"}, r"\(OutOfcpu\)"),
        (
            {"terminated": {"exitCode": 128, "reason": "StartError", "message": RUNC}},
            rf"status 128 .*; Kubernetes says StartError: {RUNC}",
        ),
        (
            {
                "terminated": {
                    "exitCode": 1,
                    "reason": "Error",
                    "message": "a\nerror: x: no file\nb",
                }
            },
            r": x: no file \(Kubernetes job .* on n2\)",
        ),
        (
            {"terminated": {"exitCode": 3, "reason": "Error", "message": "Bus error\n"}},
            r"status 3 .*; Kubernetes says Bus error",
        ),
        ({"terminated": {"exitCode": 3, "reason": "Error"}}, r"status 3 \(Kubernetes job .* n2\);"),
    ],
)
def test_what_kubernetes_says_of_an_end_is_passed_on(
    bench: Bench, status: dict[str, Any], words: str
) -> None:
    bench.placed.start()
    bench.api.bind(bench.pod, "n2")
    bench.api.denied.add(("get", "pods"))  # nor is there a log to be had
    if "terminated" in status:
        status = {"phase": "Failed", "containerStatuses": [container(status)]}
    bench.api.report(bench.pod, status)
    with pytest.raises(UserError, match=words):
        bench.after(1)


def test_a_pod_without_a_node_is_mentioned_and_given_up(bench: Bench, said: Said) -> None:
    bench.placed.start()
    why = "0/3 nodes are available: 3 Insufficient amd.com/gpu."
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    bench.api.report(bench.pod, {"conditions": [{**unschedulable, "message": why}]})
    assert bench.after(299) is None and said() == []
    assert bench.after(2) is None
    (line,) = said()
    assert line == f"{bench.placed.label}: has waited for a node for 5 min (Kubernetes says: {why})"
    with pytest.raises(UserError, match=r"no node for 30 min .*3 Insufficient amd.com/gpu"):
        bench.after(1800)
    assert bench.api.objects == {}


def test_a_quota_that_lets_no_pod_be_made_is_said(bench: Bench, said: Said) -> None:
    bench.placed.start()
    bench.api.vanish(bench.pod)
    bench.api.warnings[bench.placed.name] = "pods is forbidden: exceeded quota: gpus"
    assert bench.after(301) is None
    assert "exceeded quota: gpus" in said()[0]


def test_an_api_that_falls_silent_is_waited_for_and_then_said(bench: Bench) -> None:
    bench.runs()
    bench.api.token = "another"  # as a login that has run out
    assert bench.after(60) is None
    bench.api.token = TOKEN
    assert bench.after(15 * 60) is None, "it has answered in between"
    bench.api.token = "another"
    assert bench.after(15 * 60 - 1) is None
    with pytest.raises(UserError, match=r"hasn't answered for 15 min .*the next ./reproduce"):
        bench.after(2)


def test_the_next_reproduce_goes_on_with_a_run_that_was_left(bench: Bench, said: Said) -> None:
    bench.runs()
    bench.placed = bench.another()
    created = sum(line.startswith("POST") for line in bench.api.seen)
    bench.placed.start()
    assert sum(line.startswith("POST") for line in bench.api.seen) == created
    assert "goes on in Kubernetes job" in said()[-1]
    bench.ends(0)
    assert bench.after(1) == 0


def test_a_run_that_was_left_of_another_configuration_makes_room(bench: Bench) -> None:
    bench.runs()
    bench.objects[-1].metadata.labels["org.reprise/spec"] = "another"
    bench.placed = bench.another()
    bench.placed.start()
    (job,) = bench.api.of("jobs")
    assert job["metadata"]["labels"]["org.reprise/spec"] == "another"
    assert any(line.startswith("DELETE") for line in bench.api.seen)


def test_what_somebody_deletes_is_said(bench: Bench) -> None:
    bench.runs()
    bench.api.vanish(bench.pod)
    with pytest.raises(UserError, match="its node vanished, or somebody"):
        bench.after(1)
    bench.placed = bench.another()
    bench.placed.start()
    bench.api.delete("jobs", bench.placed.name)
    with pytest.raises(UserError, match="somebody deleted it"):
        bench.after(1)


def test_a_job_that_is_refused_leaves_nothing(bench: Bench) -> None:
    bench.api.refusal = (422, 'Job "x" is invalid: spec: Required')
    with pytest.raises(UserError, match="refused the job"):
        bench.placed.start()
    assert bench.api.objects == {}


# ---- before anything is started -----------------------------------------------------------------


def check(api_address: str, home: Path, token: str = TOKEN) -> None:
    config = kubeconfig(home / "kubeconfig", api_address, token)
    ask.check(told(planned(*REHEARSAL), kubeconfig=str(config)), home)


def test_the_first_job_of_each_step_is_tried_out(api: Api, tmp_path: Path) -> None:
    check(api.address, tmp_path)
    kinds = [made["kind"] for made in api.tried]
    assert kinds.count("Job") == 4 and kinds.count("NetworkPolicy") == 4
    assert api.objects == {}


def test_everything_that_is_not_allowed_is_named(api: Api, tmp_path: Path) -> None:
    api.denied = {("create", "jobs"), ("get", "pods/log")}
    with pytest.raises(UserError, match=r"you may not create jobs, get pods/log in namespace def"):
        check(api.address, tmp_path)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, 'jobs is forbidden: exceeded quota: "q"'), "doesn't allow it .*exceeded quota"),
        ((422, 'Job "x" is invalid: spec: Required'), "refused the job: Job .* Required"),
        ((400, "admission webhook denied it"), "refused the job: admission webhook denied it"),
        (
            (404, 'namespaces "default" not found'),
            'refused the job: namespaces "default" not found',
        ),
        (
            (503, "etcdserver: leader changed"),
            "doesn't answer .status 503: etcdserver: leader changed",
        ),
    ],
)
def test_what_the_api_refuses_is_said_in_its_words(
    api: Api, tmp_path: Path, refusal: tuple[int, str], words: str
) -> None:
    api.refusal = refusal
    with pytest.raises(UserError, match=words):
        check(api.address, tmp_path)


def test_a_token_that_is_not_known_is_said(api: Api, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"doesn't know you \(Unauthorized\); log in again"):
        check(api.address, tmp_path, token="old")


def test_an_api_that_is_not_there_is_said(tmp_path: Path) -> None:
    with serving() as gone:
        address = gone.address
    with pytest.raises(UserError, match=r"doesn't answer \(.*refused.*\); nothing was started"):
        check(address, tmp_path)


def test_a_kubeconfig_that_is_none_is_said(tmp_path: Path) -> None:
    scheduler = told(planned(*REHEARSAL), kubeconfig=str(tmp_path / "absent")).scheduler
    assert isinstance(scheduler, Kubernetes)
    with pytest.raises(UserError, match=r"no usable kubeconfig .*absent .*kubectl get pods"):
        Cluster(scheduler)
