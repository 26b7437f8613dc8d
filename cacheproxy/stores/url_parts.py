"""The parts of a store's URL."""

import re
from typing import NamedTuple

_URL = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.DOTALL)
"""RFC 3986, appendix B."""


class UrlParts(NamedTuple):
    """What a URL has, as it stands there; the scheme in lower case."""

    scheme: str
    authority: str
    path: str
    query: str


def split_url(url: str) -> UrlParts:
    """Return the parts of a URL whose authority may have several addresses.

    `urllib.parse` refuses those that have one of IPv6 among them, in newer versions of Python.
    """
    found = _URL.fullmatch(url)
    scheme, authority, path, query = found.groups(default="") if found else ("", "", url, "")
    return UrlParts(scheme.lower(), authority, path, query)
