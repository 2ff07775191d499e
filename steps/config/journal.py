"""What the journal beside a measured run has in it: conf/journal.yaml as types."""

from steps.base.strict import Fraction, Positive, PositiveNumber, Strict


class Tools(Strict):
    """How amd-smi, rocm-smi or nvidia-smi is asked.

    `limit_s`: of one call. `share`: of a core that all calls may cost on average. `failures`: one
    after another, before the tool isn't asked any more.
    """

    limit_s: PositiveNumber
    share: Fraction
    failures: Positive


class Cache(Strict):
    """A directory of compiled kernels, or one file, that a run looks for new files in.

    `name`: what messages call it. `variable`: of the engine's environment, whose value is its path.
    `usual`: its path where that isn't set, if engines compute on accelerators; null: nothing is
    looked at then.
    """

    name: str
    variable: str
    usual: str | None


class JournalSettings(Strict):
    """What the journal of a run reads, and how often it may.

    `share`: of a core that a look at processes, sensors or caches may cost on average. `tools`: how
    accelerators are asked. `caches`: where compiled kernels appear. `passing`: ends of names that a
    cache makes and removes again.
    """

    share: Fraction
    tools: Tools
    caches: tuple[Cache, ...]
    passing: tuple[str, ...]
