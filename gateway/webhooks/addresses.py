"""Decide which network addresses a webhook may be sent to: only public ones. No I/O.

An address that is not known to be public is refused. If an IPv6 address contains an IPv4 address, the IPv4
address decides.
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
            "100.64.0.0/10",  # carrier-grade NAT; also metadata services of a cloud
            "127.0.0.0/8",
            "168.63.129.16/32",  # services of Azure, though the address looks public
            "169.254.0.0/16",  # link-local; also metadata services of clouds
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
_PUBLIC_6 = IPv6Network("2000::/3")  # global unicast: all assigned addresses
_NEVER_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # addresses of protocols, for example Teredo
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
        ),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # contains a public IPv4 address, for networks without IPv4


def is_public(address: Address) -> bool:
    """Return whether this is an address of the public internet, not of a private network or this machine."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NEVER_4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _PUBLIC_6 and not any(address in network for network in _NEVER_6)


def is_loopback(address: Address) -> bool:
    """Return whether this is an address of this machine.

    An IPv4 address inside an IPv6 address does not count.
    """
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None
