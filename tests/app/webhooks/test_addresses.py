"""Which addresses may be called, in every way of writing them; names are resolved, and the answers are made up here."""

import socket
from ipaddress import ip_address

import pytest

from app.webhooks.addresses import Refused, Target, Unresolved, refusal

PUBLIC = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
PRIVATE = [
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "192.0.0.8", "192.0.2.1", "240.0.0.1"),
    *("::1", "fd00::254", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1"),
    *("2001:0:4136:e378:8000:63bf:80ff:fffe", "fec0::1", "64:ff9b:1::a00:1", "::ffff:0:7f00:1", "5f00::1"),
]
NEVER = [
    "169.254.169.254",
    "fe80::1",
    "0.0.0.0",
    "224.0.0.1",
    "::",
    "ff02::1",
    "::ffff:169.254.169.254",
    *("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_called(address: str) -> None:
    assert refusal(ip_address(address), private=False) is None
    assert refusal(ip_address(address), private=True) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_ones_only_where_the_operator_allows_it(address: str) -> None:
    assert refusal(ip_address(address), private=False)
    assert refusal(ip_address(address), private=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_the_machines_own_services_never(address: str) -> None:
    assert refusal(ip_address(address), private=False)
    assert refusal(ip_address(address), private=True)


def test_the_remedy_names_the_setting_only_where_that_would_help() -> None:
    with pytest.raises(Refused) as here:
        Target.of("http://127.0.0.1/").address(private=False)
    assert "FIFTYTWO_WEBHOOK_PRIVATE_ADDRESSES" in here.value.remedy
    for private in (False, True):
        with pytest.raises(Refused) as never:
            Target.of("http://169.254.169.254/").address(private=private)
        assert never.value.remedy == "name a public address"


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1", "[::ffff:127.0.0.1]", "localhost"])
def test_other_spellings_of_this_machine(host: str) -> None:
    with pytest.raises(Refused, match="leads to"):
        Target.of(f"http://{host}:80/").address(private=False)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.org/", "https://", "example.org", "file:///etc/passwd", "https://a b.org/", "http://x:99999/"),
        *(
            "https://name:pass@example.org/",
            "https://name@example.org/",
            "http://example.org\\@127.0.0.1/",
            "http://[::1",
        ),
        "https://example.org/" + "a" * 2048,
        "https://example.org/\n",
    ],
)
def test_what_is_no_address_of_a_webhook(url: str) -> None:
    with pytest.raises(Refused):
        Target.of(url)


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(0, 0, 0, "", (one, 443)) for one in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    target = Target.of("https://example.org/hooks")
    assert (target.host, target.port) == ("example.org", 443)
    with pytest.raises(Refused):
        target.address(private=False)
    assert target.address(private=True) == "93.184.216.34"


def test_a_name_that_is_none_and_one_that_nobody_knows_now(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        def look_up(*_: object, **__: object) -> None:
            raise socket.gaierror(number, "")

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    fail(socket.EAI_NONAME)
    with pytest.raises(Refused, match="no such host"):
        Target.of("https://example.invalid/").address(private=False)
    fail(socket.EAI_AGAIN)
    with pytest.raises(Unresolved):
        Target.of("https://example.invalid/").address(private=False)
