"""Packages of one line, as wheels, and what installs them without a network."""

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

from steps.base import venv
from tests.conftest import ROOT

INSTALLS = ("errors", "installer", "locks", "venv")
"""Modules that a checkout needs to make its driver environment."""


def wheel(folder: Path, version: str = "1.0", verdict: str = "VALID", name: str = "tiny") -> Path:
    """A package of one line, as a wheel; the same arguments give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERDICT = {verdict!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for inside, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{inside},sha256={digest.decode()},{len(text)}\n"
    files[f"{about}/RECORD"] = record + f"{about}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(zipfile.ZipInfo(inside), text)
    return path


def locked(*files: Path) -> str:
    """The lock of these wheels."""
    lines = []
    for file in files:
        name, version, *_ = file.name.split("-")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        lines.append(f"{name}=={version} \\\n    --hash=sha256:{digest}\n")
    return "".join(lines)


def checkout(home: Path) -> Path:
    """A project whose only command prints a verdict that needs a package, not locked yet."""
    (home / "envs").mkdir(parents=True)
    for package in ("steps", "steps/base", "steps/commands"):
        (home / package).mkdir()
        (home / package / "__init__.py").touch()
    for name in INSTALLS:
        shutil.copy(ROOT / f"steps/base/{name}.py", home / "steps/base")
    shutil.copy(ROOT / f"envs/{venv.TOOL}.lock", home / "envs")
    shutil.copy(ROOT / "reproduce", home / "reproduce")
    (home / "steps/commands/cli.py").write_text(
        "import tiny\nprint(tiny.VERDICT)\n", encoding="utf-8"
    )
    return home


def share_installer(home: Path) -> None:
    """uv, made once for all tests, in a checkout's own `.envs`."""
    (home / ".envs").mkdir(exist_ok=True)
    (home / ".envs" / tool().name).symlink_to(tool())


def tool() -> Path:
    log = ROOT / ".envs/install.log"
    return venv.tool((ROOT / ".envs").resolve(), ROOT, log, lambda line: None)
