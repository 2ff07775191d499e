"""Whether the answers of an accuracy run are good enough."""

from collections.abc import Mapping

from steps.config.axes import AXES
from steps.config.checks import AccuracyCheckConfig
from steps.config.languages import PACKAGES, PATH
from steps.plan.rates import PLACE
from steps.plan.spec import Config, Cost, Facts, StepSpec, short

SCORERS = (
    *("rehearsal", "llama2-70b", "llama3.1-405b", "llama3.1-8b", "mixtral-8x7b"),
    *("stable-diffusion-xl", "gpt-oss-120b"),
)
"""Benchmarks whose answers steps/judge/accuracy_check scores. Of gpt-oss-120b's, programs can't be
judged: steps/judge/scoring/exact.py says which and why."""

SANDBOXED = ("mixtral-8x7b",)
"""Benchmarks whose answers are code, which the check runs."""

NETWORKS = ("clip", "inception")
"""What pictures are scored with, and whose weights the user brings."""

QUICK = frozenset({"cpp", "python"})
"""Languages of the embedded programs: how many a second was measured for these two alone."""

WHOLE_PIXELS = 224
"""The side of what CLIP ViT-B/32 looks at: only small networks score smaller pictures."""

BY_SENTENCES = ("llama3.1-8b",)
"""Benchmarks scored by ROUGE-Lsum, which the round bounds."""


def brings(config: Config) -> str | None:
    scorer = config["scorer"]
    if scorer in BY_SENTENCES and config["nltk_data"] is None:
        return (
            f"{scorer} is scored by sentences, which NLTK's tokenizers/punkt_tab finds: set "
            "benchmark.nltk_data to the directory that holds it"
        )
    for name in NETWORKS if config["weights"] else ():
        if config["weights"][name]["path"] is None:
            return (
                f"{scorer} is scored with {name}, whose weights have to be on this machine: set "
                f"benchmark.scorer_weights.{name}.path"
            )
    return None


def limitation(config: Config) -> str | None:
    scorer = config["scorer"]
    if scorer in SCORERS:
        return None
    return f"this version can't score {scorer}"


def programs(config: Config) -> Mapping[str, str]:
    scorer = config["scorer"]
    if scorer not in SANDBOXED:
        return {}
    found = {
        "bwrap": (
            f"{scorer} is scored by running generated code, which needs bubblewrap "
            "(apt-get install bubblewrap)"
        )
    }
    for language in config["languages"]:
        for tool, package in PACKAGES[language].items():
            found[f"{tool} in {PATH}"] = (
                f"{scorer} is scored by running generated code in {language}, which needs {tool} "
                f"in {PATH} (apt-get install {package})"
            )
    return found


def cost(key: str, config: Config, facts: Facts) -> Cost:
    """The rehearsal's answers take seconds."""
    scorer, rates = config["scorer"], facts.rates.scored_per_s
    if scorer == "rehearsal":
        return short(key, config, facts)
    kind = _kind(config)
    code = scorer in SANDBOXED
    count = facts.samples / 3 if code else facts.samples  # a third of them is code
    basis = f"{scorer}: {rates[kind]:g} answers of {kind} scored in a second ({PLACE})"
    return Cost(count / rates[kind], 0.01, basis=basis, rough=True)


def _kind(config: Config) -> str:
    """What kind of answer is scored: conf/estimates.yaml says how many of it in a second."""
    if weights := config["weights"]:
        return "small images" if weights["side_pixels"] < WHOLE_PIXELS else "images"
    if config["scorer"] in SANDBOXED:
        return "code in C++ and Python" if QUICK.issuperset(config["languages"]) else "code"
    return "text"


SPEC = StepSpec(
    module="steps.judge.accuracy_check",
    says="accuracy of",
    config=AccuracyCheckConfig,
    stage="verdicts",
    environment="scoring",
    place="share",
    axes=AXES,
    needs={
        "run": "accuracy_run",
        "dataset": "dataset",
        "model": "weights",
        "environment": "environment/scoring",
    },
    priority=50,
    every_cell=True,
    limitation=limitation,
    brings=brings,
    programs=programs,
    cost=cost,
)
