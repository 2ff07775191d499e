"""What names this site: its hosts, users, addresses and paths, and the tokens it holds."""

import ipaddress
import os
import platform
import pwd
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from steps.base.confidential.tokens import SECRET_NAME, strings
from steps.base.record import RECORD, Manifest, Record

SYSTEM_DIRECTORIES = frozenset(
    ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "lost+found", "opt", "proc")
) | frozenset(("run", "sbin", "sys", "usr", "var"))
"""The Filesystem Hierarchy Standard's directories: on every machine, so they identify nothing."""

TELLING_NOTHING = re.compile(r"/(?:bin|boot|dev|etc|lib|lib32|lib64|proc|sbin|sys|usr|opt/rocm)\b")
"""Paths that exist everywhere; a configuration may name them."""

SITE_DIRECTORIES = ("home", "root", "mnt", "media", "srv", "tmp", "Users", "scratch", "nfs")
"""Looked for on every machine: a run may come from another one."""

COMMON = frozenset(
    ("localhost", "localhost.localdomain", "root", "user", "admin", "ubuntu", "debian", "nobody")
)

PUBLIC_HOSTS = ("huggingface.co", "hf.co", "mlcommons.org", "mlcommons-storage.org", "github.com")
"""Public hosts, from which everybody fetches."""

SSH_HOSTS = "hosts"
"""The key of lists of hosts that a run starts over SSH."""

TOKEN_PLACES = ("HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME")
"""Variables that say where Hugging Face's tools keep their token; see token_files."""

TOKEN_BYTES = (8, 4096)
"""Least and greatest length of a token; a shorter value would be found everywhere."""

_PATH = re.compile(r"(?<![\w.:/-])/[\w.+@-]+(?:/[\w.+@%=-]+)+")
_HOST_PORT = re.compile(r"(?<![\w./:-])([A-Za-z][A-Za-z0-9.-]*):\d{3,5}(?!\w)")
_SSH_HOST = re.compile(r"[\w.:@-]+")
_URL = re.compile(r"[a-z]+://[^\s\"'{},]+")


@dataclass
class Known:
    """Literals by kind. `roots` are the directories of `/` below which every path is the site's."""

    tokens: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    roots: set[str] = field(default_factory=lambda: set(SITE_DIRECTORIES))

    def add_host(self, name: str) -> None:
        """A host's name, with and without its domain."""
        for part in (name, name.partition(".")[0]):
            if len(part) > 1 and part.lower() not in COMMON and not part.isdecimal():
                self.hosts.add(part)

    def add_text(self, text: str) -> None:
        """Hosts and paths that a configured value names."""
        for url in _URL.findall(text):
            host = urlsplit(url).hostname or ""
            if not host.endswith(PUBLIC_HOSTS):
                self._add_place(host)
        for host in _HOST_PORT.findall(text):
            self._add_place(host)
        for path in _PATH.findall(_URL.sub(" ", text)):
            if not TELLING_NOTHING.match(path):
                self.paths.add(path)

    def add_config(self, config: Any) -> None:
        """What the values of a step's configuration name."""
        for key, text in strings(config):
            self.add_text(text)
            if key[-1:] == (SSH_HOSTS,):
                self.add_ssh_host(text)
            if key[-2:] == ("token", "file"):
                self.tokens |= token_of(Path(text).expanduser())
            if key and key[-1] in TOKEN_PLACES:  # an engine's environment
                self.tokens |= tokens_in({key[-1]: text})

    def add_ssh_host(self, name: str) -> None:
        """A host as ssh takes it, with or without a user."""
        user, _, host = name.rpartition("@")
        if user and user not in COMMON:
            self.users.add(user)
        self._add_place(host)

    def _add_place(self, host: str) -> None:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            self.add_host(host)
        else:
            if not address.is_loopback:
                self.addresses.add(host)


def of_machine(root: Path) -> Known:
    """The names of this machine and its user, and the user's tokens. `root` is the checkout."""
    known = Known()
    known.add_host(platform.node())
    user = pwd.getpwuid(os.getuid()) if _has_user(os.getuid()) else None
    names = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")}
    known.users |= {n for n in names | {user.pw_name if user else ""} if n and n not in COMMON}
    known.paths |= {str(path) for path in (root, Path.home()) if len(path.parts) > 1}
    known.addresses |= set(_own_addresses())
    known.roots |= {
        path.name
        for path in Path("/").iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name not in SYSTEM_DIRECTORIES
    }
    known.tokens |= own_tokens()
    return known


def own_tokens() -> set[str]:
    """Tokens that this process can read: in variables with a token's name and in the hub's file."""
    least, most = TOKEN_BYTES
    named = {value.strip() for name, value in os.environ.items() if SECRET_NAME.search(name)}
    found = {value for value in named if least <= len(value) <= most}
    # Where an environment leads elsewhere, a library may still look at the usual place.
    return found | tokens_in(os.environ) | tokens_in({})


def tokens_in(environment: Mapping[str, str]) -> set[str]:
    """What is in the hub's files of processes with this environment."""
    return set[str]().union(*(token_of(path) for path in token_files(environment)))


def add_evidence(known: Known, manifests: Iterable[Path], overrides: Iterable[str]) -> None:
    """What results and overrides name: hosts that ran, paths and hosts in configurations."""
    for path in manifests:
        if path.with_name(RECORD).exists():  # else a lock, or weights that the repository ships
            known.add_host(str(Record.read(path).host))
            known.add_config(Manifest.read(path).config)
    for text in overrides:
        name, _, value = text.partition("=")
        known.add_text(value)
        if name.endswith(f".{SSH_HOSTS}"):
            for host in _SSH_HOST.findall(value):
                known.add_ssh_host(host)


def token_of(path: Path) -> set[str]:
    """The file's content if it can be a token; empty if it is absent, too short or too long."""
    least, most = TOKEN_BYTES
    try:
        if path.is_file() and path.stat().st_size <= most:
            text = path.read_text(encoding="utf-8").strip()
            return {text} if len(text) >= least else set()
    except (OSError, ValueError):
        pass
    return set()


def token_files(environment: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Where Hugging Face's tools keep their token, in the order in which they look."""
    if given := environment.get("HF_TOKEN_PATH"):
        yield Path(given)
    caches = environment.get("XDG_CACHE_HOME")
    cache = Path(caches) if caches else Path.home() / ".cache"
    yield Path(environment.get("HF_HOME") or cache / "huggingface") / "token"


def _has_user(number: int) -> bool:
    try:
        pwd.getpwuid(number)
    except KeyError:
        return False
    return True


def _own_addresses(proc: Path = Path("/proc/net")) -> Iterator[str]:
    """From the kernel's tables, without a name server; nothing where they can't be read."""
    for name, read in (("fib_trie", _ipv4), ("if_inet6", _ipv6)):
        try:
            found = read((proc / name).read_text(encoding="utf-8"))
        except OSError:
            continue
        yield from (str(address) for address in found if not address.is_loopback)


def _ipv4(text: str) -> Iterator[ipaddress.IPv4Address]:
    for address in re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", text):
        yield ipaddress.IPv4Address(address)


def _ipv6(text: str) -> Iterator[ipaddress.IPv6Address]:
    for line in text.splitlines():
        yield ipaddress.IPv6Address(int(line.split()[0], 16))
