"""Fields of MLCommons' system description from probed nodes, merged over a cluster."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from steps.base.errors import UserError
from steps.machine.probes.values import Node

NUMBERS = ("host_processors_per_node", "accelerators_per_node")
"""The final report takes these as one integer for the whole system."""


def probed(nodes: Mapping[str, Node], configured: Mapping[str, str]) -> dict[str, str]:
    """Field to text, for everything the nodes report; `nodes` maps a name for messages to a node.

    Values that differ are listed with their nodes. Raises UserError for nodes that
    can't be one system: another driver, ROCm or image, or differing counts where the round wants
    one number and `configured` has none.
    """
    _agree(nodes)
    found = {}
    for name, read in PER_NODE.items():
        by_node = {node: read(one) for node, one in nodes.items()}
        if name in NUMBERS and name not in configured and len(set(by_node.values())) > 1:
            raise UserError(
                f"nodes disagree about {name}: {_listed(by_node)}, and the system description "
                f"has one number; configure {name} in the system's fields, or submit the nodes "
                "as systems of their own"
            )
        text = _merged(nodes, by_node)
        if text:
            found[name] = text
    models = _models(nodes)
    if models:
        found["accelerator_model_name"] = models
    return {"number_of_nodes": str(len(nodes)), **found}


def contradictions(
    configured: Mapping[str, str], found: Mapping[str, str], whose: str = "this machine"
) -> list[str]:
    """Configured fields that say another thing than the machine, one phrase each.

    Only those that tell one machine from another: other fields may be worded as the submitter
    likes. A machine may have more accelerators than a system uses, and a CPU's system may be on
    one that has some.
    """
    wrong = []
    for name, differs in TOLD_BY.items():
        ours, theirs = configured.get(name), found.get(name)
        if ours and theirs and differs(ours, theirs):
            wrong.append(f"{name} is configured as {ours!r}, and {whose} has {theirs!r}")
    return wrong


def named_by(id: str, nodes: str) -> dict[str, str]:
    """Fields that a system's name in the submission tree tells, as 8xMI325X_2xEPYC_9575F does. Its
    numbers are those of a node only where there is one. The processor's model isn't taken from it:
    a published system names another than it has (Vultr's 8xMI325X_2xEPYC_9554 of v5.1)."""
    accelerators = re.findall(r"(\d+)x(MI\d{3}[A-Z])", id, re.IGNORECASE)
    processors = re.findall(r"(\d+)x(?:EPYC|Xeon)", id, re.IGNORECASE)
    if len(accelerators) != 1 or len(processors) != 1:
        return {}
    ((count, model),) = accelerators
    counted = {"accelerators_per_node": count, "host_processors_per_node": processors[0]}
    named = {"accelerator_model_name": model.upper()}
    return {**named, **counted} if nodes == "1" else named


def _fewer(ours: str, theirs: str) -> bool:
    return ours.isdecimal() and theirs.isdecimal() and int(ours) > int(theirs)


def _unequal(ours: str, theirs: str) -> bool:
    return ours.isdecimal() and theirs.isdecimal() and int(ours) != int(theirs)


def _unnamed(ours: str, theirs: str) -> bool:
    """Neither name has all words of the other: forms, memory and trademarks are added by some."""
    here, there = (set(re.findall(r"[a-z0-9-]+", text.lower())) for text in (ours, theirs))
    return not here <= there and not there <= here


def _other_model(ours: str, theirs: str) -> bool:
    """The model's number, as MI300X, is what both have to have."""
    numbers = set(re.findall(r"\b[A-Z]{1,3}\d{2,4}[A-Z]{0,2}\b", theirs))
    return bool(numbers) and not numbers & set(re.findall(r"\b[A-Z]{1,3}\d{2,4}[A-Z]{0,2}\b", ours))


SIZE_TOLERANCE = 0.08
"""Firmware keeps a part of memory, and some write 10^9 bytes as GB, some 2^30."""


def _other_size(ours: str, theirs: str) -> bool:
    here, there = _gib(ours), _gib(theirs)
    return here is not None and there is not None and abs(here / there - 1) > SIZE_TOLERANCE


def _gib(text: str) -> float | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([GT])i?B", text.strip())
    return float(match[1]) * {"G": 1, "T": 1024}[match[2]] if match else None


TOLD_BY: Mapping[str, Callable[[str, str], bool]] = {
    "host_processor_model_name": _unnamed,
    "host_processors_per_node": _unequal,
    "host_processor_core_count": _unequal,
    "host_memory_capacity": _other_size,
    "accelerator_model_name": _other_model,
    "accelerators_per_node": _fewer,
    "accelerator_memory_capacity": _other_size,
}
"""Fields that tell one machine from another, and when two values of them contradict."""


def kind_of(node: Node) -> str:
    """What distinguishes nodes of a mixed cluster: the accelerator's, else the processor's name."""
    model = node.accelerators[0].model if node.accelerators else None
    if model:
        return model.split(" Instinct ")[-1]
    return _processor(node) or "CPU"


def _agree(nodes: Mapping[str, Node]) -> None:
    """The nodes of a run share one software stack; otherwise no one description fits its result."""
    same: Mapping[str, Callable[[Node], str]] = {
        "the accelerators' driver": lambda n: _distinct(a.driver for a in n.accelerators),
        "the ROCm release": lambda n: n.rocm or "",
        "the container image": lambda n: n.image or "",
    }
    for what, read in same.items():
        by_node = {name: read(node) for name, node in nodes.items()}
        if len(set(by_node.values())) > 1:
            raise UserError(
                f"nodes disagree about {what}: {_listed(by_node)}; install one on all nodes and "
                "describe them again"
            )


def _listed(by_node: Mapping[str, str]) -> str:
    """ "6.10.5 (a, b), 6.12.12 (c)"."""
    names: dict[str, list[str]] = {}
    for node, value in by_node.items():
        names.setdefault(value or "none", []).append(node)
    return ", ".join(f"{value} ({', '.join(nodes)})" for value, nodes in names.items())


def _merged(nodes: Mapping[str, Node], by_node: Mapping[str, str]) -> str:
    """One value where all agree, else each with the count and kind of its nodes."""
    if len(set(by_node.values())) == 1:
        return next(iter(by_node.values()))
    kinds: dict[str, Counter[str]] = {}
    for name, value in by_node.items():
        kinds.setdefault(value or "unknown", Counter())[kind_of(nodes[name])] += 1
    return ", ".join(
        f"{value} ({', '.join(f'{count}x {kind} node' for kind, count in counts.items())})"
        for value, counts in kinds.items()
    )


def _models(nodes: Mapping[str, Node]) -> str:
    """One model's name; several with their counts, as in published descriptions."""
    counts: Counter[str] = Counter()
    for node in nodes.values():
        name = _accelerator(node)
        if name:
            counts[name] += node.accelerator_count
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} (x{count})" for name, count in counts.items())


