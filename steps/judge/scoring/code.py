"""MBXP: a solution passes if it and the sample's tests run to their end, in one of six languages.
How they are joined and run: language/mixtral-8x7b/evaluate_mbxp.py (v5.1.1) and the checks of
amazon-science/mxeval that it calls.
"""

import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steps.base.errors import UserError
from steps.config.languages import PACKAGES, PATH
from steps.judge.scoring.sandbox import Sandbox

COMPILE_LIMIT_S = 100
RUN_LIMIT_S = 20
FENCE = "```"
PASSED_STATUSES = range(160, 250)
"""Exit statuses of a Python sample that ran to its end. Each run draws one, because a solution that
ends the process must not pass; no shell, signal or interpreter ends with one of them.
"""

RUNNER = """\
def run():
    import os
    end, failed = os._exit, True
    os.unlink("runner.py")
    try:
        with open("main.py", encoding="utf-8") as stream:
            program = stream.read()
        exec(program, {{}})
        failed = False
    finally:
        end(1 if failed else {passed})
run()
"""
"""As in mxeval: executed in an empty namespace, where __name__ is not "__main__". Once the solution
runs, the status is in no file.
"""


@dataclass(frozen=True)
class Way:
    """How a language is run. `compiled` and `passed` are the exit statuses of success. `passed`
    None: drawn for every run. The others are mxeval's, which counts a program that ends itself with
    0.
    """

    file: str
    compile: str | None
    run: str
    compiled: int = 0
    passed: int | None = 0


LANGUAGES: Mapping[str, Way] = {
    "cpp": Way("main.cpp", "g++ main.cpp -o main_cpp", "./main_cpp"),
    "javascript": Way("main.js", None, "node main.js"),
    "php": Way("main.php", None, "php main.php"),
    "python": Way("main.py", None, "python3 runner.py", passed=None),
    "ruby": Way("main.rb", None, "ruby main.rb"),
    # mxeval goes on where tsc reports errors and yet writes main.js, and only there: without the
    # types of Node every sample has such an error.
    "typescript": Way(
        *("main.ts", "tsc main --target es5 --lib es2016", "node main.js"),
        compiled=2,
    ),
}
"""The reference leaves samples in other languages out of its count."""


def language_of(sample: str) -> str | None:
    """The language in a sample's id, "<language>_<entry point>"; None if it isn't counted."""
    language = sample.split("_", 1)[0]
    return language if language in LANGUAGES else None


def require_tools(languages: Iterable[str]) -> None:
    """Raises UserError naming the first compiler or interpreter that the sandbox would lack."""
    for language in sorted(set(languages)):
        for tool in PACKAGES[language]:
            if shutil.which(tool, path=PATH) is None:
                raise UserError(
                    f"the dataset has samples in {language}, and {tool} is not in {PATH}: install "
                    "it there (the sandbox sees nothing outside /usr)"
                )


def passes(sample: str, tests: str, answer: str, sandbox: Sandbox) -> bool:
    """`answer` is the model's; `tests` are the sample's own."""
    name, _, entry_point = sample.partition("_")
    way = LANGUAGES[name]
    solution = answer.split(FENCE, 1)[0]
    if name == "python":
        solution = solution.lstrip()
        tests = f"\n{tests}\ncheck({entry_point})"
    files = {way.file: solution.replace("\\_", "_") + tests}
    passed = way.passed
    if passed is None:
        passed = secrets.choice(PASSED_STATUSES)
        files["runner.py"] = RUNNER.format(passed=passed)
    limit_s = RUN_LIMIT_S + (COMPILE_LIMIT_S if way.compile else 0)
    return sandbox.run(_script(way), files, limit_s) == passed


def _script(way: Way) -> str:
    run = f"exec timeout -s KILL {RUN_LIMIT_S} {way.run}"
    if way.compile is None:
        return run
    # A status that no program gives when it passes, so that a compiler's failure is none.
    failed = f"[ $? -eq {way.compiled} ] || exit 99"
    return f"timeout -s KILL {COMPILE_LIMIT_S} {way.compile}\n{failed}\n{run}"
