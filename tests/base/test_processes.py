"""Processes end at any moment, also while they are looked at."""

import os
import subprocess

from steps.base import processes


def test_the_children_of_a_process_that_ends_are_none() -> None:
    for _ in range(100):
        with subprocess.Popen(["true"]) as ending:
            while ending.poll() is None:
                assert processes.children(ending.pid) == []
        assert processes.children(ending.pid) == []


def test_the_children_of_a_process_are_found() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in processes.children(os.getpid())
        child.kill()