# ---- one node -----------------------------------------------------------------------------------


def _distinct(values: Iterable[str | None]) -> str:
    """Joined: accelerators of one node are alike unless something is wrong."""
    return " and ".join(dict.fromkeys(value for value in values if value is not None))


def _accelerator(node: Node) -> str:
    """As published: "AMD Instinct MI300X 192GB HBM3"."""
    one = node.accelerators[0] if node.accelerators else None
    if one is None or one.model is None:
        return ""
    if one.memory_mib is None or "GB" in one.model:
        return one.model
    return f"{one.model} {round(one.memory_mib / 1024)}GB {one.memory_type or ''}".strip()


def _accelerator_memory(node: Node) -> str:
    return _distinct(f"{round(a.memory_mib / 1024)} GB" for a in node.accelerators if a.memory_mib)


def _processor(node: Node) -> str:
    model = node.cpu.model if node.cpu else None
    return re.sub(r"( \d+-Core)? Processor$", "", model) if model else ""


def _count(number: object) -> str:
    return str(number) if number else ""


def _frequency(node: Node) -> str:
    return f"{node.cpu.max_mhz / 1000:.2f} GHz max" if node.cpu and node.cpu.max_mhz else ""


def _memory(node: Node) -> str:
    sizes = [module.gib for module in node.memory_modules]
    gib = float(sum(size or 0 for size in sizes))
    if not all(sizes) or not sizes:
        total = node.memory.total_kib if node.memory else None
        gib = total / 2**20 if total else 0.0
    if not gib:
        return ""
    return f"{gib / 1024:.3g} TiB" if gib >= 1024 else f"{gib:.0f} GiB"


