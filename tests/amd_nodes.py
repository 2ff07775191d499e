"""What the tools of a node of AMD accelerators print: as recorded, and with one thing wrong."""

import copy
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from steps.machine.probes.tools import MissingTool
from tests.recorded_machine import RECORDED


class Printed(NamedTuple):
    """The devices of `amd-smi static --json`, and the cards of `rocm-smi --json`."""

    devices: list[Any]
    cards: list[Any]


def whole(name: str) -> Printed:
    """Eight accelerators of a kind, "mi300x"."""
    read = json.loads((RECORDED / f"amd-smi-static-8x{name}.json").read_text(encoding="utf-8"))
    cards = json.loads((RECORDED / f"rocm-smi-8x{name}.json").read_text(encoding="utf-8"))
    devices = read["gpu_data"] if isinstance(read, dict) else read
    return Printed(list(devices), [card for key, card in cards.items() if key.startswith("card")])


def seven(name: str) -> Printed:
    found = whole(name)
    return Printed(found.devices[:7], found.cards[:7])


def split(name: str) -> Printed:
    """In CPX: each accelerator is eight functions of its place on the bus."""
    found = whole(name)
    devices, cards = [], []
    for device, card in zip(found.devices, found.cards, strict=True):
        for number in range(8):
            part = copy.deepcopy(device)
            part["gpu"] = len(devices)
            part["bus"]["bdf"] = part["bus"]["bdf"].replace(".0", f".{number}")
            part["partition"] = {
                "compute_partition": "CPX",
                "memory_partition": "NPS1",
                "partition_id": number,
            }
            devices.append(part)
            cards.append({**card, "Compute Partition": "CPX"})
    return Printed(devices, cards)


def of_two_kinds(name: str) -> Printed:
    own, other = whole(name), whole("mi325x" if name != "mi325x" else "mi300x")
    return Printed([*own.devices[:4], *other.devices[4:]], [*own.cards[:4], *other.cards[4:]])


WRONG: Mapping[str, Callable[[str], Printed]] = {
    "7 of 8": seven,
    "CPX": split,
    "two kinds": of_two_kinds,
}


def texts(found: Printed) -> dict[str, str]:
    """What each tool prints."""
    cards = {f"card{number}": card for number, card in enumerate(found.cards)}
    return {
        "amd-smi": json.dumps({"gpu_data": found.devices}),
        "rocm-smi": json.dumps({**cards, "system": {"Driver version": "6.10.5"}}),
    }


def printing(found: Printed) -> Callable[[Sequence[str]], str]:
    """Stands in for steps.machine.probes.tools.run."""
    said = texts(found)

    def run(command: Sequence[str]) -> str:
        if command[0] in said and "--showtopotype" not in command:
            return said[command[0]]
        raise MissingTool(f"{command[0]} is not installed")

    return run


def install(folder: Path, found: Printed) -> str:
    """Programs of these names that print it; returns a PATH on which they come first."""
    folder.mkdir(parents=True)
    for name, text in texts(found).items():
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
        tool = folder / name
        tool.write_text(
            f"#!/bin/sh\ncat {shlex.quote(str(folder / name))}.json\n", encoding="utf-8"
        )
        tool.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
