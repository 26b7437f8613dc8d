"""The built-in page at `/admin/`: one file, which asks the admin listener for its figures.

It is the same for everybody and holds nothing of the server. It may run what is written in it and
ask where it came from, and nothing else: no other script, style, frame or host.
"""

import base64
import hashlib
import re
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

PAGE_PATHS = ("/admin", "/admin/")

_PAGE = files("cacheproxy.admin").joinpath("page.html").read_text(encoding="utf-8")


def _digest(tag: str) -> str:
    """Return the Content-Security-Policy's word for what the page has in its one such element."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", _PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


_HEADERS = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            f"script-src {_digest('script')}",
            f"style-src {_digest('style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


async def page(_: Request) -> Response:
    """`GET /admin/`: the page."""
    return Response(_PAGE, media_type="text/html", headers=_HEADERS)


async def to_page(_: Request) -> Response:
    """`GET /admin`: to the page, whose links are relative to its folder."""
    return RedirectResponse("admin/")
