"""Nodes that a run starts over SSH: Ray on each, ended with the connection.

On this side one ssh per host, with the user's configuration, keys and agent, and without questions.
On the other `python -m steps.run.placing.hosts ADDRESS NUMBER VENDORS` in the checkout: it starts
Ray, and ends it when its stdin closes, as it does however this process ends.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from steps import ROOT
from steps.base import variables
from steps.base.errors import UserError
from steps.base.processes import die_with_parent
from steps.config.accelerators import Vendor
from steps.machine.probes.machine import Prober, of_vendor
from steps.machine.probes.remote import UNREACHABLE, unreachable, words
from steps.run.placing.protection import with_token

LABEL = "reprise-host"
"""Label of a node of Ray: the number of its host in the list."""

END_S = 8.0


def command(
    host: str, checkout: str, python: str, address: str, number: int, vendors: Sequence[Vendor]
) -> list[str]:
    """What starts Ray on one host; `python`: an interpreter, relative to the checkout."""
    module = ["-m", "steps.run.placing.hosts", address, str(number), *vendors]
    return words(host, f"cd {shlex.quote(checkout)} && exec {shlex.join([python, *module])}")


def interpreter() -> str:
    """This interpreter, relative to the checkout, which contains environments."""
    here = Path(sys.executable)
    return str(here.relative_to(ROOT)) if here.is_relative_to(ROOT) else str(here)


def telling(lines: Iterable[str]) -> str:
    """The last line that names an error, else the last one: Ray's messages come late."""
    said = list(lines)
    errors = [line for line in said if re.search(r"(Error|Exception)\b", line)]
    return (errors or said or [""])[-1]


class Hosts:
    """The hosts of one run, from the first connection on."""

    def __init__(
        self,
        names: Sequence[str],
        checkout: str,
        address: str,
        vendors: Iterable[Vendor],
        token: str,
    ) -> None:
        self._names = names
        self._checkout = checkout
        self._address = address
        wanted = sorted(set(vendors))
        self._said: list[deque[str]] = [deque(maxlen=50) for _ in names]
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        for number, name in enumerate(names):
            asked = command(name, checkout, interpreter(), address, number, wanted)
            try:
                process = subprocess.Popen(
                    asked,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                )
            except OSError as error:
                raise UserError(f"ssh can't be started ({error.strerror}); install it") from error
            self._processes.append(process)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # `check` says why it has ended
                process.stdin.write(token + "\n")
                process.stdin.flush()
            reader = threading.Thread(target=self._read, args=(number, process), daemon=True)
            reader.start()
            self._readers.append(reader)

    def check(self) -> None:
        """Raises UserError with the name of a host whose connection ended."""
        for number, process in enumerate(self._processes):
            status = process.poll()
            if status is None:
                continue
            self._readers[number].join(END_S)
            reason = telling(self._said[number]) or f"status {status}"
            name = self._names[number]
            if status == UNREACHABLE:
                raise UserError(unreachable(name, reason))
            raise UserError(
                f"Ray can't be started on host {name}: {reason}; the checkout and its environment "
                f"must be at {self._checkout} there, or where cluster.checkout says"
            )

    def missing(self, joined: set[int]) -> str:
        """A sentence about the hosts that didn't join in time."""
        names = [name for number, name in enumerate(self._names) if number not in joined]
        return (
            f"no node of Ray came from {', '.join(names)} in time; can it reach {self._address}, "
            "without a firewall between?"
        )

    def shutdown(self) -> None:
        """End Ray on every host, and the connections."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        limit = time.monotonic() + END_S
        for process in self._processes:
            try:
                process.wait(max(limit - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _read(self, number: int, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                self._said[number].append(line.strip())
                print(f"{self._names[number]}: {line.rstrip()}", file=sys.stderr, flush=True)


# ---- on a host ---------------------------------------------------------------------------------


def main() -> NoReturn:
    address, number, *vendors = sys.argv[1:]
    known: list[Vendor] = ["AMD" if vendor == "AMD" else "NVIDIA" for vendor in vendors]
    accelerators = max((len(of_vendor(vendor, Prober())) for vendor in known), default=0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the end of stdin says it as well
    ray = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            *("--disable-usage-stats", "--address", address, "--labels", f"{LABEL}={number}"),
            *("--num-gpus", str(accelerators)),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        env={**variables.kept(), **with_token(sys.stdin.readline().strip())},
        preexec_fn=die_with_parent,
    )
    threading.Thread(target=_end_with_stdin, args=(ray,), daemon=True).start()
    status = ray.wait()
    sys.stdout.flush()
    os._exit(status if 0 <= status < UNREACHABLE else 1)


def _end_with_stdin(ray: "subprocess.Popen[bytes]") -> None:
    sys.stdin.buffer.read()
    ray.terminate()
    try:
        ray.wait(END_S / 2)
    except subprocess.TimeoutExpired:
        ray.kill()


if __name__ == "__main__":
    main()
