"""MBXP: a solution passes if it and the sample's tests run through, in one of six languages.

What is joined and how it is run: language/mixtral-8x7b/evaluate_mbxp.py (v5.1.1) and the checks of
amazon-science/mxeval that it calls.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steps.base.errors import UserError
from steps.judge.scoring.sandbox import PATH, Sandbox

COMPILE_LIMIT_S = 100
RUN_LIMIT_S = 20
FENCE = "```"
PYTHON_PASSED = 77
"""Exit status of a Python sample that ran through: exit() in a solution is no pass."""

RUNNER = f"""\
import os
try:
    with open("main.py", encoding="utf-8") as stream:
        program = stream.read()
    exec(program, {{}})
except BaseException:
    os._exit(1)
os._exit({PYTHON_PASSED})
"""
"""As in mxeval: executed in an empty namespace, where __name__ is not "__main__"."""


@dataclass(frozen=True)
class Language:
    """`tools` must be there; `compiled` and `passed` are the exit statuses that count as such."""

    file: str
    tools: tuple[str, ...]
    compile: str | None
    run: str
    compiled: int = 0
    passed: int = 0


LANGUAGES: Mapping[str, Language] = {
    "cpp": Language("main.cpp", ("g++",), "g++ main.cpp -o main_cpp", "./main_cpp"),
    "javascript": Language("main.js", ("node",), None, "node main.js"),
    "php": Language("main.php", ("php",), None, "php main.php"),
    "python": Language("main.py", ("python3",), None, "python3 runner.py", passed=PYTHON_PASSED),
    "ruby": Language("main.rb", ("ruby",), None, "ruby main.rb"),
    # mxeval goes on where tsc reports errors and yet writes main.js, and only there: without the
    # types of Node every sample has such an error.
    "typescript": Language(
        *("main.ts", ("tsc", "node"), "tsc main --target es5 --lib es2016", "node main.js"),
        compiled=2,
    ),
}
"""The reference leaves samples in other languages out of its count."""


def language_of(sample: str) -> str | None:
    """Of a sample's id, "<language>_<entry point>"; None for one that isn't counted."""
    language = sample.split("_", 1)[0]
    return language if language in LANGUAGES else None


def require_tools(languages: Iterable[str]) -> None:
    """Raises UserError naming the first compiler or interpreter that the sandbox would lack."""
    for language in sorted(set(languages)):
        for tool in LANGUAGES[language].tools:
            if shutil.which(tool, path=PATH) is None:
                raise UserError(
                    f"the dataset has samples in {language}, and {tool} is not in {PATH}: install "
                    "it there (the sandbox sees nothing outside /usr)"
                )


def passes(sample: str, tests: str, answer: str, sandbox: Sandbox) -> bool:
    """`answer` as the model gave it; `tests` are the sample's own."""
    name, _, entry_point = sample.partition("_")
    language = LANGUAGES[name]
    solution = answer.split(FENCE, 1)[0]
    if name == "python":
        solution = solution.lstrip()
        tests = f"\n{tests}\ncheck({entry_point})"
    files = {language.file: solution.replace("\\_", "_") + tests}
    if name == "python":
        files["runner.py"] = RUNNER
    limit_s = RUN_LIMIT_S + (COMPILE_LIMIT_S if language.compile else 0)
    return sandbox.run(_script(language), files, limit_s) == language.passed


def _script(language: Language) -> str:
    run = f"exec timeout -s KILL {RUN_LIMIT_S} {language.run}"
    if language.compile is None:
        return run
    # A status that no program gives when it passes, so that a compiler's failure is none.
    failed = f"[ $? -eq {language.compiled} ] || exit 99"
    return f"timeout -s KILL {COMPILE_LIMIT_S} {language.compile}\n{failed}\n{run}"
