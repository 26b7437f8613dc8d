"""The `limits` section: what requests and connections may take."""

from pydantic import Field

from cacheproxy.settings.section import Section


class LimitSettings(Section):
    """Limits of requests, and of the connections that they come on."""

    body_bytes: int = Field(2 * 2**20, ge=1_024, description="most bytes in the body of a request")
    inputs: int = Field(2_048, ge=1, description="most inputs in one request")
    characters: int = Field(32_768, ge=1, description="most characters in one text")
    chat_body_bytes: int = Field(
        16 * 2**20, ge=1_024, description="most bytes in the body of a chat request"
    )
    json_elements: int = Field(
        1_000_000,
        ge=1_024,
        description="most elements and members in the JSON of a request, "
        "where an array or an object counts as four",
    )
    body_timeout_s: float = Field(
        10, gt=0, description="longest time for a body to arrive, seconds"
    )
    all_bodies_bytes: int = Field(
        256 * 2**20,
        ge=2**20,
        description="most bytes in all bodies over 64 KiB, and in what they are parsed to, of a "
        "process",
    )
    caller_bodies_bytes: int = Field(
        128 * 2**20,
        ge=2**20,
        description="most bytes in those of one tenant or, without API keys, of one address",
    )
    url_bytes: int = Field(8_192, ge=64, le=65_535, description="most bytes in a URL")
    headers: int = Field(100, ge=8, description="most header lines in one request")
    header_bytes: int = Field(
        32_768, ge=1_024, description="most bytes in a request line and its headers together"
    )
    head_timeout_s: float = Field(
        10, gt=0, description="longest time for a request line and its headers to arrive, seconds"
    )
    keep_alive_s: int = Field(
        5, ge=1, description="longest time that a connection stays open without a request, seconds"
    )
    connections: int = Field(
        2_048, ge=1, description="most open connections of a process, on each of its listeners"
    )
