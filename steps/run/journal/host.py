"""Readings of the host: processors, pressure, memory, sensors. One class each; `read` returns
columns of the journal's next line, `missing` lists those it will never have.

Rates are per second since the call before; the first call begins.
"""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from steps.base.processes import STOPPED, TICK_S
from steps.run.journal.rested import Rested

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
MOST_SENSORS = 8
"""The most of a kind: each is a read that may query a chip or interrupt a processor."""

WORKER = b"steps.run.engines.worker"
"""Part of the command line of an engine's process."""

Columns = dict[str, Any]


def text(path: Path) -> str:
    """The file's text; empty if it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class Change:
    """The growth of counters per second since the last call; new ones are left out."""

    def __init__(self) -> None:
        self._before: Mapping[str, float] = {}
        self._at = time.monotonic()

    def of(self, counters: Mapping[str, float]) -> dict[str, float]:
        now = time.monotonic()
        passed = max(now - self._at, 1e-3)
        known = self._before
        found = {
            name: (value - known[name]) / passed
            for name, value in counters.items()
            if name in known
        }
        self._before, self._at = dict(counters), now
        return found


class Own:
    """Processor time of the run's processes, and which of them are stopped."""

    def __init__(self, proc: Path, run: int, *, elsewhere: bool, share: float) -> None:
        self._proc = proc
        self._run = run
        self._elsewhere = elsewhere
        self._tree = Rested(self._found, share)
        self._last: dict[int, float] = {}
        self._change = Change()
        self._spent_s = 0.0

    def read(self) -> tuple[float, int]:
        """Cores that they used since the last call, and how many are stopped."""
        self._tree.read()
        spent, stopped = {}, 0
        for pid in self._tree.latest or ():
            fields = self._fields(pid)
            if not fields:
                continue
            stopped += fields[0] == STOPPED
            spent[pid] = (int(fields[11]) + int(fields[12])) * TICK_S
        # One that is new has its past behind it.
        self._spent_s += sum(s - self._last[pid] for pid, s in spent.items() if pid in self._last)
        self._last = spent
        return self._change.of({"own": self._spent_s}).get("own", 0.0), stopped

    def _fields(self, pid: int) -> list[str]:
        """The fields from the state on."""
        return text(self._proc / str(pid) / "stat").rpartition(")")[2].split()

    def _found(self) -> list[int]:
        below: dict[int, list[int]] = {}
        every = [int(name) for name in os.listdir(self._proc) if name.isdecimal()]
        for pid in every:
            fields = self._fields(pid)
            if fields:
                below.setdefault(int(fields[1]), []).append(pid)
        found, due = [], [self._run]
        if self._elsewhere:
            due += [pid for pid in every if WORKER in self._command(pid)]
        seen: set[int] = set()
        while due:
            pid = due.pop()
            if pid not in seen:
                seen.add(pid)
                found.append(pid)
                due += below.get(pid, [])
        return found

    def _command(self, pid: int) -> bytes:
        try:
            return (self._proc / str(pid) / "cmdline").read_bytes()
        except OSError:
            return b""


class Processors:
    """Time of the CPUs that the run may use, in cores: `own` and of `others`, `steal`; `busy`, one
    digit per CPU, the tenths of its time that anything used it; `runnable` processes and threads of
    the whole machine; `stopped` processes of the run.
    """

    def __init__(self, root: Path, cpus: Iterable[int], own: Own) -> None:
        self._stat = root / "proc/stat"
        self._cpus = [f"cpu{number}" for number in cpus]
        self._own = own
        self._change = Change()

    def missing(self) -> str | None:
        lines = text(self._stat).splitlines()
        if any(line.split()[0] in self._cpus for line in lines if line.strip()):
            return None
        return f"{self._stat} has no values of this run's CPUs: others, steal and busy are missing"

    def read(self) -> Columns:
        counters: dict[str, float] = {}
        found: Columns = {}
        for line in text(self._stat).splitlines():
            name, *values = line.split()
            if name == "procs_running":
                found["runnable"] = int(values[0])
            elif name in self._cpus:
                ticks = [int(value) for value in values[:8]]
                counters[name] = sum(ticks[:3]) * TICK_S
                counters["steal"] = counters.get("steal", 0.0) + (
                    ticks[7] * TICK_S if len(ticks) > 7 else 0.0
                )
        used = self._change.of(counters)
        own, stopped = self._own.read()
        found |= {"own": round(own, 3), "stopped": stopped}
        if used:
            steal = used.pop("steal")
            busy = [used.get(name, 0.0) for name in self._cpus]
            found["others"] = round(max(sum(busy) - own, 0.0), 3)
            found["steal"] = round(steal, 3)
            found["busy"] = "".join(str(min(int(10 * share), 9)) for share in busy)
        return found


