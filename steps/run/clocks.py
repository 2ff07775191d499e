"""`python -m steps.run.clocks POWER -- COMMAND...`: a run at the clocks that it was submitted with.

Only where the site allows it (site.sudo), and then by the vendor's own commands through `sudo -n`,
each printed and logged. What will undo them is written down before the first one: after a kill, the
next ./reproduce of any kind resets them and says so.
"""

import contextlib
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from pydantic import ValidationError

from steps import ROOT
from steps.base import processes, wrapped
from steps.base.errors import UserError, shown
from steps.base.record import write_atomically
from steps.base.strict import Strict
from steps.config.engine import Power
from steps.machine.probes.machine import Prober, of_vendor
from steps.machine.probes.values import Accelerator

STATES = "clocks*.json"
"""In results/: a file for each machine, since several may share them."""

LOG = Path("results/clocks.log")
LIMIT_S = 60.0
"""How long one command may take on eight accelerators."""

DETERMINISM = "perf_determinism"
"""rocm-smi's name of the performance level at which the clock is bounded."""

Command = tuple[str, ...]


def state_of(root: Path, host: str) -> Path:
    return root / f"results/clocks-{host}.json"


class Changed(Strict):
    """What a run has set on this machine: who, where, and the commands that undo it."""

    mark: str
    host: str
    undo: tuple[Command, ...]

    @property
    def typed(self) -> str:
        """What a person types to undo it."""
        return "; ".join(f"sudo {' '.join(command)}" for command in self.undo)

    @property
    def runs(self) -> bool:
        number = self.mark.partition("-")[0]
        return number.isdecimal() and processes.identity(int(number)) == self.mark


def wanted(power: Power, now: Accelerator) -> Iterator[Command]:
    """The commands that bring an accelerator from what it is at to what is wanted."""
    level, clock = now.performance_level, power.perf_determinism_mhz
    if clock and (level, now.max_clock_mhz) != (DETERMINISM, clock):
        yield ("rocm-smi", "--setperfdeterminism", str(clock))
    if not clock and level == DETERMINISM:
        yield ("rocm-smi", "--resetperfdeterminism")
    # Virtual machines have no SoC pstates.
    if now.soc_pstate is not None and now.soc_pstate != power.soc_pstate:
        yield _pstate(power.soc_pstate)


def undoing(power: Power, now: Accelerator) -> Iterator[Command]:
    """The commands that bring it back."""
    for command in wanted(power, now):
        if command[0] == "amd-smi":
            assert now.soc_pstate is not None
            yield _pstate(now.soc_pstate)
        elif now.performance_level == DETERMINISM and now.max_clock_mhz:
            yield ("rocm-smi", "--setperfdeterminism", str(now.max_clock_mhz))
        else:
            yield ("rocm-smi", "--resetperfdeterminism")


def _pstate(number: int) -> Command:
    return ("amd-smi", "set", "--soc-pstate", str(number), "-g", "all")


def set_for_run(power: Power, root: Path) -> Changed | None:
    """What was set, if anything had to be. Raises UserError where sudo or a tool refuses, after
    undoing what was set before.
    """
    for path, held in here(root):
        raise UserError(
            f"{path} still says what resets the clocks of {held.host}: run a command there "
            f"(or type {held.typed}, and delete it), or set site.sudo=false"
        )
    asked = Prober()
    found = of_vendor("AMD", asked)
    if not found:
        said = next(iter(asked.problems), "no tool lists accelerators of AMD")
        raise UserError(f"the clocks can't be set: {said}; or set site.sudo=false")
    now = {(one.performance_level, one.max_clock_mhz, one.soc_pstate) for one in found}
    if len(now) > 1:
        raise UserError(
            "the clocks can't be set: the accelerators are at different ones, and what would reset "
            "each isn't known; reset them (sudo rocm-smi --resetperfdeterminism), or set "
            "site.sudo=false"
        )
    commands, undo = list(wanted(power, found[0])), tuple(undoing(power, found[0]))
    if not commands:
        return None
    changed = Changed(mark=processes.identity(os.getpid()), host=platform.node(), undo=undo)
    path = state_of(root, changed.host)
    write_atomically(path, changed.model_dump_json(indent=1) + "\n")
    for number, command in enumerate(commands):
        if complaint := _done(command, root):
            left = reset(changed.model_copy(update={"undo": undo[:number]}), root, path)
            after = f"what was set before stays ({left})" if left else "none is changed"
            raise UserError(
                f"the clocks can't be set, and {after}: {complaint}; allow these commands without "
                "a password in sudoers, or set site.sudo=false"
            )
    return changed


def reset(changed: Changed, root: Path, path: Path | None = None) -> str:
    """Undo what was set; returns what went wrong, and then what was set stays written down.

    `path`: where it is; None: where it is by now (earlier versions had one file for all).
    """
    complaints = list(filter(None, [_done(command, root) for command in changed.undo]))
    if not complaints:
        (path or state_of(root, changed.host)).unlink(missing_ok=True)
    return "; ".join(complaints)


def _done(command: Command, root: Path) -> str:
    """Run one command as root, print and log it; returns why it failed, or ""."""
    words = ("sudo", "-n", *command)
    with contextlib.suppress(OSError):  # of a connection that has ended: it is done all the same
        print(f"clocks: {' '.join(words)}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S
        )
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        why = f"{' '.join(command)}: {last:.200}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"{' '.join(command)} gave no answer in {LIMIT_S:g} s"
    except OSError as error:
        why = f"sudo can't be started ({error.strerror})"
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with (root / LOG).open("a", encoding="utf-8") as stream:
        stream.write(f"{at} {' '.join(words)}{f': {why}' if why else ''}\n")
    return why


def here(root: Path) -> list[tuple[Path, Changed]]:
    """What is set on this machine, and where it is written down. Raises UserError for a file that
    isn't ours."""
    read = ((path, _read(path)) for path in sorted((root / "results").glob(STATES)))
    return [(path, one) for path, one in read if one and one.host == platform.node()]


def _read(path: Path) -> Changed | None:
    """None if it is gone: another machine that shares results/ has just reset its own."""
    try:
        return Changed.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} should say what resets a machine's clocks and can't be read; reset them "
            "(sudo rocm-smi --resetperfdeterminism; sudo amd-smi set --soc-pstate 0 -g all) and "
            "delete it"
        ) from error


def restore(root: Path) -> str:
    """Reset what a run that was killed had set on this machine; a sentence about it, or ""."""
    own = "the last run was killed before it had reset this machine's clocks"
    said = []
    for path, changed in here(root):
        if changed.runs:
            continue
        complaint = reset(changed, root, path)
        how = f", and they can't be reset now ({complaint}); type: {changed.typed}"
        said.append(own + (how if complaint else ": they are reset now"))
    return "\n".join(said)


def main(arguments: Sequence[str]) -> int:
    processes.die_with_parent(signal.SIGTERM)
    power, _, *command = arguments
    try:
        changed = set_for_run(Power.model_validate_json(power), ROOT)
    except UserError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 1
    try:
        return wrapped.run(command)
    finally:
        if changed is not None and (complaint := reset(changed, ROOT)):
            print(f"error: the clocks can't be reset: {complaint}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
