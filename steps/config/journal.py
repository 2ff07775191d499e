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
    """A directory of compiled kernels, or a file: at the path in `variable` of the engine's
    environment, else the `usual` one, if set and engines compute on accelerators.
    """

    name: str
    variable: str
    usual: str | None


class JournalSettings(Strict):
    """`share`: of a core that a look at processes, sensors or caches may cost on average.
    `passing`: ends of names that a cache makes and removes again.
    """

    share: Fraction
    tools: Tools
    caches: tuple[Cache, ...]
    passing: tuple[str, ...]
