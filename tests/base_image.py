"""The base image of tests, made of Debian's packages: no registry is asked.

It knows where this machine gets its Python packages: the certificates, index and wheels that pip is
told of here are the image's too, so that the recipes of `containers/` need nothing of that.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from steps.base.installer import sources
from tests.conftest import ROOT
from tests.e2e.test_container_engines import BASE
from tests.services import which
from tests.wheels import tool

INCLUDED = "ca-certificates,python3,python3-venv,libnuma1"
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
WHEELS = "/opt/site-wheels"
ADDRESSES = ("index-url", "extra-index-url", "trusted-host")
LIMIT_S = 900


def provide(engines: tuple[str, ...], folder: Path) -> None:
    """Where an engine lacks it, it gets one; both get the same."""
    lacking = [engine for engine in engines if not _has(engine)]
    if not lacking:
        return
    folder.mkdir(parents=True, exist_ok=True)
    archive = _archive(folder / "base.tar")
    context = _context(folder / "context")
    for engine in lacking:
        bare = f"{BASE}-bare"
        _run([engine, "import", str(archive), bare])
        _run([engine, "build", "--tag", BASE, str(context)])
    archive.unlink()
    shutil.rmtree(context)


def _has(engine: str) -> bool:
    asked = [engine, "image", "inspect", BASE]
    return subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0


def _archive(path: Path) -> Path:
    """Debian of this machine's release, from this machine's mirror."""
    options = ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude={o}" for o in LEFT_OUT)]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", *options, f"--include={INCLUDED}"]
    _run([*command, _release(), str(path), *_mirrors()])
    return path


def _release() -> str:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))


def _mirrors() -> list[str]:
    """The first one that apt asks here; none: mmdebstrap's own choice."""
    shown = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(CREATED_BY)"],
        capture_output=True,
        text=True,
        check=False,
    )
    sites = [line.split()[0] for line in shown.stdout.splitlines() if "Packages" in line]
    return sites[:1]


def _context(folder: Path) -> Path:
    """What is built on the bare Debian."""
    folder.mkdir()
    lines = [f"FROM {BASE}-bare"]
    settings = ["[global]", "disable-pip-version-check = true", "timeout = 180"]
    given = sources(tool() / "bin/python", ROOT)
    if "cert" in given:
        shutil.copy(given["cert"], folder / "certificates.crt")
        lines += [f"COPY certificates.crt {CERTIFICATES}"]
        lines += [f"ENV SSL_CERT_FILE={CERTIFICATES} REQUESTS_CA_BUNDLE={CERTIFICATES}"]
        settings.append(f"cert = {CERTIFICATES}")
    settings += [f"{key} = {given[key]}" for key in ADDRESSES if key in given]
    places = [Path(word) for word in given.get("find-links", "").split()]
    wheels = [wheel for place in places if place.is_dir() for wheel in place.glob("*.whl")]
    if wheels:
        (folder / "wheels").mkdir()
        for wheel in wheels:
            shutil.copy(wheel, folder / "wheels")
        lines.append(f"COPY wheels {WHEELS}")
        settings.append(f"find-links = {WHEELS}")
    (folder / "pip.conf").write_text("\n".join(settings) + "\n", encoding="utf-8")
    lines.append("COPY pip.conf /etc/pip.conf")
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _run(command: list[str]) -> None:
    program = which(command[0])
    assert program is not None, command[0]
    done = subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    if done.returncode:
        sys.exit(f"error: {command[0]} made no base image: {(done.stderr or done.stdout)[-1500:]}")
