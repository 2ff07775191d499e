"""HTTP as far as fetching needs it: which errors may be retried, and no leaked secrets."""

import email.utils
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3

from steps.base.errors import UserError
from steps.base.untrusted import json_of

CHUNK = 1 << 20
SLOWEST = 1024
"""Bytes per second; less than this over the stall limit is a stall."""

LONGEST_WAIT_S = 300.0
LARGEST_TEXT = 64 << 20
"""The most bytes of a listing or a list of checksums."""

LARGEST_WORDS = 1 << 16
"""The most bytes read of an error's answer."""

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

Result = TypeVar("Result")


class Transient(Exception):
    """A failure that may pass; `wait_s` is how long the server asked to wait, if it did; `status`
    is its answer's, 0 without one.
    """

    def __init__(self, reason: str, wait_s: float | None = None, status: int = 0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.status = status


class RefusedError(UserError):
    """The server refuses; `words`: its message, "" without one."""

    def __init__(self, reason: str, status: int, words: str) -> None:
        super().__init__(reason)
        self.status = status
        self.words = words


class Stopped(Exception):
    """Another file has failed for good."""


@dataclass(frozen=True)
class Access:
    """Secret request headers, for one host; `what` names their source in error messages."""

    host: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    what: str = ""

    def for_url(self, url: str) -> dict[str, str]:
        parts = urlsplit(url)
        if not self.headers or parts.netloc != self.host:
            return {}
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
            raise UserError(f"{shown(url)} would send {self.what} unencrypted; give an https URL")
        return dict(self.headers)


def shown(url: str) -> str:
    """The URL without anything that may be a signature or a password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """As authentication, it keeps requests from replacing our header by one from ~/.netrc."""
    return request


class Session(requests.Session):
    """Never sends credentials of ~/.netrc, not even to the host of a redirect."""

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        before, after = response.request.url or "", prepared_request.url or ""
        if self.should_strip_auth(before, after):
            prepared_request.headers.pop("Authorization", None)


@dataclass
class Client:
    """A session that several threads share; proxies are those of the environment."""

    stall_limit_s: float
    attempts: int
    retry_wait_s: float
    stop: threading.Event = field(default_factory=threading.Event)
    session: requests.Session = field(default_factory=Session)

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        access: Access,
        *,
        offset: int = 0,
        follow: bool = True,
    ) -> Iterator[requests.Response]:
        """A response of status 200, 206 or 416; Transient or UserError for any other outcome."""
        headers = {"Accept-Encoding": "identity", **access.for_url(url)}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            response = self.session.request(
                method,
                url,
                headers=headers,
                stream=True,
                allow_redirects=follow,
                timeout=self.stall_limit_s,
                auth=_no_netrc,
            )
        except requests.Timeout:
            raise Transient(f"no answer for {self.stall_limit_s:g} s") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreached(error, url) from None
        with response:
            _judge(response, url, access, self.stall_limit_s)
            yield response

    def body(self, response: requests.Response) -> Iterator[bytes]:
        """Chunks as they come; Transient when they come too slowly or end too early."""
        began, count = time.monotonic(), 0
        try:
            while data := response.raw.read1(CHUNK, decode_content=False):
                if self.stop.is_set():
                    raise Stopped
                yield data
                count += len(data)
                if (passed := time.monotonic() - began) > self.stall_limit_s:
                    if count < SLOWEST * passed:
                        raise Transient(f"less than 1 KiB/s for {passed:.0f} s")
                    began, count = time.monotonic(), 0
        except (urllib3.exceptions.TimeoutError, TimeoutError):
            raise Transient(f"nothing came for {self.stall_limit_s:g} s") from None
        except (urllib3.exceptions.HTTPError, OSError):
            raise Transient("the connection broke") from None

    def retry(self, url: str, attempt: Callable[[], Result], gained: Callable[[], int]) -> Result:
        """Call until it succeeds or has failed `attempts` times since `gained` last grew."""
        failures, before = 0, gained()
        while True:
            try:
                return attempt()
            except Transient as error:
                now = gained()
                failures = 1 if now > before else failures + 1
                before = now
                if failures >= self.attempts:
                    raise UserError(
                        f"{shown(url)} failed {failures} times: {error}; check the network and run "
                        "it again, what has arrived is kept"
                    ) from None
                wait = self.retry_wait_s * 2**failures if error.wait_s is None else error.wait_s
            if self.stop.wait(min(wait, LONGEST_WAIT_S)):
                raise Stopped

    def text(self, url: str, access: Access, *, follow: bool = True) -> tuple[bytes, str]:
        """A small body and the URL of the next page of it, "" if there is none."""

        def attempt() -> tuple[bytes, str]:
            data = bytearray()
            with self.open("GET", url, access, follow=follow) as response:
                stated = length(response)
                for part in self.body(response):
                    data += part
                    if len(data) > LARGEST_TEXT:
                        raise UserError(f"{shown(url)} is too large to be what it should be")
                if stated is not None and len(data) != stated:
                    raise Transient("the answer ended early")
                return bytes(data), response.links.get("next", {}).get("url", "")

        return self.retry(url, attempt, lambda: 0)

    def pages(self, url: str, access: Access) -> Iterator[Any]:
        """The entries of a JSON listing, over all its pages."""
        host = urlsplit(url).netloc
        while url:
            data, following = self.text(url, access)
            try:
                entries = json_of(data)
            except ValueError as error:
                raise UserError(f"{shown(url)} isn't JSON; is this a hub's endpoint?") from error
            if not isinstance(entries, list):
                raise UserError(f"{shown(url)} isn't a listing; is this a hub's endpoint?")
            yield from entries
            if following and urlsplit(following).netloc != host:
                raise UserError(f"{shown(url)} goes on at another host, {shown(following)}")
            url = following


def length(response: requests.Response) -> int | None:
    """Content-Length; None if absent or not a number."""
    stated = response.headers.get("Content-Length", "")
    return int(stated) if stated.isdecimal() else None


def _unreached(error: Exception, url: str) -> UserError | Transient:
    """What may pass is Transient; an untrusted certificate, a proxy that wants a password and an
    invalid address aren't failures of the network.
    """
    host, cause = urlsplit(url).netloc.rpartition("@")[2], _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return UserError(
            f"the certificate of {host} isn't trusted ({cause.verify_message or cause.reason}); if "
            "a proxy of your site opens TLS, set REQUESTS_CA_BUNDLE to a file with its authority's "
            "certificate"
        )
    if isinstance(error, requests.exceptions.ProxyError):
        said = _plain(str(cause))
        if "407" in said:
            return UserError(
                f"the proxy for {host} wants a name and password; put them into HTTPS_PROXY"
            )
        return Transient(f"the proxy for it gives no connection ({said})")
    if isinstance(error, requests.exceptions.SSLError):
        return Transient(f"no TLS connection ({_plain(str(cause))})")
    if isinstance(error, requests.ConnectionError):
        return Transient(f"no connection ({_plain(getattr(cause, 'strerror', '') or '')})")
    if isinstance(error, ValueError | requests.exceptions.InvalidSchema):
        return UserError(f"{shown(url)} can't be asked for ({_plain(str(cause))}); correct it")
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return UserError(
            f"{shown(url)} can't be asked for: {_plain(str(error))}; correct REQUESTS_CA_BUNDLE"
        )
    return Transient(f"{type(error).__name__}")


def _cause(error: BaseException) -> BaseException:
    """The innermost exception: requests wraps urllib3's, which wrap Python's."""
    for _ in range(10):
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = error.__cause__ or next(
                (part for part in error.args if isinstance(part, BaseException)), None
            )
        if inner is None:
            break
        error = inner
    return error


def _plain(words: str) -> str:
    """One printable line, without an address that may hold a password."""
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return re.sub(r"\S+@", "", line)[:160] or "no reason given"


def _judge(response: requests.Response, url: str, access: Access, limit_s: float) -> None:
    status = response.status_code
    if status in (200, 206, 416):
        return
    where, words = shown(url), _words(response, access, limit_s)
    said = f"status {status}, {words!r}" if words else f"status {status}"
    if status in _TRANSIENT:
        wait = _retry_after(response.headers.get("Retry-After"))
        raise Transient(said, wait, status)
    absent = response.headers.get("X-Error-Code", "") in ("RepoNotFound", "RevisionNotFound")
    if status in (404, 410) or absent:
        private = "; one that isn't public needs a token that may read it" if status == 401 else ""
        reason = f"{where} doesn't exist ({said}); correct its name or revision{private}"
    elif status in (401, 403) or 300 <= status < 400:
        need = f"what {access.what} holds may not read it" if access.what else "it needs a token"
        reason = (
            f"{where} is refused ({said}): {need}; accept its terms on its page, then give a token "
            "that may read it, by environment or file"
        )
    else:
        reason = f"{where} answers with {said}; check its address"
    raise RefusedError(reason, status, words)


def _words(response: requests.Response, access: Access, limit_s: float) -> str:
    """The server's reason for its refusal: the hub does so in a header, and in JSON."""
    text = response.headers.get("X-Error-Message", "")
    if not text and "html" not in response.headers.get("Content-Type", ""):
        text = _error_of(_beginning(response, limit_s))
    for secret in access.headers.values():
        text = text.replace(secret.rpartition(" ")[2], "***")
    return _plain(text)[:160] if text.strip() else ""


def _beginning(response: requests.Response, limit_s: float) -> bytes:
    data, until = bytearray(), time.monotonic() + limit_s
    connection = response.raw.connection
    try:
        while len(data) < LARGEST_WORDS and time.monotonic() < until:
            part = response.raw.read1(LARGEST_WORDS, decode_content=True)
            if not part:
                break
            data += part
    except (urllib3.exceptions.HTTPError, OSError):
        pass
    finally:
        # A server that refuses often closes too: asking again through it would cost a try.
        if connection is not None:
            connection.close()
    return bytes(data)


def _error_of(data: bytes) -> str:
    try:
        answer = json_of(data)
    except ValueError:
        return ""
    found = answer.get("error") or answer.get("message") if isinstance(answer, dict) else None
    return found if isinstance(found, str) else ""


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait; the header has a number or a date (RFC 9110, section 10.2.3)."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None
