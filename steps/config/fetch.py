"""Where a model or a dataset comes from."""

import fnmatch
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from steps.base.errors import UserError
from steps.base.strict import Name, Positive, PositiveNumber, Strict

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Url = Annotated[str, Field(pattern=r"^https?://[^/\s]+(/\S*)?$")]


VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""Names of environment variables, which can be distinguished from tokens."""


class Secret(Strict):
    """A token by reference: one of the two, and the other null.

    `environment`: the name of a variable that holds it. `file`: the path of a file whose content it
    is.
    """

    environment: str | None = None
    file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def no_value(cls, given: Any) -> Any:
        """pydantic's own complaint would repeat what was given, and that may be the token."""
        named = given.get("environment") if isinstance(given, dict) else None
        if not isinstance(given, (dict, cls)) or (named and not VARIABLE.fullmatch(str(named))):
            raise ValueError("a token is given by reference, {environment: NAME} or {file: PATH}")
        return given

    @model_validator(mode="after")
    def one_reference(self) -> Self:
        if (self.environment is None) == (self.file is None):
            raise ValueError("a secret is given by either `environment` or `file`")
        return self

    def __str__(self) -> str:
        return f"${self.environment}" if self.environment else f"the file {self.file}"

    def read(self, environment: Mapping[str, str] = os.environ) -> str:
        """UserError, which never holds the token, if there is none."""
        if self.environment:
            value = environment.get(self.environment, "").strip()
        else:
            path = Path(self.file or "").expanduser()
            try:
                value = path.read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                raise UserError(f"the token's file {path} can't be read; write it") from error
        if not value or not value.isprintable():
            raise UserError(f"{self} holds no token; set it")
        return value


class HubSource(Strict):
    """A repository of a Hugging Face hub at a commit; `include`, `exclude`: glob patterns."""

    kind: Literal["hub"]
    endpoint: Url
    repository_type: Literal["model", "dataset"]
    repository: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")]
    revision: Commit
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    token: Secret | None

    def wants(self, name: str) -> bool:
        """Whether a file of the repository is among those to fetch."""

        def matches(patterns: tuple[str, ...]) -> bool:
            return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

        return matches(self.include) and not matches(self.exclude)


class UrlFile(Strict):
    """A file by URL; `name` is its path in the artifact. Either digest will do."""

    url: Url
    name: str
    bytes: Positive | None = None
    sha256: Sha256 | None = None
    md5: Md5 | None = None

    @model_validator(mode="after")
    def has_a_digest(self) -> Self:
        if not (self.sha256 or self.md5):
            raise ValueError(f"{self.name} needs a sha256 or an md5 to be checked against")
        return self


class UrlSource(Strict):
    """Files by URL. `headers` maps names of request headers to their secret values."""

    kind: Literal["url"]
    files: Annotated[tuple[UrlFile, ...], Field(min_length=1)]
    headers: dict[str, Secret]


class MlcommonsSource(Strict):
    """A dataset of MLCommons' storage: `<name>.uri` says where it is, `<name>.md5` what it holds.

    The format is that of MLCommons' r2-downloader. `checksums_sha256` is the digest of
    `<name>.md5` and so pins every file. Members' datasets need the headers CF-Access-Client-Id and
    CF-Access-Client-Secret. `names`: of the files to take, wherever they are listed; empty: all.
    """

    kind: Literal["mlcommons"]
    uri: Annotated[str, Field(pattern=r"^https?://[^/\s]+/\S*\.uri$")]
    checksums_sha256: Sha256 | None
    headers: dict[str, Secret]
    names: tuple[str, ...] = ()


class LocalSource(Strict):
    """A directory of this machine. `sha256` maps names to digests; those of a manifest.json in the
    directory, as Reprise leaves it, are checked too."""

    kind: Literal["local"]
    path: str
    sha256: dict[str, Sha256]


Source = Annotated[
    HubSource | UrlSource | MlcommonsSource | LocalSource, Field(discriminator="kind")
]


class FetchSettings(Strict):
    """How anything is fetched.

    `endpoint`: the hub's address. `token`: the hub's, by reference. `include`: patterns of the
    hub's files to fetch; empty: all. `exclude`: patterns of files to leave out. `offline`: nothing
    but a local source is allowed, and no connection is opened. `hub_cache`: a cache of Hugging
    Face's tools on this machine ($HF_HOME/hub): what it has whole and undamaged is taken there.

    `connections`: files fetched at once. `stall_limit_s`: a connection that brings less than 1
    KiB/s for so long is given up. `attempts`: how often in a row a file may fail without a byte
    gained. `retry_wait_s`: before the n-th new attempt this times 2^n passes, or what the server
    asks for.
    """

    offline: bool
    connections: Positive
    stall_limit_s: PositiveNumber
    attempts: Positive
    retry_wait_s: PositiveNumber
    endpoint: Url
    token: Secret | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    hub_cache: str | None = None


class FetchConfig(Strict):
    """One thing to fetch. The numbers and `hub_cache` are those of FetchSettings."""

    name: Name
    source: Source
    offline: bool
    connections: Positive
    stall_limit_s: PositiveNumber
    attempts: Positive
    retry_wait_s: PositiveNumber
    hub_cache: str | None = None
