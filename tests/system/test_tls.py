"""TLS: the listener, its certificate replaced while it serves, and mutual TLS to both sides."""

import shutil
import socket
import ssl

import httpx
import pytest
from asking import MODEL, wait_until
from certificates import Authority
from server_process import Server
from upstream import Upstream

from cacheproxy.errors import ConfigError
from cacheproxy.settings.sources import load_settings

HELLO = {"model": MODEL, "input": "how do I reset my password"}
CHAT = {"model": "gpt-test", "messages": [{"role": "user", "content": "over TLS"}]}


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def files(authority, tmp_path_factory):
    """The certificate and the key that the server reads."""
    folder = tmp_path_factory.mktemp("tls")
    return [
        shutil.copy(issued, folder / name)
        for issued, name in zip(authority.issue("first"), ("cert.pem", "key.pem"), strict=True)
    ]


@pytest.fixture(scope="module")
def secure(model_home, files):
    """A server of two workers that speaks TLS, and is quick to give up a handshake."""
    store = f"sqlite:///{files[0].parent / 'cache.sqlite'}"
    flags = ["--tls-certificate", str(files[0]), "--tls-key", str(files[1]), "--workers", "2"]
    server = Server(model_home, store, "--drain-s", "0", "--limits-head-timeout-s", "1", *flags)
    yield server
    assert server.stop() == 0, server.log


def test_the_listener_speaks_tls_and_nothing_else(secure, authority):
    assert secure.url.startswith("https://")
    with httpx.Client(base_url=secure.url, verify=authority.client(), timeout=30) as http:
        for _ in range(2):
            answer = http.post("/v1/embeddings", json=HELLO)
            assert answer.status_code == 200
        assert "hit" in answer.headers["cache-status"]
        large = http.post("/v1/embeddings", content=b"x" * 3_000_000)
        assert large.status_code == 413  # refused before it is read, and the answer arrives
    with pytest.raises(httpx.ConnectError):  # an authority that the client does not know
        httpx.post(f"{secure.url}/v1/embeddings", json=HELLO)
    plain = socket.create_connection(address(secure), timeout=20)
    plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" not in read_all(plain)


def test_a_handshake_that_does_not_come_is_given_up(secure):
    with socket.create_connection(address(secure), timeout=20) as silent:
        assert read_all(silent) == b""


def test_a_renewed_certificate_is_used_without_a_restart(secure, authority, files):
    assert served(secure, authority) == {"first"}
    with httpx.Client(base_url=secure.url, verify=authority.client(), timeout=30) as kept:
        kept.get("/healthz")
        files[1].write_text("no key")
        wait_until(lambda: secure.log.count("the new certificate is not used") == 2)
        assert served(secure, authority) == {"first"}

        for issued, file in zip(authority.issue("second"), files, strict=True):
            shutil.copy(issued, file)
        wait_until(lambda: served(secure, authority) == {"second"})
        assert kept.get("/healthz").status_code == 200
        metrics = kept.get("/metrics").text
    assert 'cacheproxy_tls_reloads_total{result="done"} 2.0' in metrics


def test_callers_show_certificates_where_the_server_demands_them(start_server, authority):
    certificate, key = authority.issue("server")
    server = start_server(
        *("--tls-certificate", str(certificate), "--tls-key", str(key)),
        *("--tls-client-ca", str(authority.path)),
    )
    url = f"{server.url}/healthz"
    assert httpx.get(url, verify=authority.client(authority.issue("caller"))).status_code == 200
    stranger = Authority(certificate.parent, "stranger").issue("intruder")
    for own in (None, stranger):
        with pytest.raises(httpx.TransportError):
            httpx.get(url, verify=authority.client(own))


def test_an_upstream_that_demands_a_certificate_gets_one(start_server, authority, tmp_path):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.path)
    context.load_cert_chain(*authority.issue("upstream"))
    context.verify_mode = ssl.CERT_REQUIRED
    upstream = Upstream(tls=context)
    certificate, key = authority.issue("proxy")
    own = f'certificate = "{certificate}"\nkey = "{key}"\n'
    trusting = f'ca = "{authority.path}"\n'
    statuses = []
    for tls in (trusting + own, trusting, own):
        config = tmp_path / "cacheproxy.toml"
        config.write_text(
            f'[upstreams.main]\nbase_url = "{upstream.url}"\n[upstreams.main.tls]\n{tls}'
        )
        server = start_server("--config", str(config), store="memory://")
        statuses.append(server.http.post("/v1/chat/completions", json=CHAT).status_code)
    upstream.stop()
    assert statuses == [200, 502, 502]  # without a certificate, and without trust: refused


@pytest.mark.parametrize(
    ("tls", "says"),
    [
        ({"certificate": "here.pem"}, "belong together"),
        ({"client_ca": "here.pem"}, "client_ca needs"),
        ({"certificate": "missing.pem", "key": "here.pem"}, "tls.certificate"),
    ],
)
def test_a_mistake_in_the_settings_is_told(tmp_path, monkeypatch, tls, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.pem").touch()
    with pytest.raises(ConfigError, match=says):
        load_settings({"tls": tls}, None)


def address(server: Server) -> tuple[str, int]:
    host, port = server.url.removeprefix("https://").split(":")
    return host, int(port)


def read_all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while part := connection.recv(65_536):
            data += part
    except ConnectionResetError:
        pass
    return data


def served(server: Server, authority: Authority) -> set[str]:
    """Return the names in the certificates that eight connections get, of whichever worker."""
    names = set()
    for _ in range(8):
        with (
            socket.create_connection(address(server), timeout=20) as raw,
            authority.client().wrap_socket(raw, server_hostname="127.0.0.1") as secured,
        ):
            subject = secured.getpeercert()["subject"]
            names.add(subject[0][0][1])
    return names
