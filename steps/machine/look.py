"""Whether this machine has the accelerators of a plan's systems, asked before anything starts.

A plan that needs none pays nothing: what asks and compares is imported where it is used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steps.machine.probes.machine import Prober

Json = Mapping[str, Any]


@dataclass
class Look:
    """This machine's accelerators, asked of the vendors' tools once and only if a run needs some.

    `prober`: what asks; None: this machine's own tools.
    """

    prober: "Prober | None" = None
    _found: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def missing(self, needed: Json, run: Json) -> str:
        """Why a run of a system can't have its accelerators here; "" if it can.

        `needed`: a steps.config.groups.Requirement; `run`: one of the system's jobs. What several
        nodes have is looked at on each of them, before LoadGen starts (steps/run/placing/nodes.py).
        """
        if needed["model"] is None or needed["nodes"] > 1:
            return ""
        from steps.config.accelerators import Accelerator, modes_in
        from steps.machine.probes.differs import unfit

        names = ("model", "memory_gb", "architecture", "count_per_node")
        wanted = Accelerator.model_validate({name: needed[name] for name in names})
        found = self._listed(wanted.vendor)
        why = unfit(wanted, modes_in(json.loads(run["config"]).get("engine")), found)
        if not found:
            why = self._nothing(wanted.vendor)
        if not why:
            return ""
        return (
            f"system {needed['system']} needs {wanted.count_per_node} × {wanted.model}, but on "
            f"this machine {why}"
        )

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
        said = next((one for one in self.prober.problems if "accelerator" in one), "")
        reason = said.partition(": accelerator")[0]
        return f"no tool lists any ({reason or 'load the driver'})"
