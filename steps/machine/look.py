"""Whether the machines at hand have the accelerators that a plan needs, before anything starts.

A plan that needs none pays nothing: what asks and compares is imported where it is used.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from steps.base.errors import UserError

if TYPE_CHECKING:
    from steps.config.accelerators import Accelerator, Vendor
    from steps.config.engine import Placement
    from steps.machine.probes.machine import Prober

Json = Mapping[str, Any]


@dataclass
class Look:
    """The accelerators of this machine and of hosts that a site names, asked of the vendors' tools
    once and only if a run needs some.

    `prober`: what asks here; None: this machine's own tools. `remote`: what asks on a host; None:
    its tools, over SSH.
    """

    prober: "Prober | None" = None
    remote: "Callable[[str], Prober] | None" = None
    _found: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _on: "dict[tuple[str, Vendor], tuple[tuple[Any, ...], str]]" = field(default_factory=dict)

    def missing(self, needed: Json, jobs: Sequence[Json]) -> str:
        """Why runs of a system can't have its accelerators here; "" if they can.

        `needed`: a steps.config.groups.Requirement; `jobs`: of one of the system's cells, those
        that aren't done. What the nodes of a Ray cluster have that somebody else started is looked
        at on each of them, before LoadGen starts (steps/run/placing/nodes.py).
        """
        run = next((job for job in jobs if job["step"].endswith("_run")), None)
        if run is None or needed["model"] is None:
            return ""
        engine = json.loads(run["config"]).get("engine")
        if needed["nodes"] > 1:
            return self._of_hosts(needed, (engine or {}).get("placement", {}))
        from steps.config.accelerators import Accelerator, modes_in
        from steps.machine.probes.differs import unfit

        names = ("model", "memory_gb", "architecture", "count_per_node")
        wanted = Accelerator.model_validate({name: needed[name] for name in names})
        found = self._listed(wanted.vendor)
        why = unfit(wanted, modes_in(engine), found)
        if not found:
            why = self._nothing(wanted.vendor)
        if not why:
            return ""
        return f"{_needs(needed['system'], wanted)}, but on this machine {why}"

    def _listed(self, vendor: Any) -> tuple[Any, ...]:
        from steps.machine.probes.machine import Prober, of_vendor

        if vendor not in self._found:
            self.prober = self.prober or Prober()
            self._found[vendor] = of_vendor(vendor, self.prober)
        return self._found[vendor]

    def _nothing(self, vendor: Any) -> str:
        """Why no tool lists an accelerator: there is none, or its driver or tool is missing."""
        from steps.machine.probes.machine import vendors

        assert self.prober is not None
        if vendor not in vendors(self.prober):
            return f"there is no accelerator of {vendor}"
        return f"no tool lists any ({_reason(self.prober) or 'load the driver'})"

    # ---- several nodes ---------------------------------------------------------------------------

    def _of_hosts(self, needed: Json, raw: Json) -> str:
        if raw.get("cluster") != "ssh" or not raw.get("kinds"):
            return ""
        from steps.base.record import canonical_json
        from steps.config.engine import Placement
        from steps.machine.probes.differs import unfit

        placement = Placement.model_validate_json(canonical_json(raw))
        self._ask(placement)
        for number, host in enumerate(placement.hosts):
            kind = placement.kind(number)
            assert kind is not None
            found, why = self._on[host, kind.accelerator.vendor]
            why = why or unfit(kind.accelerator, kind.modes, found)
            if why:
                wants = _needs(needed["system"], kind.accelerator)
                return f"{wants} on host {host}, but {why.replace(f'host {host} ', 'it ', 1)}"
        return ""

    def _ask(self, placement: "Placement") -> None:
        """All hosts at once: those that don't answer cost one limit together."""
        kinds = map(placement.kind, range(placement.nodes))
        asked = {
            (host, kind.accelerator.vendor)
            for host, kind in zip(placement.hosts, kinds, strict=True)
            if kind is not None
        } - self._on.keys()
        if asked:
            with ThreadPoolExecutor(len(asked)) as pool:
                self._on |= dict(zip(asked, pool.map(self._there, asked), strict=True))

    def _there(self, asked: "tuple[str, Vendor]") -> tuple[tuple[Any, ...], str]:
        """What a host has, or why nobody knows."""
        from steps.machine.probes.machine import Prober, of_vendor
        from steps.machine.probes.remote import on

        host, vendor = asked
        prober = self.remote(host) if self.remote else Prober(run=on(host))
        try:
            prober.run(["true"])
        except UserError as error:
            return (), str(error)
        found = of_vendor(vendor, prober)
        return found, "" if found else f"no tool there lists any ({_reason(prober)})"


def _needs(system: str, wanted: "Accelerator") -> str:
    return f"system {system} needs {wanted.count_per_node} × {wanted.model}"


def _reason(prober: "Prober") -> str:
    said = next((one for one in prober.problems if "accelerator" in one), "")
    return said.partition(": accelerator")[0]
