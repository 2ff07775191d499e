"""Hosts whose checkout, at another path, has no weights yet: a run sends them once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.base.record import Manifest
from tests import hosts
from tests.conftest import reproduce
from tests.e2e.test_images_on_nodes import UNTIL, checkout
from tests.hosts import Host

pytestmark = pytest.mark.e2e

KNOWN = {"node-a": Host("mi325x"), "node-b": Host("mi300x")}
LIMIT_S = 600


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """LoadGen's, and that of both hosts."""
    if reason := hosts.unusable():
        pytest.skip(reason)
    here = checkout(tmp_path_factory.mktemp("here"), Path("/dev/null"))
    there = checkout(tmp_path_factory.mktemp("there"), Path("/dev/null"))
    with (
        hosts.serving(tmp_path_factory.mktemp("ssh"), KNOWN) as environment,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PATH", environment["PATH"])
        yield here, there


def test_weights_are_sent_once_and_engines_load_them_there(checkouts: tuple[Path, Path]) -> None:
    here, there = checkouts
    asked = [
        *("experiment=null-engine", "system=acme", "cluster.hosts=[node-a,node-b]"),
        f"cluster.checkout={there}",
    ]
    status, text = reproduce(here, *asked, "scenario=Offline", *UNTIL, limit_s=LIMIT_S)
    assert status == 0, text
    (sent,) = (path.relative_to(there) for path in there.glob("results/**/manifest.json"))
    there_now = Manifest.read(there / sent)
    assert (there / sent).read_bytes() == (here / sent).read_bytes()
    assert there_now.damage() == [] and there_now.altered() == []
    (run,) = here.glob("results/**/performance_run/manifest.json")
    assert {one["name"].partition("(")[2] for one in Manifest.read(run).result["engines"]} == {
        *("node-a, acme-mi325x)", "node-b, acme-mi300x)"),
    }

    status, text = reproduce(here, *asked, "scenario=Server", *UNTIL, limit_s=LIMIT_S)
    assert status == 0, text
    logs = {path: path.read_text(encoding="utf-8") for path in here.glob("results/**/*.log")}
    told = [path for path, log in logs.items() if f"{sent.parent} is sent" in log]
    assert len(told) == 1 and "Offline" in str(told[0])

    name = next(iter(there_now.files))
    (there / sent).with_name(name).write_bytes(b"of another")
    other = "set.target_qps=77"
    status, text = reproduce(here, *asked, "scenario=Server", other, *UNTIL, limit_s=LIMIT_S)
    assert status != 0
    assert "is damaged" in text and "node-a" in text
