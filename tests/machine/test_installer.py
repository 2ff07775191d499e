"""Where installers get packages from: as pip is told on this machine, and nothing else."""

import os
from pathlib import Path

import pytest

from steps.base import installer
from steps.base.errors import UserError
from tests import wheels


def test_where_packages_are_is_told_as_pip_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configuration files, then their section of install, then the shell."""
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://a:secret@one/simple\nextra-index-url =\n  https://two\n"
        "  https://three\ntarget = /elsewhere\nproxy = http://far:1\n"
        "[install]\nfind-links = /a /b\ntimeout = 5\nuser = 1\n",
        encoding="utf-8",
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_TIMEOUT", "7")
    monkeypatch.setenv("https_proxy", "http://near:2")
    given = installer.sources(wheels.tool() / "bin/python", tmp_path)
    told = installer.for_uv(given)
    assert told["UV_DEFAULT_INDEX"] == "https://a:secret@one/simple"
    assert told["UV_INDEX"].split() == ["https://two", "https://three"]
    assert told["UV_FIND_LINKS"] == "/a,/b"
    assert told["UV_HTTP_TIMEOUT"] == "7"
    assert told["ALL_PROXY"] == "http://far:1" and "https_proxy" not in told
    assert not [name for name in told if "TARGET" in name or "USER" in name.split("_")]
    assert installer.for_pip(given)["PIP_CONFIG_FILE"] == os.devnull
    assert "PIP_TARGET" not in installer.for_pip(given)


@pytest.mark.parametrize(("said", "options"), [("false", []), ("0", []), ("Yes", ["--no-index"])])
def test_a_switch_of_pips_is_on_only_if_it_says_so(
    said: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(f"[global]\nno-index = {said}\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    given = installer.sources(wheels.tool() / "bin/python", tmp_path)
    assert installer.flags(given) == options
    assert ("PIP_NO_INDEX" in installer.for_pip(given)) == bool(options)


def test_a_pip_configuration_that_cant_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("no section\n", encoding="utf-8")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    with pytest.raises(UserError, match="pip can't read its configuration"):
        installer.sources(wheels.tool() / "bin/python", tmp_path)
