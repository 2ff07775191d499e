"""A measurement's description: user.conf, README.md, the JSON beside them, the code."""

from steps.base.untrusted import Damaged, object_of, shown, text_of
from steps.mlperf.loadgen import USER_CONF
from steps.mlperf.rounds import Round
from steps.submit.validate.findings import Findings, Severity
from steps.submit.validate.tree import Place, Tree

REQUIRED_FILES = (USER_CONF, "README.md")


def check_measurement(tree: Tree, place: Place, rules: Round, findings: Findings) -> None:
    """Check everything but user.conf's content, which is compared with the log."""
    folder = place.measurements
    if not tree.is_directory(folder):
        findings.add("measurement-missing", folder, "the directory is missing")
        return
    files = tree.files(folder)
    for name in REQUIRED_FILES:
        if name not in files:
            findings.add("measurement-file-missing", f"{folder}/{name}", f"{name} is missing")
        elif files[name] == 0:
            findings.add("measurement-file-empty", f"{folder}/{name}", f"{name} is empty")
    names = _descriptions(place, files)
    if not names:
        wanted = place.layout.description.format(system=place.system)
        findings.add("measurement-json-missing", folder, f"no {wanted}")
    for name in names:
        _check_json(tree, f"{folder}/{name}", rules, findings)
        _check_code(tree, place, _implementation(place, name), findings)


def _descriptions(place: Place, files: dict[str, int]) -> list[str]:
    """All candidates of the official checker: it takes the first that the directory lists."""
    return [name for name in files if place.layout.describes(place.system, name)]


def _implementation(place: Place, name: str) -> str:
    """The implementation's name in <system>_<implementation>[_<scenario>].json."""
    ending = f"_{place.scenario}.json"
    end = len(ending) if name.endswith(ending) else len(".json")
    return name[len(place.system) + 1 : -end]


def _check_json(tree: Tree, path: str, rules: Round, findings: Findings) -> None:
    try:
        fields, twice = object_of(tree.at(path))
    except Damaged as damage:
        findings.add("measurement-json-damaged", path, str(damage), line=damage.line)
        return
    for key in twice:
        what = f"{key} is given more than once, the last time as {shown(fields[key])}"
        findings.add("measurement-json-damaged", path, what, severity=Severity.WARNING)
    for name in rules.measurement_fields:
        if not fields.get(name):
            found = shown(fields[name]) if name in fields else "missing"
            findings.add("measurement-field", path, f"{name} is {found}")


def _check_code(tree: Tree, place: Place, implementation: str, findings: Findings) -> None:
    code = place.layout.code
    if not place.layout.code_of_models:
        if not tree.leads_to_directory(f"{place.home}/{code}"):
            findings.add("code-missing", f"{place.home}/{code}", "the directory is missing")
        return
    path = f"{place.home}/{code}/{place.model}"
    if tree.leads_to_directory(path):
        return
    if not tree.is_file(path):
        findings.add("code-missing", path, "the directory is missing")
        return
    try:
        target = text_of(tree.at(path)).strip()
    except Damaged as damage:
        findings.add("code-missing", path, str(damage), line=damage.line)
        return
    if not target or target.startswith("/") or ".." in target.split("/"):
        findings.add("code-outside", path, f"it names {target!r}, which is not below {code}/")
    elif not tree.is_directory(f"{place.home}/{code}/{target}"):
        where = f"{code}/{target}" + (f" (for {implementation})" if implementation else "")
        findings.add("code-missing", path, f"it names {where}, which is missing")
