"""Which addresses the service may call: a host is resolved, and every address of it has to be a public one.

A webhook's host is somebody else's word. Whoever connects has to use the very address that was checked: a second look
at the name may give another. Knows no HTTP.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
PORTS = {"http": 80, "https": 443}
MOST_CHARACTERS = 2048

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
# Python's lists of what is global grow with its releases, and what none of them names yet counts as global.
_UNICAST, _ASSIGNED = ipaddress.ip_network("2000::/3"), ipaddress.ip_network("192.0.0.0/24")
# Clouds give machines their settings and keys at addresses that look public or merely private as well: those of Azure,
# Alibaba and Oracle, then of Amazon and Google.
_OF_CLOUDS = frozenset(
    ipaddress.ip_address(one)
    for one in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\\]")


ADDRESS_CODES = frozenset({"webhook_url", "webhook_address", "webhook_host"})
"""Every code of a target that may not be called."""


class Refused(Exception):
    """A target that may not be called; `code` names the reason, the text says it, `remedy` what to do."""

    def __init__(self, code: str, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.code = code
        self.remedy = remedy


class Unresolved(Exception):
    """The host's name cannot be looked up now; it may later."""


@dataclass(frozen=True)
class Target:
    """A URL taken apart."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Target":
        """The target of a URL.

        Raises:
            Refused: it is none that a webhook may have.
        """
        remedy = "send a URL such as https://example.org/hooks"
        if len(url) > MOST_CHARACTERS or _SPACE.search(url):
            detail = f"the URL has white space, a backslash or more than {MOST_CHARACTERS} characters"
            raise Refused("webhook_url", detail, remedy)
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
        except ValueError:
            raise Refused("webhook_url", "the URL cannot be read", remedy) from None
        if parts.scheme not in PORTS or not host:
            raise Refused("webhook_url", "the URL is not http or https with a host", remedy)
        if parts.username is not None or parts.password is not None:
            raise Refused("webhook_url", "the URL holds a name or a password", "sign with `secret`, and leave them out")
        return cls(parts.scheme, host, port or PORTS[parts.scheme])

    def address(self, *, private: bool) -> str:
        """The address to connect to, one of those that the host has now; all of them have to be allowed.

        Args:
            private: whether private ones are.

        Raises:
            Refused: one of them is not, or the host has none.
            Unresolved: nobody can tell now.
        """
        found = self._resolved()
        for one in found:
            if reason := refusal(one, private=private):
                remedy = "name a public address"
                if refusal(one, private=True) is None:
                    remedy += ", or let the operator set FIFTYTWO_WEBHOOK_PRIVATE_ADDRESSES"
                raise Refused("webhook_address", f"the host leads to {reason}", remedy)
        return str(found[0])

    def _resolved(self) -> list[Address]:
        try:
            told = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (UnicodeError, ValueError):
            raise Refused("webhook_url", "the URL's host is no name", "send a host such as example.org") from None
        except socket.gaierror as error:
            if error.errno == socket.EAI_NONAME:
                raise Refused("webhook_host", "there is no such host", "mend the URL's host") from None
            raise Unresolved(self.host) from None
        return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in told]


def refusal(address: Address, *, private: bool) -> str | None:
    """Why an address may not be called, in words; None: it may."""
    inner = _within(address)
    if inner is not None:
        return refusal(inner, private=private)
    if address.is_link_local or address.is_multicast or address.is_unspecified or address in _OF_CLOUDS:
        # Not for anybody: there are the keys of the machine itself.
        return "an address of the machine's own network services"
    return None if private or _is_public(address) else "an address that is not public"


def _is_public(address: Address) -> bool:
    known = address in _UNICAST if isinstance(address, IPv6Address) else address not in _ASSIGNED
    return known and address.is_global


def _within(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for, by whichever way of writing it."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    embeds = address in _NAT64 or (address in _COMPATIBLE and int(address) > 1)
    return IPv4Address(int(address) & 0xFFFFFFFF) if embeds else None
