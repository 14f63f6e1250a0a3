"""Whose address counts, and who may say so."""

import pytest
from websockets.datastructures import Headers

from amsync.errors import ConfigError
from amsync.gateway.proxies import Proxies, is_forwarded_in_the_open, limit_key, parse_networks

PROXIES = Proxies(parse_networks(["10.0.0.0/8", "fd00::/8", "127.0.0.1"]))


def forwarded(*values: str) -> Headers:
    return Headers([("X-Forwarded-For", value) for value in values])


@pytest.mark.parametrize(
    ("socket", "values", "client"),
    [
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("127.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("::ffff:10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("203.0.113.9", ["203.0.113.5"], "203.0.113.9"),  # no proxy of ours
        ("10.0.0.1", ["1.2.3.4, 203.0.113.5"], "203.0.113.5"),  # the client wrote the first
        ("10.0.0.1", ["203.0.113.5, 10.0.0.7"], "203.0.113.5"),  # two proxies
        ("10.0.0.1", ["1.2.3.4", "203.0.113.5,10.0.0.7"], "203.0.113.5"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, '; drop"], "10.0.0.1"),
        ("local", ["203.0.113.5"], "local"),
    ],
)
def test_address_is_the_nearest_that_no_trusted_proxy_has(
    socket: str, values: list[str], client: str
) -> None:
    assert PROXIES.client_address(socket, forwarded(*values)) == client


def test_without_proxies_nobody_is_believed() -> None:
    nobody = Proxies(())

    assert not nobody
    assert nobody.client_address("127.0.0.1", forwarded("203.0.113.5")) == "127.0.0.1"


@pytest.mark.parametrize(
    ("values", "is_open"),
    [
        (["https"], False),
        (["WSS"], False),
        ([], False),
        (["http"], True),
        (["https", "http"], True),
        (["https, http"], True),
        ([""], True),
    ],
)
def test_proxy_that_names_anything_but_tls_has_had_none(values: list[str], is_open: bool) -> None:
    headers = Headers([("X-Forwarded-Proto", value) for value in values])

    assert is_forwarded_in_the_open(headers) is is_open


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("local", "local"),
    ],
)
def test_bounds_count_a_network_of_ipv6_as_one_client(address: str, key: str) -> None:
    assert limit_key(address) == key


@pytest.mark.parametrize("networks", ["10.0.0.0/8", ["10.0.0.1/8"], ["proxy"], [None]])
def test_what_is_no_list_of_networks_is_refused(networks: list[str]) -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        parse_networks(networks)
