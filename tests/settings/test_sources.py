import os
import pickle

import pytest

from cacheproxy.errors import ConfigError
from cacheproxy.settings.sources import load_settings, unknown_variables


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("CACHEPROXY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_flags_go_before_the_environment_before_the_file_before_defaults(monkeypatch, tmp_path):
    (tmp_path / "cacheproxy.toml").write_text(
        "port = 1001\n[log]\nlevel = 'debug'\n"
        "[batch]\nmax_tokens = 11\nwindow_ms = 1\nthreads = 3\n"
    )
    monkeypatch.setenv("CACHEPROXY_PORT", "1002")
    monkeypatch.setenv("CACHEPROXY_BATCH_MAX_TOKENS", "12")
    monkeypatch.setenv("CACHEPROXY_BATCH_WINDOW_MS", "2")

    settings = load_settings({"batch": {"window_ms": "3"}}, None)

    assert (settings.port, settings.log.level) == (1002, "debug")
    assert (settings.batch.max_tokens, settings.batch.window_ms) == (12, 3)
    assert settings.batch.threads == 3
    assert settings.limits.inputs == 2_048


@pytest.mark.parametrize(
    ("text", "found"), [('"a"', ("a",)), ('["a", "b"]', ("a", "b")), ('"a, b"', ("a", "b"))]
)
def test_models_may_be_one_name_a_list_or_names_with_commas(tmp_path, monkeypatch, text, found):
    (tmp_path / "cacheproxy.toml").write_text(f"model = {text}\n")

    assert load_settings({}, None).model == found
    monkeypatch.setenv("CACHEPROXY_MODEL", "x,y")
    assert load_settings({}, None).model == ("x", "y")
    assert load_settings({"model": ("one",)}, None).model == ("one",)


@pytest.mark.parametrize("given", ["", "a,,b", []])
def test_a_model_without_a_name_is_a_mistake(given):
    with pytest.raises(ConfigError, match="model"):
        load_settings({"model": given}, None)


def test_every_mistake_has_its_own_line_that_names_the_setting(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        "prot = 1\nport = 70000\nstore = 'mysql://x'\n[batch]\nwindow_ms = 'x'\nnope = 1\n"
    )

    with pytest.raises(ConfigError) as mistake:
        load_settings({}, file)

    lines = str(mistake.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        *("batch.nope", "batch.window_ms", "port", "prot", "store")
    ]


def test_a_file_that_is_not_there_or_not_toml_is_a_mistake(tmp_path):
    (tmp_path / "broken.toml").write_text("[batch\n")
    for name in ("missing.toml", "broken.toml"):
        with pytest.raises(ConfigError, match=name):
            load_settings({}, tmp_path / name)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_listening_beyond_loopback_needs_keys_or_consent(host):
    with pytest.raises(ConfigError, match="allow-anonymous"):
        load_settings({"host": host}, None)
    assert load_settings({"host": host, "allow_anonymous": True}, None).host == host
    keys = {"acme": ["sha256:" + "0" * 64]}
    assert load_settings({"host": host, "api_keys": keys}, None).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_neither(host):
    assert load_settings({"host": host}, None).host == host


def test_a_key_in_the_clear_is_refused():
    with pytest.raises(ConfigError, match=r"api_keys\.acme\.0"):
        load_settings({"api_keys": {"acme": ["cp-secret"]}}, None)


def test_the_store_is_a_file_under_the_home_folder_by_default(tmp_path):
    assert load_settings({"home": tmp_path}, None).store_path == tmp_path / "cache.sqlite"
    assert load_settings({"store": "memory://"}, None).store_path is None
    assert str(load_settings({"store": "sqlite:////a/b"}, None).store_path) == "/a/b"


@pytest.mark.parametrize("url", ["redis://a:b@host:1/0", "rediss://host", "unix:///run/redis.sock"])
def test_the_store_may_be_in_redis(url):
    assert load_settings({"store": url}, None).redis_url == url
    assert load_settings({}, None).redis_url is None


def test_a_mistaken_store_is_told_without_its_password():
    with pytest.raises(ConfigError, match="store: ") as mistake:
        load_settings({"store": "redi://user:secret@host"}, None)
    assert "secret" not in str(mistake.value)


def test_a_misspelt_variable_is_found_and_a_right_one_is_not():
    given = ["CACHEPROXY_PROT", "CACHEPROXY_PORT", "CACHEPROXY_BATCH_WINDOW_MS", "PATH"]
    given += ["CACHEPROXY_API_KEYS", "CACHEPROXY_CONFIG", "CACHEPROXY_TEST_HOME"]

    assert unknown_variables(given) == ["CACHEPROXY_PROT"]


def test_a_namespace_may_have_a_life_of_its_own(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[namespace_ttl_s.default]\ndocs = 3600\n'news, today' = 60\n")

    lives = load_settings({}, file).namespace_ttl_s

    assert lives == {"default": {"docs": 3_600, "news, today": 60}}


@pytest.mark.parametrize("life", ["0", "'long'", "inf", "nan"])
def test_a_life_that_is_none_is_a_mistake_that_names_the_namespace(tmp_path, life):
    file = tmp_path / "mine.toml"
    file.write_text(f"[namespace_ttl_s.default]\ndocs = {life}\n")

    with pytest.raises(ConfigError, match=r"namespace_ttl_s\.default\.docs"):
        load_settings({}, file)


def test_a_life_for_a_tenant_that_there_is_not_is_a_mistake(tmp_path):
    keys = {"acme": ["sha256:" + "0" * 64]}
    lives = {"acme": {"docs": 60}, "amce": {"docs": 60}}

    with pytest.raises(ConfigError, match=r"namespace_ttl_s\.amce"):
        load_settings({"api_keys": keys, "namespace_ttl_s": lives}, None)
    with pytest.raises(ConfigError, match=r"namespace_ttl_s\.acme"):
        load_settings({"namespace_ttl_s": lives}, None)


@pytest.mark.parametrize("jitter", ["-0.1", "1", "nan"])
def test_a_share_of_a_life_is_from_0_to_below_1(jitter):
    with pytest.raises(ConfigError, match=r"cache\.ttl_jitter"):
        load_settings({"cache": {"ttl_jitter": jitter}}, None)


def test_workers_divide_the_cores_by_default():
    cores = len(os.sched_getaffinity(0))

    assert load_settings({}, None).batching.threads == cores
    assert load_settings({"workers": 2}, None).batching.threads == max(1, cores // 2)
    assert load_settings({"workers": 256}, None).batching.threads == 1
    assert load_settings({"workers": 2, "batch": {"threads": 7}}, None).batching.threads == 7


def test_workers_without_a_store_in_common_are_a_mistake():
    with pytest.raises(ConfigError, match="workers: "):
        load_settings({"workers": 2, "store": "memory://"}, None)
    assert load_settings({"workers": 1, "store": "memory://"}, None).workers == 1


def test_settings_arrive_in_another_process_as_they_were(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("port = 1001\n[batch]\nthreads = 3\n[api_keys]\n")
    settings = load_settings({"device": "cuda"}, file)

    arrived = pickle.loads(pickle.dumps(settings))  # noqa: S301

    assert arrived == settings
    assert arrived.batching == settings.batching


def settings_of(tmp_path, text, **flags):
    path = tmp_path / "upstreams.toml"
    path.write_text(text)
    return load_settings(flags, path)


def test_upstreams_are_asked_in_their_order_and_the_flag_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("THEIR_KEY", "sk-1")
    text = (
        '[upstreams.b]\nbase_url = "http://b/v1"\napi_key = "$THEIR_KEY"\n'
        '[upstreams.a]\nbase_url = "http://a/v1"\nmodels = ["m"]\n'
    )

    upstreams = settings_of(tmp_path, text, upstream="http://c/v1").all_upstreams

    assert [*upstreams] == ["default", "b", "a"]
    assert upstreams["b"].api_key.get_secret_value() == "sk-1"
    assert upstreams["a"].models == ("m",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[upstreams.x]\nbase_url = "ftp://secret@host"', "upstreams.x.base_url"),
        ('[upstreams.x]\nbase_url = "http://user:secret@host/v1"', "upstreams.x.base_url"),
        ('[upstreams.x]\nbase_url = "http://h/v1"\napi_key = "$NOT_SET"', "NOT_SET is not set"),
        ('[upstreams.x]\nbase_url = "http://h/v1"\napi_key = ""', "upstreams.x.api_key"),
        (
            '[upstreams.x]\nbase_url = "http://h/v1"\napi_key = "secret"\n'
            "pass_authorization = true",
            "either api_key or pass_authorization",
        ),
        (
            '[upstreams.x]\nbase_url = "http://h/v1"\npass_authorization = true\n'
            'embeddings = { "m" = 3 }',
            "api_key",
        ),
        ("[chat]\nlearning_share = 2", "learning_share"),
        ("[namespace_stale_s.nobody]\nx = { if_error = 5 }", "namespace_stale_s.nobody"),
        ('[prices."m"]\nprompt = -1\ncompletion = 1', "prices.m.prompt"),
    ],
)
def test_a_mistake_about_upstreams_is_told_without_secrets(tmp_path, text, told):
    with pytest.raises(ConfigError) as mistake:
        settings_of(tmp_path, text)

    assert told in str(mistake.value)
    assert "secret" not in str(mistake.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("port = 1\n\n[cache] # lives\nttl_s = 0\n", "line 4 of cacheproxy.toml"),
        ("cache.ttl_s = 0\n", "line 1 of cacheproxy.toml"),
        ("cache = {ttl_s = 0, deadline_ms = 1}\n", "line 1 of cacheproxy.toml"),
        ('[upstreams."a-b"]\nmodels = ["m"]\nbase_url = "ftp://a"\n', "line 3 of cacheproxy.toml"),
        ('[upstreams.a]\nmodels = ["m"]\n', "line 1 of cacheproxy.toml"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(tmp_path, text, place):
    (tmp_path / "cacheproxy.toml").write_text(text)

    with pytest.raises(ConfigError) as mistake:
        load_settings({}, None)

    assert str(mistake.value).endswith(f", {place}")


def test_a_mistake_of_a_variable_has_no_line(tmp_path, monkeypatch):
    (tmp_path / "cacheproxy.toml").write_text("[cache]\nttl_s = 5\n")
    monkeypatch.setenv("CACHEPROXY_CACHE_TTL_S", "0")

    with pytest.raises(ConfigError) as mistake:
        load_settings({}, None)

    assert "line" not in str(mistake.value)
