"""The accelerators' present state from their vendor's tool. A call never delays the journal."""

import contextlib
import csv
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from steps.machine.probes.losses import Losses
from steps.machine.probes.tools import (
    Parser,
    are_records,
    json_in,
    parser,
    program,
    record_of,
    rocm_cards,
    unknown_format,
)
from steps.run.journal.order import Tool

Device = dict[str, Any]
"""`mhz`, `memory_mhz`, `w`, `c`, `used_mib`, `throttled` (reasons), `violations` (how often each
reason was one since the machine's start) and `errors` (uncorrectable ones since then), as far as
the tool says them."""

NVIDIA_FIELDS = (
    *("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "memory.used"),
    *("clocks_throttle_reasons.active", "ecc.errors.uncorrected.volatile.total"),
)
NVIDIA_REASONS = {
    0x1: "gpu idle",
    0x2: "applications clocks setting",
    0x4: "sw power cap",
    0x8: "hw slowdown",
    0x10: "sync boost",
    0x20: "sw thermal slowdown",
    0x40: "hw thermal slowdown",
    0x80: "hw power brake slowdown",
    0x100: "display clock setting",
}
"""Bits of clocks_throttle_reasons.active: nvml.h, nvmlClocksEventReasons."""

VIOLATION, ACCUMULATED = "_violation_status", "_accumulated"


@parser("nvidia-smi")
def nvidia_smi(answer: str, lost: Losses) -> list[Device]:
    """`nvidia-smi --query-gpu=NVIDIA_FIELDS --format=csv,noheader,nounits`; warnings of single
    devices before and after the lines have another number of fields."""
    lines = csv.reader(answer.splitlines(), skipinitialspace=True)
    rows = [row for row in lines if len(row) == len(NVIDIA_FIELDS)]
    if not rows:
        raise unknown_format("nvidia-smi", f"line of {len(NVIDIA_FIELDS)} fields")
    return [_nvidia(row) for row in rows]


def _nvidia(row: Sequence[str]) -> Device:
    mhz, memory_mhz, w, c, used, reasons, errors = row
    found = _known(mhz=mhz, memory_mhz=memory_mhz, w=w, c=c, used_mib=used, errors=errors)
    if reasons.startswith("0x"):
        bits = int(reasons, 16)
        found["throttled"] = [name for bit, name in NVIDIA_REASONS.items() if bits & bit]
    return found


@parser("amd-smi")
def amd_smi(answer: str, lost: Losses) -> list[Device]:
    """`amd-smi metric --json`: a list, in releases since ROCm 7 inside {"gpu_data": ...}."""
    whole = json_in(answer, "amd-smi", "list of devices", _has_devices)
    devices = whole["gpu_data"] if isinstance(whole, dict) else whole
    return [_amd(device) for device in devices if "clock" in device or "power" in device]


def _has_devices(value: Any) -> bool:
    return are_records(value.get("gpu_data") if isinstance(value, dict) else value)


def _amd(device: Mapping[str, Any]) -> Device:
    clock, power, heat, memory, ecc, throttle = (
        record_of(device.get(name))
        for name in ("clock", "power", "temperature", "mem_usage", "ecc", "throttle")
    )
    clocks = [record_of(one).get("clk") for name, one in clock.items() if name.startswith("gfx_")]
    running = [mhz for value in clocks for mhz in _known(mhz=_plain(value)).values()]
    found = _known(
        memory_mhz=_plain(record_of(clock.get("mem_0")).get("clk")),
        w=_plain(power.get("socket_power")),
        c=_plain(heat.get("hotspot")),
        used_mib=_plain(memory.get("used_vram")),
        errors=_plain(ecc.get("total_uncorrectable_count")),
    )
    if running:
        found["mhz"] = max(running)
    states = {name: value for name, value in throttle.items() if name.endswith(VIOLATION)}
    if any("ACTIVE" in state for value in states.values() for state in _leaves(value)):
        found["throttled"] = [
            name.removesuffix(VIOLATION).replace("_", " ")
            for name, value in states.items()
            if any(state == "ACTIVE" for state in _leaves(value))
        ]
    counted = {
        name.removesuffix(ACCUMULATED).removesuffix("_violation").replace("_", " "): numbers
        for name, value in throttle.items()
        if name.endswith(ACCUMULATED)
        and (numbers := [n for leaf in _leaves(value) for n in _known(n=leaf).values()])
    }
    if counted:
        found["violations"] = {name: sum(numbers) for name, numbers in counted.items()}
    return found


def _leaves(value: Any) -> list[str]:
    """Reasons in one state, or in one for each part of the device."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for part in value for leaf in _leaves(part)]
    return [str(value)]


@parser("rocm-smi")
def rocm_smi(answer: str, lost: Losses) -> list[Device]:
    """`rocm-smi --showclocks --showpower --showtemp --showmemuse... --json`; no throttling."""
    _, cards = rocm_cards(answer)
    return [_rocm({key: str(value) for key, value in card.items()}) for card in cards]


def _rocm(card: Mapping[str, str]) -> Device:
    def field(pattern: str) -> str | None:
        key = next((key for key in card if re.fullmatch(pattern, key)), None)
        return card[key].strip("()").lower().removesuffix("mhz") if key else None

    found = _known(
        mhz=field(r"sclk clock speed:?"),
        memory_mhz=field(r"mclk clock speed:?"),
        w=field(r"(current socket|average) graphics package power \(w\)"),
        c=field(r"temperature \(sensor junction\) \(c\)"),
    )
    used = _known(bytes=field(r"vram total used memory \(b\)"))
    if used:
        found["used_mib"] = round(used["bytes"] / 2**20)
    return found


def _plain(value: Any) -> str | None:
    """A reading: a number, or a value with its unit."""
    found = value.get("value") if isinstance(value, dict) else value
    return None if found is None else str(found)


def _known(**fields: str | None) -> Device:
    """The values that are numbers: tools write "N/A", "[N/A]" or "[Not Supported]" for others."""
    found = {}
    for name, value in fields.items():
        if value and re.fullmatch(r"-?\d+(\.\d+)?", value.strip()):
            found[name] = float(value)
    return found


ASKED: Mapping[Tool, tuple[tuple[str, ...], Parser[list[Device]]]] = {
    "amd-smi": (("metric", "--json"), amd_smi),
    "rocm-smi": (
        ("--showclocks", "--showpower", "--showtemp", "--showmeminfo", "vram", "--json"),
        rocm_smi,
    ),
    "nvidia-smi": (
        (f"--query-gpu={','.join(NVIDIA_FIELDS)}", "--format=csv,noheader,nounits"),
        nvidia_smi,
    ),
}


class Accelerators:
    """`accelerators`: a Device each, in the tool's order; `unanswered`: why it is no longer asked.
    A call is started, and checked at the next line; it may take `limit_s`, and calls are so
    frequent that they cost `share` of a core.
    """

    def __init__(self, tool: Tool, limit_s: float, share: float, failures: int) -> None:
        self._tool = tool
        self._limit_s = limit_s
        self._share = share
        self._failures_left = self._failures = failures
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._begun_s = self._due_s = 0.0
        self._spent_s = _children_s()

    def missing(self) -> str | None:
        return None if program(self._tool) else f"{self._tool} is not installed"

    def read(self) -> dict[str, Any]:
        now = time.monotonic()
        if self._process is None:
            if self._failures_left and now >= self._due_s:
                return self._begin(now)
            return {}
        if self._process.poll() is None:
            if now - self._begun_s < self._limit_s:
                return {}
            self.close()
            return self._failed(f"gave no answer in {self._limit_s:g} s")
        return self._ended(self._process.returncode, now)

    def _begin(self, now: float) -> dict[str, Any]:
        words, _ = ASKED[self._tool]
        name = program(self._tool)
        if name is None:
            self._failures_left = 0
            return {"unanswered": f"{self._tool} is not installed"}
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe would be full at 64 KiB
        self._begun_s = now
        try:
            self._process = subprocess.Popen(
                [name, *words],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
        except OSError as error:
            return self._failed(f"can't be started ({error.strerror})")
        return {}

    def _ended(self, status: int, now: float) -> dict[str, Any]:
        assert self._output is not None
        self._process = None
        spent_s = _children_s()
        self._due_s = self._begun_s + (spent_s - self._spent_s) / self._share
        self._spent_s = spent_s
        self._output.seek(0)
        answer = self._output.read().decode(errors="replace")
        self._output.close()
        try:
            devices = ASKED[self._tool][1](answer)  # there may be one beside a status of failure
        except Exception as error:  # whatever it is, it costs this column only
            return self._failed(f"fails with status {status}" if status else str(error))
        self._failures_left = self._failures
        return {"accelerators": devices}

    def _failed(self, why: str) -> dict[str, Any]:
        self._failures_left -= 1
        why = why if why.startswith(self._tool) else f"{self._tool} {why}"
        return {} if self._failures_left else {"unanswered": f"{why}; it is no longer asked"}

    def close(self) -> None:
        """End a running call; one that hangs in a driver is left to the system."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
            self._process = None
        if self._output is not None:
            self._output.close()


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
