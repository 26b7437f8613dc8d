"""Who may drive the admin listener."""

import pytest

from cacheproxy.admin.operators import MACHINE, TOKEN, Operator, Operators
from cacheproxy.api.access.key_ring import KeyRing, hash_key
from cacheproxy.errors import Forbidden, Unauthorized
from cacheproxy.settings.tenants import ApiKey

LOOPBACK = {b"host": b"127.0.0.1:9090"}

KEYS = KeyRing(
    {
        "acme": [
            hash_key("cp-plain"),
            ApiKey(hash=hash_key("cp-read"), scopes=("read",)),
        ],
        "ops": [ApiKey(hash=hash_key("cp-ops"), id="night-shift", scopes=("admin",))],
    }
)


def check_caller(headers, token):
    return Operators(token, KeyRing({})).identify(headers)


@pytest.mark.parametrize(
    "given",
    [b"", b"token", b"Bearer", b"Bearer ", b"Bearer tokens", b"Basic token", b"Bearer \xff"],
)
def test_without_the_token_nobody_is_served(given):
    with pytest.raises(Unauthorized):
        check_caller({**LOOPBACK, b"authorization": given}, "token")


def test_with_the_token_anybody_is_served():
    headers = {b"host": b"admin.example", b"origin": b"https://admin.example"}
    assert check_caller({**headers, b"authorization": b"bearer token"}, "token").id == TOKEN
    check_caller({**headers, b"authorization": "Bearer gehe\u00efm".encode()}, "gehe\u00efm")


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:1", b"127.1.2.3", b"[::1]:9090"])
def test_where_there_is_no_token_programs_on_the_machine_are_served(host):
    assert check_caller({b"host": host}, None) == Operator(MACHINE)


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


def bearing(key: bytes) -> dict[bytes, bytes]:
    return {**LOOPBACK, b"authorization": b"Bearer " + key}


@pytest.mark.parametrize("token", [None, "token"])
def test_a_key_with_the_scope_admin_may_do_everything_and_is_named(token):
    operator = Operators(token, KEYS).identify(bearing(b"cp-ops"))

    assert operator == Operator("night-shift")
    operator.check()
    operator.check(purges="acme")


def test_a_key_with_the_scope_purge_may_purge_its_own_tenant_and_nothing_else():
    operator = Operators("token", KEYS).identify(bearing(b"cp-plain"))

    operator.check(purges="acme")
    with pytest.raises(Forbidden):
        operator.check(purges="ops")
    with pytest.raises(Forbidden):
        operator.check()


@pytest.mark.parametrize("key", [b"cp-read", b"cp-unknown", b""])
def test_where_a_key_has_the_scope_admin_other_keys_and_none_are_refused(key):
    with pytest.raises(Unauthorized):
        Operators(None, KEYS).identify(bearing(key))
