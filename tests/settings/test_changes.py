import pytest

from cacheproxy.settings.changes import changes, settings_hash
from cacheproxy.settings.settings import Settings

HASH = "sha256:" + "0" * 64


def of(**given) -> Settings:
    return Settings.model_validate(given)


def test_what_may_change_changes_and_the_rest_is_named():
    found = changes(
        of(cache={"ttl_s": 60}, workers=2),
        of(cache={"ttl_s": 90, "hot_bytes": 1}, workers=3, prices={"m": PRICE}),
    )

    assert found.changed == ("cache.ttl_s", "prices.m")
    assert found.needs_restart == ("workers", "cache.hot_bytes")
    assert found.settings == of(cache={"ttl_s": 90}, workers=2, prices={"m": PRICE})


PRICE = {"prompt": 1, "completion": 2}


def test_without_a_difference_nothing_changes():
    one, other = of(upstream="http://a/v1"), of(upstream="http://a/v1")

    found = changes(one, other)

    assert (found.changed, found.needs_restart) == ((), ())
    assert found.settings == one


def test_a_tenants_limits_change_and_its_share_needs_a_restart():
    found = changes(
        of(tenants={"a": {"in_flight": 1}}),
        of(tenants={"a": {"in_flight": 2, "share": 3}, "b": {"requests_per_minute": 5}}),
    )

    assert set(found.changed) == {"tenants.a", "tenants.b"}
    assert found.needs_restart == ("tenants.a.share",)
    assert found.settings.tenants["a"].in_flight == 2
    assert found.settings.tenants["a"].share == 1


CHAT = {"base_url": "http://chat/v1"}
VECTORS = {"base_url": "http://vectors/v1", "embeddings": {"big": 8}}


def test_upstreams_come_go_and_change_but_for_those_that_routes_are_made_of():
    found = changes(
        of(upstreams={"vectors": VECTORS, "old": CHAT, "same": CHAT}),
        of(
            upstreams={
                "vectors": {**VECTORS, "base_url": "http://other/v1"},
                "same": {**CHAT, "timeout_s": 5},
                "new": CHAT,
            }
        ),
    )

    assert set(found.changed) == {"upstreams.old", "upstreams.same", "upstreams.new"}
    assert found.needs_restart == ("upstreams.vectors",)
    assert found.settings.upstreams["vectors"].base_url == "http://vectors/v1"
    assert list(found.settings.upstreams) == ["vectors", "same", "new"]


def test_an_upstream_of_embeddings_may_have_another_key_and_stays_when_it_is_taken_out():
    before = of(upstreams={"vectors": VECTORS})

    other_key = changes(before, of(upstreams={"vectors": {**VECTORS, "api_key": "k"}}))
    gone = changes(before, of())

    assert other_key.changed == ("upstreams.vectors",)
    assert (gone.changed, gone.needs_restart) == ((), ("upstreams.vectors",))
    assert gone.settings == before


def test_the_order_of_upstreams_counts():
    found = changes(of(upstreams={"a": CHAT, "b": CHAT}), of(upstreams={"b": CHAT, "a": CHAT}))

    assert found.changed == ("upstreams",)
    assert list(found.settings.upstreams) == ["b", "a"]


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ({}, {"upstream": "http://a/v1"}, "upstream"),
        ({"upstreams": {"a": CHAT}}, {}, "upstreams"),
        ({}, {"api_keys": {"acme": [HASH]}}, "api_keys"),
        ({"api_keys": {"acme": [HASH]}}, {}, "api_keys"),
    ],
)
def test_what_decides_about_routes_and_keys_at_the_start_needs_a_restart(before, after, name):
    found = changes(of(**before), of(**after))

    assert (found.changed, found.needs_restart) == ((), (name,))
    assert found.settings == of(**before)


def test_the_hash_tells_settings_apart_and_nothing_of_secrets():
    plain = settings_hash(of())

    assert settings_hash(of()) == plain
    assert settings_hash(of(cache={"ttl_s": 5})) != plain
    one, other = (
        of(admin={"token": token}, store=f"redis://:{token}@host") for token in ("a", "b")
    )
    assert settings_hash(one) == settings_hash(other)
