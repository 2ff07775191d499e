"""The reference of configuration keys and the schema for editors are those of the types."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from steps import ROOT
from tests.docs import replaced
from tests.docs.reference import PAGE, SCHEMA, descriptions, listed, page, schema_text

TUTORIAL = ROOT / "docs/tutorial/partner-rerun.md"
SYSTEMS = sorted((ROOT / "conf/system").glob("*.yaml"))
LISTED = re.compile(r"(?:^|[.;] )`(\w+)`:")
KEYS = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_both_files_are_what_the_types_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run make reference"
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run make reference"


def test_the_table_of_the_dress_rehearsal_is_that_of_its_files() -> None:
    assert replaced.PAGE.read_text(encoding="utf-8") == replaced.page(), "run make reference"


def test_every_key_of_every_type_has_a_row() -> None:
    text = page()
    for _, models in listed():
        for model in models:
            part = text.split(f"### {model.__name__}\n", 1)[1].split("\n### ", 1)[0]
            assert KEYS.findall(part.split("\n## ", 1)[0]) == list(model.model_fields)


def test_descriptions_are_found_in_docstrings() -> None:
    assert "| `tpot_ms` |" in page()
    assert re.search(r"\| `silence_limit_s` \|.*\| an engine process without", page())


def test_every_key_is_described() -> None:
    lacking = [
        f"{model.__name__}.{key}"
        for _, models in listed()
        for model in models
        for key in model.model_fields
        if len(descriptions(model).get(key, "").split()) < 2
    ]
    assert not lacking, "say in the class's docstring what they mean"


def test_no_description_is_of_a_key_that_is_gone() -> None:
    stale = [
        f"{model.__name__}.{key}"
        for _, models in listed()
        for model in models
        for key in LISTED.findall(" ".join((model.__dict__.get("__doc__") or "").split()))
        if key not in model.model_fields
    ]
    assert not stale, "take them out of the class's docstring"


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_the_schema_accepts_every_system(
    path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    validator.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_the_schema_accepts_the_tutorials_files(
    validator: jsonschema.Draft202012Validator,
) -> None:
    blocks = TUTORIAL.read_text(encoding="utf-8").split("```yaml\n")[1:]
    assert len(blocks) == 2
    for block in blocks:
        validator.validate(yaml.safe_load(block.split("```")[0]))


WRONG: dict[str, Any] = {
    "a misspelt key": {"system": {"submiter": "Acme"}},
    "a key of another place": {"submitter": "Acme"},
    "another type": {"system": {"target_qps": {"Server": "fast"}}},
    "an unknown scenario": {"system": {"target_qps": {"Servr": 3}}},
    "a misspelt argument": {"system": {"engine": {"arguments": {"max_num_seq": 3}}}},
    "a misspelt key in a layer": {
        "system": {"engine": {"by_scenario": {"Server": {"argument": {}}}}}
    },
    "another division": {"system": {"division": "shut"}},
    "an unknown field": {"system": {"fields": {"colour": "red"}}},
    "a scheduler's misspelt key": {"scheduler": {"partitoin": "x"}},
}


@pytest.mark.parametrize("name", WRONG)
def test_the_schema_refuses(name: str, validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid(WRONG[name])


def test_layers_interpolations_and_nulls_are_accepted(
    validator: jsonschema.Draft202012Validator,
) -> None:
    layered = {"by_model": {"llama2-70b": {"by_scenario": {"Server": {"target_qps": None}}}}}
    validator.validate(
        {"system": {"loadgen": layered, "id": "${system.name}", "division": "closed"}}
    )
