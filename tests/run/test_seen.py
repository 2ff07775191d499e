"""What of the nodes' answers keeps a run from starting, and how it is said."""

from typing import Any

from steps.machine.probes.values import Accelerator
from steps.run.placing.agents import skew
from steps.run.placing.seen import CLOCK_SKEW_S, HEADERS, Complaint, Seen, complaints, in_a_line

COMMIT = "a" * 40
ACCELERATOR = {
    "vendor": "AMD",
    "model": "AMD Instinct MI300X",
    "driver": "6.10.5",
    "firmware": "022.040",
    "compute_partition": "SPX",
    "memory_partition": "NPS1",
    "performance_level": "perf_determinism",
    "max_clock_mhz": 1400,
}


def seen(name: str, **changes: Any) -> Seen:
    of_each = {**ACCELERATOR, **changes.pop("accelerator", {})}
    given = {
        "name": name,
        "identity": name,
        "peer": "10.0.0.1",
        "held": False,
        "accelerators": (Accelerator.model_validate(of_each),) * 8,
        "problems": (),
        "image": None,
        "engine": "",
        "weights": {},
        "commit": COMMIT,
        "changed": False,
        "clock_s": 0.0,
        "free_gb": 100.0,
    }
    return Seen.model_validate({**given, **changes})


def said(*answers: Seen, skew_s: float = 0.0) -> list[Complaint]:
    by_name = {one.name: one for one in answers}
    return list(complaints(by_name, {answers[-1].name: skew_s}, COMMIT))


def test_nodes_that_are_alike_have_nothing_said_of_them() -> None:
    assert said(seen("n1"), seen("n2")) == []


def test_the_odd_one_is_named_and_not_the_others() -> None:
    odd = seen("n3", accelerator={"driver": "6.12.12"})
    assert said(seen("n1"), seen("n2"), odd) == [
        Complaint(
            True,
            "n3: driver 6.12.12 on AMD Instinct MI300X, the others have 6.10.5; make them alike",
        )
    ]


def test_another_firmware_is_said_and_keeps_nothing_from_starting() -> None:
    (one,) = said(seen("n1"), seen("n2"), seen("n3", accelerator={"firmware": "022.041"}))
    assert not one.fatal and one.text.startswith("n3: firmware 022.041")


def test_two_models_may_have_two_drivers() -> None:
    other = {"model": "AMD Instinct MI325X", "driver": "6.12.12"}
    assert said(seen("n1"), seen("n2", accelerator=other)) == []


def test_what_keeps_a_node_from_serving_is_named() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"held": True}, "another run has it"),
        ({"engine": "docker has no socket"}, "docker has no socket"),
        ({"weights": {"w/manifest.json": "isn't there"}}, "w/manifest.json isn't there"),
        ({"free_gb": 0.2}, "0.2 GB are free"),
        ({"commit": "b" * 40}, f"its checkout is at commit {'b' * 12}"),
        ({"identity": "n1"}, "n1 and n2 are one machine"),
    ]
    for changes, words in cases:
        found = said(seen("n1"), seen("n2", **changes))
        assert any(one.fatal and words in one.text for one in found), words


def test_clocks_that_differ_by_minutes_are_named() -> None:
    (one,) = said(seen("n1"), seen("n2"), skew_s=-200.0)
    assert one.fatal and one.text.startswith("n2: its clock is -200 s off")
    assert said(seen("n1"), seen("n2"), skew_s=CLOCK_SKEW_S / 2) == []


def test_a_moment_while_the_answer_was_on_its_way_is_no_skew() -> None:
    assert skew(10.0, 12.0, 15.0) == 0.0
    assert skew(10.0, 75.0, 15.0) == 60.0
    assert skew(10.0, -50.0, 15.0) == -60.0


def test_a_line_has_a_cell_for_every_header() -> None:
    line = in_a_line(seen("n1", image=True, weights={"w": ""}), 0.0)
    assert len(line) == len(HEADERS)
    assert list(line) == [
        *("8 × AMD Instinct MI300X", "SPX/NPS1", "perf_determinism 1400 MHz", "6.10.5", "022.040"),
        *("there", "aaaaaaaa", "whole", "+0.0 s", "100 GB"),
    ]
