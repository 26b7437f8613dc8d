import socket

import pytest

from cacheproxy.errors import ConfigError
from cacheproxy.server.listeners import bind, join, reserve, url_of


@pytest.fixture
def reserved():
    with reserve("127.0.0.1", 0) as reserved:
        yield reserved


def port_of(listener) -> int:
    return listener.getsockname()[1]


@pytest.mark.parametrize("how", [bind, reserve])
@pytest.mark.parametrize("members", [0, 2])
@pytest.mark.parametrize("is_listening", [False, True])
def test_a_reserved_port_is_taken_for_everybody_else(reserved, how, members, is_listening):
    joined = [join(reserved) for _ in range(members)]
    for listener in joined if is_listening else []:
        listener.listen()

    with pytest.raises(ConfigError, match=str(port_of(reserved))):
        how("127.0.0.1", port_of(reserved))

    for listener in joined:
        listener.close()


@pytest.mark.parametrize("how", [bind, reserve])
def test_a_port_that_another_server_listens_on_cannot_be_reserved(how):
    with bind("127.0.0.1", 0) as other:
        other.listen()
        with pytest.raises(ConfigError):
            how("127.0.0.1", port_of(other))


def test_connections_come_only_to_members_that_listen(reserved):
    with join(reserved) as one, join(reserved):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(reserved.getsockname())
        one.listen()
        one.settimeout(10)
        for _ in range(20):
            with socket.create_connection(reserved.getsockname()), one.accept()[0]:
                pass


def test_the_next_server_can_reserve_the_port_while_connections_of_the_last_linger(reserved):
    port = port_of(reserved)
    listener = join(reserved)
    listener.listen()
    client = socket.create_connection(listener.getsockname())
    listener.accept()[0].close()  # this side closes first: the port is in TIME_WAIT
    client.close()
    listener.close()
    reserved.close()

    with reserve("127.0.0.1", port) as again, join(again):
        assert port_of(again) == port


def test_a_url_names_an_ipv6_address_in_brackets():
    try:
        listener = bind("::1", 0)
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert url_of(listener) == f"http://[::1]:{port_of(listener)}"