def _memory_modules(node: Node) -> str:
    counts = Counter(
        " ".join(f"{_size(m.gib)} {m.kind} {m.maker} {m.part}".split()) for m in node.memory_modules
    )
    return ", ".join(f"{count}x {module}" for module, count in counts.items())


def _size(gib: float | None) -> str:
    return f"{gib:g} GiB" if gib else ""


def _storage(node: Node) -> str:
    known = [disk.gb for disk in node.disks if disk.gb]
    sizes = [f"{gb / 1000:.1f} TB" if gb >= 1000 else f"{gb:.0f} GB" for gb in known]
    return ", ".join(f"{count}x {size}" for size, count in Counter(sizes).items())


def _storage_type(node: Node) -> str:
    return ", ".join(sorted({disk.kind for disk in node.disks} - {"disk"}))


def _network(node: Node) -> str:
    counts = Counter(
        f"{card.speed_mbit / 1000:g}G {card.kind or ''}".strip()
        for card in node.cards
        if card.speed_mbit
    )
    return ", ".join(f"{count}x {kind}" for kind, count in counts.items())


def _notes(node: Node) -> str:
    parts = [f"{len(node.numa)} NUMA nodes"] if node.numa else []
    compute = _distinct(a.compute_partition for a in node.accelerators)
    memory = _distinct(a.memory_partition for a in node.accelerators)
    parts += [f"compute partition {compute}"] if compute else []
    parts += [f"memory partition {memory}"] if memory else []
    return ", ".join(parts)


def _software(node: Node) -> str:
    parts = [f"Linux {node.kernel}"] if node.kernel else []
    driver = _distinct(a.driver for a in node.accelerators)
    vendor = node.accelerators[0].vendor if node.accelerators else None
    parts += [f"{'amdgpu' if vendor == 'AMD' else 'NVIDIA driver'} {driver}"] if driver else []
    parts += [f"ROCm {node.rocm}"] if node.rocm else []
    if node.containers:
        parts.append(f"{node.containers.engine} {node.containers.version}")
    parts += [f"image {node.image}"] if node.image else []
    return ", ".join(parts)


PER_NODE: Mapping[str, Callable[[Node], str]] = {
    "system_name": lambda n: n.product or "",
    "host_processor_model_name": _processor,
    "host_processors_per_node": lambda n: _count(n.cpu and n.cpu.sockets),
    "host_processor_core_count": lambda n: _count(n.cpu and n.cpu.cores_per_socket),
    "host_processor_frequency": _frequency,
    "host_processor_caches": lambda n: n.cpu.caches if n.cpu else "",
    "host_memory_capacity": _memory,
    "host_memory_configuration": _memory_modules,
    "host_storage_capacity": _storage,
    "host_storage_type": _storage_type,
    "host_networking": _network,
    "host_network_card_count": lambda n: str(len(n.cards)) if n.cards else "",
    "accelerators_per_node": lambda n: str(n.accelerator_count),
    "accelerator_memory_capacity": _accelerator_memory,
    "accelerator_memory_configuration": lambda n: _distinct(a.memory_type for a in n.accelerators),
    "accelerator_frequency": lambda n: _distinct(
        f"{a.max_clock_mhz} MHz max" for a in n.accelerators if a.max_clock_mhz
    ),
    "accelerator_host_interconnect": lambda n: _distinct(a.pcie for a in n.accelerators),
    "accelerator_interconnect": lambda n: n.interconnect or "",
    "operating_system": lambda n: n.operating_system or "",
    "hw_notes": _notes,
    "other_software_stack": _software,
}
"""Machine facts only; nothing that names the host or its addresses. "" if not reported.
"""
