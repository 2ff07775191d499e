"""The leak check finds what is planted, and nothing else."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from steps.machine.runtime import host
from tests import leaks
from tests.conftest import ROOT

LIMIT_S = 60
PLANTED = {
    "process": "import subprocess; subprocess.Popen(['sleep', '300'], start_new_session=True)",
    "an orphan without a mark": (
        "import subprocess; subprocess.Popen(['sh', '-c', 'env -i sleep 300 & exit'])"
    ),
    "socket": (
        "import os, socket, time\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "if os.fork(): os._exit(0)\n"
        "time.sleep(300)"
    ),
    "temporary": "import tempfile; tempfile.mkdtemp(prefix='vllm_dist_')",
}


def ran(code: str, home: Path) -> tuple[int, dict[str, list[str]]]:
    """The check of one command.

    In a process of its own: it adopts orphans, of which pytest has others.
    """
    program = (
        "import json, sys; from pathlib import Path; from tests import leaks; "
        "leaks.SETTLE_S = 1.0; home = Path(sys.argv[2]); "
        "found = leaks.run([sys.executable, '-c', sys.argv[1]]); "
        "(home / 'found').write_text(json.dumps(found))"
    )
    # Without pipes, which what is left behind would hold open.
    subprocess.run(
        [sys.executable, "-c", program, code, str(home)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(home)},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=LIMIT_S,
    )
    status, left = json.loads((home / "found").read_text())
    return status, left


@pytest.mark.parametrize("what", PLANTED)
def test_what_a_command_leaves_is_found(what: str, tmp_path: Path) -> None:
    status, left = ran(PLANTED[what], tmp_path)
    try:
        assert status == 0
        if what == "temporary":
            (path,) = left["temporary"]
            assert Path(path).name.startswith("vllm_dist_") and Path(path).is_dir()
        else:
            assert len(left["process"]) == 1
        if what == "socket":
            assert any(words.startswith("port ") for words in left["socket"])
    finally:
        for words in left.get("process", []):
            os.kill(int(words.partition(":")[0]), signal.SIGKILL)


def test_what_others_do_meanwhile_is_no_leak(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert str(os.fstat(server.fileno()).st_ino) in Path("/proc/net/tcp").read_text()
        port = server.getsockname()[1]
        seen = leaks.look("no process has this mark", tmp_path)
    assert f"port {port} (tcp)" not in seen.things["socket"].values()
    assert "/" not in seen.things["mount"].values()


def test_what_ends_and_is_removed_is_no_leak(tmp_path: Path) -> None:
    code = "import subprocess, tempfile; tempfile.TemporaryDirectory().cleanup()\n"
    status, left = ran(f"{code}subprocess.Popen(['sleep', '0.3'])", tmp_path)
    assert (status, left) == (0, {})
    assert not list(tmp_path.glob("tests-*")), "its temporary folder is gone too"


def test_an_orphan_that_ends_is_gone_at_once(tmp_path: Path) -> None:
    """Tests wait until a process's folder in /proc is gone."""
    code = (
        "import subprocess, time\nfrom pathlib import Path\n"
        "words = ['sh', '-c', 'sleep 0.2 & echo $!']\n"
        "orphan = Path('/proc', subprocess.check_output(words, text=True).strip())\n"
        "limit = time.monotonic() + 20\n"
        "while orphan.exists(): assert time.monotonic() < limit; time.sleep(0.05)\n"
    )
    assert ran(code, tmp_path) == (0, {})


def test_containers_are_told_by_a_label_that_they_get() -> None:
    assert leaks.CHECKOUT in host.owned(ROOT)


def test_a_container_and_a_mount_are_new_things() -> None:
    before = leaks.Seen({"container": {"docker a": "docker: a"}, "mount": {"1 /": "/"}})
    after = leaks.Seen(
        {
            "container": {"docker a": "docker: a", "podman b": "podman: b x y"},
            "mount": {"1 /": "/", "7 /mnt/x": "/mnt/x"},
        }
    )
    assert after.since(before) == {"container": ["podman: b x y"], "mount": ["/mnt/x"]}


@pytest.mark.parametrize(
    ("found", "expected"),
    [((0, {}), 0), ((5, {}), 5), ((0, {"mount": ["/x"]}), 1), ((5, {"mount": ["/x"]}), 1)],
)
def test_the_command_fails_for_a_leak_and_else_keeps_its_own_status(
    found: tuple[int, dict[str, list[str]]],
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(leaks, "run", lambda command: found)
    assert leaks.main() == expected
    assert capsys.readouterr().err == ("left behind: mount /x\n" if found[1] else "")
