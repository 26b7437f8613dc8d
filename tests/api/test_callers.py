import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.api.access.key_ring import KeyRing, hash_key
from cacheproxy.api.callers import Callers
from cacheproxy.errors import BadRequest, Unauthorized
from cacheproxy.fairness.owner import NOBODY, work_for
from cacheproxy.keys import Namespace

KEYED = Callers(
    KeyRing({"acme": [hash_key("cp-acme"), hash_key("cp-acme-2")], "zeta": [hash_key("cp-z")]})
)


@pytest.fixture(autouse=True)
def _for_nobody_afterwards():
    """`identify` says for whom the task works, which outside a request is the whole process."""
    yield
    work_for(NOBODY)


def bearer(key: bytes) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key}


def test_without_keys_everyone_is_the_default_tenant_whatever_they_send():
    caller = Callers(KeyRing({})).identify(bearer(b"anything"))

    assert caller.namespace == Namespace("default", "default")


@pytest.mark.parametrize(
    ("key", "tenant"), [(b"cp-acme", "acme"), (b"cp-acme-2", "acme"), (b"cp-z", "zeta")]
)
def test_a_known_key_gives_its_tenant(key, tenant):
    assert KEYED.identify(bearer(key)).namespace == Namespace(tenant, "default")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(b"cp-unknown"),
        bearer(b""),
        {b"authorization": b"Basic cp-acme"},
        {b"authorization": b"cp-acme"},
        bearer(hash_key("cp-acme").encode()),
        bearer(b"\xff\xfe"),
    ],
)
def test_anything_but_a_known_key_is_refused(headers):
    with pytest.raises(Unauthorized):
        KEYED.identify(headers)


@given(st.binary(max_size=300))
def test_no_namespace_header_leaves_the_tenant_of_the_key(raw):
    headers = {**bearer(b"cp-acme"), b"x-cacheproxy-namespace": raw}
    try:
        namespace = KEYED.identify(headers).namespace
    except BadRequest:
        return
    assert namespace.tenant == "acme"
    assert namespace.name.encode() == raw
    assert namespace.id != Namespace("zeta", namespace.name).id


def test_tenant_and_name_cannot_be_shifted_into_each_other():
    assert Namespace("a", "b/c").id != Namespace("a/b", "c").id
    assert Namespace("ab", "c").id != Namespace("a", "bc").id
