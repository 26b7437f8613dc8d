"""Who may drive the admin listener."""

import pytest

from cacheproxy.admin.app import check_caller
from cacheproxy.errors import Forbidden, Unauthorized

LOOPBACK = {b"host": b"127.0.0.1:9090"}


@pytest.mark.parametrize(
    "given",
    [b"", b"token", b"Bearer", b"Bearer ", b"Bearer tokens", b"Basic token", b"Bearer \xff"],
)
def test_without_the_token_nobody_is_served(given):
    with pytest.raises(Unauthorized):
        check_caller({**LOOPBACK, b"authorization": given}, "token")


def test_with_the_token_anybody_is_served():
    headers = {b"host": b"admin.example", b"origin": b"https://admin.example"}
    check_caller({**headers, b"authorization": b"bearer token"}, "token")
    check_caller({**headers, b"authorization": "Bearer gehe\u00efm".encode()}, "gehe\u00efm")


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:1", b"127.1.2.3", b"[::1]:9090"])
def test_where_there_is_no_token_programs_on_the_machine_are_served(host):
    check_caller({b"host": host}, None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"host": b"evil.example:9090"},
        {b"host": b"127.0.0.1.evil.example"},
        {b"host": b"192.168.0.1"},
        {**LOOPBACK, b"origin": b"https://evil.example"},
        {**LOOPBACK, b"origin": b"null"},
    ],
)
def test_where_there_is_no_token_pages_in_a_browser_are_refused(headers):
    with pytest.raises(Forbidden):
        check_caller(headers, None)
