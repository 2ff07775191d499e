"""A file server for the tests of what is fetched."""

from collections.abc import Iterator

import pytest

from tests.file_server import Files, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Files()) as files:
        yield files
