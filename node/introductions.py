"""
The PROXY header (HAProxy's proxy-protocol.txt, versions 1 and 2) as bytes: who is the client behind the proxy?

Guarantees  the same answer at every chunk size. At most V2_OCTETS_MAX octets are kept. What follows the header is given
            back to the last octet.
Fails with  NotIntroduced: these octets can't become a header that we take.
Knows       octets; proxyprotocol reads the addresses. Nothing of sockets, nor of who is to be trusted.
"""

import struct
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen
from proxyprotocol import ProxyProtocolChecksumError
from proxyprotocol.result import is_ipv4, is_ipv6
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

V1_OCTETS_MAX = 107  # proxy-protocol.txt section 2.1: the longest line, with its CRLF.
V2_OCTETS_MAX = 4096  # The format's own limit is 65551. Addresses take up to 232, the rest is room for TLVs.

_SIGNATURE_1 = b"PROXY "
_SIGNATURE_2 = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED_OCTETS_2 = 16  # Signature, version and command, family, length: section 2.2.
_V1, _V2 = ProxyProtocolV1(), ProxyProtocolV2()

Client = tuple[str, int]


class NotIntroduced(Exception):
    """What came first is no header; the text says why, for the operator, and repeats nothing of it."""


@frozen(kw_only=True)
class Introduced:
    """
    A whole header was heard.

    ``client`` is the address and port that it tells. None where it tells none: the proxy speaks for itself (LOCAL, as
    health checks do), does not know (UNKNOWN), or the client came through a UNIX socket. Then the proxy is the peer.
    """

    client: Client | None
    rest: bytes


class Introduction:
    """The beginning of one connection."""

    def __init__(self) -> None:
        self._heard = b""

    def feed(self, data: bytes) -> Introduced | None:
        """Return who the client is, or None while the header is not whole. :raises NotIntroduced: it never will be."""
        heard = self._heard + data
        octets = _octets(heard)
        if octets is None or octets > len(heard):
            self._heard = heard
            return None
        self._heard = b""
        return Introduced(client=_client(heard[:octets]), rest=heard[octets:])


def _octets(heard: bytes) -> int | None:
    """Return how long the header is that begins so, or None if that can't be told yet."""
    if heard.startswith(_SIGNATURE_1):
        end = heard.find(b"\n", 0, V1_OCTETS_MAX)
        if end < 0 and len(heard) >= V1_OCTETS_MAX:
            raise NotIntroduced(f"a PROXY line of more than {V1_OCTETS_MAX} octets")
        return end + 1 or None
    if heard.startswith(_SIGNATURE_2):
        if len(heard) < _FIXED_OCTETS_2:
            return None
        octets = _FIXED_OCTETS_2 + int.from_bytes(heard[14:_FIXED_OCTETS_2])
        if octets > V2_OCTETS_MAX:
            raise NotIntroduced(f"a PROXY header of {octets} octets; {V2_OCTETS_MAX} are allowed")
        return octets
    if _SIGNATURE_1.startswith(heard) or _SIGNATURE_2.startswith(heard):
        return None
    raise NotIntroduced("no PROXY header at the beginning")


def _client(header: bytes) -> Client | None:
    # The parser must not see what follows: it would take it for more of the header.
    try:
        found = (_V1 if header.startswith(_SIGNATURE_1) else _V2).unpack(header)
    except ProxyProtocolChecksumError as error:
        # Not verified: TCP has a checksum. The library's look needs one more package, and is wrong for TLVs that do not
        # come in the order of their types.
        found = error.result
    except (ValueError, struct.error):  # struct.error: shorter than the addresses of its family.
        raise NotIntroduced("a PROXY header that can't be read") from None
    if is_ipv4(found) or is_ipv6(found):
        address, port = found.source
        return str(_plain(address)), port
    return None


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return an IPv4 client as such, though the proxy listens for both families at one socket (::ffff:192.0.2.7)."""
    return getattr(address, "ipv4_mapped", None) or address
