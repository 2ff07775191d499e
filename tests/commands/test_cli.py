"""What `./reproduce` says before anything runs."""

import pytest

from steps.commands.cli import OTHERS, PLANNED, main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in (*PLANNED, *OTHERS))
    assert max(map(len, text.splitlines())) <= 100


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runn", "scenario=Server"]) == 2
    assert "'runn scenario=Server' is not a command" in capsys.readouterr().err


def test_a_command_without_a_plan_gets_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    assert "rehearsal-full" in capsys.readouterr().out
    assert main(["ls", "scenario=Server"]) == 1
    assert capsys.readouterr().err.startswith("error: ls takes no arguments")
