"""What files a source has: their addresses, sizes and digests."""

import hashlib
import posixpath
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from steps.base.errors import UserError
from steps.config.fetch import HubSource, MlcommonsSource, Secret, UrlSource
from steps.prepare.fetch import hub
from steps.prepare.fetch.client import Access, Client, shown
from steps.prepare.fetch.download import Digest, Item, check_names

_CHECKSUM = re.compile(r"^([0-9a-f]{32})[ \t]+[*]?(?:\./)?(.+)$")


def items(source: HubSource | UrlSource | MlcommonsSource, client: Client) -> list[Item]:
    """Every file of the source. UserError if it can't be listed or lists a forbidden name."""
    if isinstance(source, HubSource):
        found, what = _hub(source, client), source.repository
    elif isinstance(source, MlcommonsSource):
        found, what = _mlcommons(source, client), shown(source.uri)
    else:
        found, what = _urls(source), "the list of files"
    if not found:
        raise UserError(f"{what} has no files that are wanted; correct include and exclude")
    check_names([item.name for item in found], what)
    return found


def _access(url: str, headers: Mapping[str, Secret]) -> Access:
    return Access(
        host=urlsplit(url).netloc,
        headers={name: secret.read() for name, secret in headers.items()},
        what=" and ".join(str(secret) for secret in headers.values()),
    )


def _hub(source: HubSource, client: Client) -> list[Item]:
    """From the hub's tree listing, which has sha256 of large files and git's sha1 of small ones."""
    endpoint = hub.address(source.endpoint)
    access = hub.access(endpoint, source.token)
    kind = f"{source.repository_type}s"
    listing = f"{endpoint}/api/{kind}/{source.repository}/tree/{source.revision}?recursive=true"
    home = f"{endpoint}/" + ("datasets/" if kind == "datasets" else "") + source.repository
    found = []
    for entry in client.pages(listing, access):
        try:
            if entry["type"] != "file" or not source.wants(entry["path"]):
                continue
            found.append(_hub_item(entry, f"{home}/resolve/{source.revision}", access))
        except (KeyError, TypeError) as error:
            raise UserError(f"{shown(listing)} isn't a hub's listing ({error!r})") from error
    return found


def _hub_item(entry: Mapping[str, Any], home: str, access: Access) -> Item:
    large = entry.get("lfs")
    digest = Digest("sha256", large["oid"]) if large else Digest("git", entry["oid"])
    return Item(f"{home}/{quote(entry['path'])}", entry["path"], entry["size"], digest, access)


def _urls(source: UrlSource) -> list[Item]:
    # On a redirect to another host requests drops Authorization, but no other header.
    follow = all(name.lower() == "authorization" for name in source.headers)
    return [
        Item(
            file.url,
            file.name,
            file.bytes,
            Digest("sha256", file.sha256) if file.sha256 else Digest("md5", file.md5 or ""),
            _access(file.url, source.headers),
            follow,
        )
        for file in source.files
    ]


def _mlcommons(source: MlcommonsSource, client: Client) -> list[Item]:
    """Redirects lead to a login page there, so redirects aren't followed."""
    access = _access(source.uri, source.headers)
    place = client.text(source.uri, access, follow=False)[0].decode("utf-8", "replace").strip()
    if not re.fullmatch(r"https?://\S+", place):
        raise UserError(f"{shown(source.uri)} holds no address; is it a .uri file of MLCommons?")
    folder, name = posixpath.split(source.uri)
    checksums = f"{folder}/{name.removesuffix('.uri')}.md5"
    data = client.text(checksums, access, follow=False)[0]
    if source.checksums_sha256 and hashlib.sha256(data).hexdigest() != source.checksums_sha256:
        raise UserError(
            f"{shown(checksums)} isn't what checksums_sha256 pins; the dataset was changed, "
            "compare it and pin it again"
        )
    found = []
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.strip():
            continue
        match = _CHECKSUM.match(line)
        if not match:
            raise UserError(f"{shown(checksums)} has the line {line!r:.60}, which isn't a checksum")
        if source.names and posixpath.basename(match[2]) not in source.names:
            continue
        address = f"{place.rstrip('/')}/{quote(match[2])}"
        found.append(Item(address, match[2], None, Digest("md5", match[1]), access, follow=False))
    return found