class Pressure:
    """PSI: shares of a second in which some process waited for a CPU, all for memory or a disk."""

    SHOWN = (("cpu", "some"), ("memory", "full"), ("io", "full"))

    def __init__(self, root: Path) -> None:
        self._home = root / "proc/pressure"
        self._change = Change()

    def missing(self) -> str | None:
        if self._counters():
            return None
        return f"{self._home} can't be read: cpu, memory and io pressure are missing"

    def read(self) -> Columns:
        return {name: round(s / 1e6, 3) for name, s in self._change.of(self._counters()).items()}

    def _counters(self) -> dict[str, float]:
        found = {}
        for resource, kind in self.SHOWN:
            for line in text(self._home / resource).splitlines():
                if line.startswith(kind):
                    found[f"{resource}_pressure"] = float(line.rpartition("total=")[2])
        return found


class Memory:
    """`available_mb`, `swap_used_mb`; per second `swapped_mb`, `faults`, `major_faults`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._change = Change()

    def missing(self) -> str | None:
        path = self._root / "proc/meminfo"
        return None if text(path) else f"{path} can't be read: memory is missing"

    def read(self) -> Columns:
        sizes = self._table("proc/meminfo")
        counters = self._table("proc/vmstat")
        shown = ("pgfault", "pgmajfault", "pswpin", "pswpout")
        change = self._change.of({name: counters[name] for name in shown if name in counters})
        found: Columns = {}
        if "MemAvailable:" in sizes:
            found["available_mb"] = round(sizes["MemAvailable:"] / 1024)
        if "SwapTotal:" in sizes:
            found["swap_used_mb"] = round((sizes["SwapTotal:"] - sizes["SwapFree:"]) / 1024)
        if "pgfault" in change:
            found["faults"] = round(change["pgfault"])
        if "pgmajfault" in change:
            found["major_faults"] = round(change["pgmajfault"])
        if "pswpin" in change:
            found["swapped_mb"] = round((change["pswpin"] + change["pswpout"]) * PAGE_MB, 2)
        return found

    def _table(self, name: str) -> dict[str, float]:
        found = {}
        for line in text(self._root / name).splitlines():
            words = line.split()
            if len(words) > 1 and words[1].isdecimal():
                found[words[0]] = float(words[1])
        return found


class Sensors:
    """`hottest_c` of the host's sensors; `mhz`, the mean of some of the run's CPUs."""

    def __init__(self, root: Path, cpus: Iterable[int], share: float) -> None:
        system = root / "sys"
        zones = sorted(system.glob("class/thermal/thermal_zone*/temp"))
        chips = sorted(system.glob("class/hwmon/hwmon*/temp*_input"))
        self._heat = [path for path in [*chips, *zones] if _number(path)][:MOST_SENSORS]
        paths = [system / f"devices/system/cpu/cpu{n}/cpufreq/scaling_cur_freq" for n in cpus]
        there = [path for path in paths if path.is_file()]
        self._clocks = there[:: max(len(there) // MOST_SENSORS, 1)][:MOST_SENSORS]
        self._rested = Rested(self._look, share)

    def missing(self) -> str | None:
        lacks = [
            name
            for name, paths in (("temperature", self._heat), ("frequency", self._clocks))
            if not paths
        ]
        return f"sysfs shows no {' and no '.join(lacks)} of processors" if lacks else None

    def read(self) -> Columns:
        return self._rested.read() or {}

    def _look(self) -> Columns:
        heat, clocks = (
            [value for path in paths if (value := _number(path)) is not None]
            for paths in (self._heat, self._clocks)
        )
        found: Columns = {}
        if heat:
            found["hottest_c"] = round(max(heat) / 1000, 1)
        if clocks:
            found["mhz"] = round(sum(clocks) / len(clocks) / 1000)
        return found


def _number(path: Path) -> float | None:
    words = text(path).strip()
    return float(words) if words.lstrip("-").isdecimal() else None
