"""Which network addresses a webhook may be sent to: public ones, and no others. Pure; no I/O.

What is not known to be public is refused. An IPv4 address within an IPv6 one is judged as what it is.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
_NEVER_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # behind a carrier's NAT; a cloud's metadata
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's own services, at an address that looks public
            "169.254.0.0/16",  # link-local; metadata of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
_PUBLIC_6 = IPv6Network("2000::/3")  # global unicast: all that is given out
_NEVER_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # of protocols, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
        ),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # a public IPv4 address, where a network has no IPv4 of its own


def is_public(address: Address) -> bool:
    """Whether it is an address of the public internet, and of nobody's own network or machine."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NEVER_4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _PUBLIC_6 and not any(address in network for network in _NEVER_6)


def is_loopback(address: Address) -> bool:
    """Whether it is this machine, in its plain spelling."""
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None
