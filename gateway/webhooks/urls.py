"""Decide which URLs a webhook may have. No I/O: names are resolved and addresses checked at each delivery.

A URL is parsed once, in this module, and the request is made from the parsed parts. No second parser reads
the URL, so no parser can read it differently. Unusual spellings are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from gateway.settings import Settings
from gateway.webhooks.addresses import Address, is_loopback, is_public

LONGEST = 2048
_PORTS = {"https": 443, "http": 80}
_URL = re.compile(
    r"(?P<scheme>(?i:https?))://"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[!-~]*)?(?:\?[!-~]*)?)",
    re.ASCII,
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
# If the last label of a host matches this, browsers read the whole host as a number (WHATWG URL standard,
# "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """The parts of a URL.

    `host` is in lower case; an IPv6 address has no brackets. `address` is set if the host is an address, not
    a name.
    """

    secure: bool
    host: str
    port: int
    target: str
    address: Address | None = None

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = _PORTS["https" if self.secure else "http"]
        return host if self.port == usual else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator allows. If `hosts` is empty, any public host is allowed."""

    is_on: bool = False
    hosts: frozenset[str] = frozenset()
    loopback: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return the rules that the settings define."""
        hosts = frozenset(settings.webhook_hosts.split())
        return cls(bool(settings.webhook_keys.split()), hosts, settings.webhook_loopback == "yes")

    def place(self, url: str) -> Place:
        """Return the parts of a URL.

        Raises ValueError with the rule that the URL breaks. The message does not contain the URL.
        """
        place = _parts(url)
        if self.hosts and place.host not in self.hosts:
            raise ValueError("must have a host of GATEWAY_WEBHOOK_HOSTS")
        local = place.host == "localhost" or place.host.endswith(".localhost")
        if place.address is not None:
            local = is_loopback(place.address)
            if not self.allows(place, place.address):
                raise ValueError("must have a public address")
        elif local and not self.loopback:
            raise ValueError("must have a public address")
        if not place.secure and not (self.loopback and local):
            raise ValueError("must begin with https://")
        return place

    def allows(self, place: Place, address: Address) -> bool:
        """Return whether a webhook may be sent to this address of the place.

        The name of the place resolves to it now.
        """
        if is_loopback(address):
            return self.loopback
        return place.secure and is_public(address)


NONE = Rules()


def _parts(url: str) -> Place:
    if len(url) > LONGEST:
        raise ValueError(f"must be at most {LONGEST} characters")
    found = _URL.fullmatch(url)
    if found is None or "\\" in url or "#" in url or "@" in found["host"]:
        raise ValueError(
            "must be an absolute https:// URL in printable ASCII, without user, password and fragment"
        )
    secure = found["scheme"].lower() == "https"
    port = int(found["port"]) if found["port"] else _PORTS[found["scheme"].lower()]
    if not 1 <= port <= 65535:
        raise ValueError("must have a port from 1 to 65535")
    target = found["target"] if found["target"].startswith("/") else "/" + found["target"]
    host, address = _host(found["host"].lower())
    return Place(secure, host, port, target, address)


def host_of(url: str) -> str:
    """Return the host of an accepted URL; empty for any other text.

    People may see it: it contains no secret.
    """
    try:
        return _parts(url).host
    except ValueError:
        return ""


def _host(text: str) -> tuple[str, Address | None]:
    """Return the name of a host, or its address in the usual spelling. Raises ValueError."""
    try:
        if text.startswith("["):
            six = IPv6Address(text[1:-1])
            return str(six), six
        if _NUMBER.fullmatch(text.removesuffix(".").rpartition(".")[2]):
            four = IPv4Address(text)
            return str(four), four
    except AddressValueError:
        raise ValueError("must have an address in its usual spelling") from None
    if not all(map(_LABEL.fullmatch, text.split("."))):
        raise ValueError("must have a host's name of letters, digits and dashes, without a dot at its end")
    return text, None
