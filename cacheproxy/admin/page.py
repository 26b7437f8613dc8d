"""The built-in page at `/admin/`: one document, which loads its figures from the admin listener.

It is put together from `page.html`, `page.css` and the scripts beside them, without a build step.
It is static and contains no data of the server. Its Content-Security-Policy allows only its own
script and style, and requests to its own origin: no other script, style, frame or host.
"""

import base64
import hashlib
import re
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cacheproxy.api.operation import Content, Operation, Parameter, Reply
from cacheproxy.api.response import refusals

PAGE = Operation(
    method="GET",
    path="/admin/",
    id="getPage",
    tag="Page",
    summary="Get the page that shows the figures",
    description="For browsers. It holds no figures, and asks for the token.",
    replies={
        200: Reply("The page.", (Content(str, media_type="text/html"),)),
        **refusals(500),
    },
    takes_key=False,
)

TO_PAGE = Operation(
    method="GET",
    path="/admin",
    id="getPageWithoutSlash",
    tag="Page",
    summary="Be redirected to the page",
    description="The page's links are relative to its folder.",
    replies={
        307: Reply(
            "The page is elsewhere.",
            headers=(Parameter("Location", str, "Where.", "admin/", is_required=True),),
        ),
        **refusals(500),
    },
    takes_key=False,
)

_MENTION = re.compile(r"<!-- ([a-z., ]+) -->")
"""Where the contents of files go, in `page.html`."""


def _read(name: str) -> str:
    return files("cacheproxy.admin").joinpath(name).read_text(encoding="utf-8")


_PAGE = _MENTION.sub(
    lambda found: "\n" + "\n".join(map(_read, found[1].split(", "))), _read("page.html")
)


def _digest(tag: str) -> str:
    """Return the Content-Security-Policy source of the page's only element of this name."""
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
    """Answer `PAGE`."""
    return Response(_PAGE, media_type="text/html", headers=_HEADERS)


async def to_page(_: Request) -> Response:
    """Answer `TO_PAGE`."""
    return RedirectResponse("admin/")
