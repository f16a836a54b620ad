"""The PROXY header: the same client at every chunk size, nothing taken from what follows, and nothing kept for ever."""

import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyprotocol.result import ProxyResultIPv4, ProxyResultIPv6, ProxyResultLocal, ProxyResultUnix
from proxyprotocol.tlv import ProxyProtocolTLV
from proxyprotocol.v2 import ProxyProtocolV2

from node.introductions import V1_OCTETS_MAX, V2_OCTETS_MAX, Client, Introduced, Introduction, NotIntroduced

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = b"\xc0\x00\x02\x07\x0a\x00\x00\x01\x9c\x40\x00\x6e"  # 192.0.2.7 to 10.0.0.1, ports 40000 and 110.
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"  # What HAProxy's checks send.
PORTS = st.integers(0, 65_535)


def v2(*, command: int = 0x21, family: int = 0x11, body: bytes = V4, octets: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if octets is None else octets) + body


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, Client | None]:
    """Any header that a proxy may send, and the client that it tells."""
    version, kind = draw(st.sampled_from([1, 2])), draw(st.sampled_from(["v4", "v6", "none"]))
    port, other_port = draw(PORTS), draw(PORTS)
    if kind == "none":
        if version == 1:
            rest = draw(st.sampled_from([b"", b" ::1 ::1 1 2", b" whatever it is"]))
            return b"PROXY UNKNOWN" + rest + b"\r\n", None
        return draw(st.sampled_from([LOCAL, v2(family=0x00, body=b""), v2(family=0x31, body=bytes(216))])), None
    address = draw(st.ip_addresses(v=4 if kind == "v4" else 6))
    if version == 1:
        line = f"PROXY TCP{kind[1]} {address} {address} {port} {other_port}\r\n"
        header = line.encode()
    else:
        tlv = ProxyProtocolTLV(init={0xE0: draw(st.binary(max_size=300))})
        ends = (address, port), (address, other_port)
        made = ProxyResultIPv4(*ends, tlv=tlv) if kind == "v4" else ProxyResultIPv6(*ends, tlv=tlv)
        header = ProxyProtocolV2().pack(made)
    mapped = getattr(address, "ipv4_mapped", None)
    return header, (str(mapped or address), port)


def in_pieces(data: bytes, size: int) -> tuple[Introduced | None, int]:
    """Feed data; return the answer and how much was fed until it came."""
    introduction = Introduction()
    for at in range(0, len(data), size):
        found = introduction.feed(data[at : at + size])
        if found is not None:
            return found, min(at + size, len(data))
    return None, len(data)


@given(header=headers(), rest=st.binary(max_size=40), size=st.integers(1, 64))
def test_the_client_is_the_same_at_every_chunk_size_and_the_rest_is_given_back(
    header: tuple[bytes, Client | None], rest: bytes, size: int
) -> None:
    octets, client = header
    found, fed = in_pieces(octets + rest, size)
    assert found == Introduced(client=client, rest=(octets + rest)[len(octets) : fed])
    assert fed < len(octets) + size, "it was whole before"


@given(header=headers(), data=st.data())
def test_the_beginning_of_a_header_is_neither_a_header_nor_a_mistake(
    header: tuple[bytes, Client | None], data: st.DataObject
) -> None:
    octets, _ = header
    assert Introduction().feed(octets[: data.draw(st.integers(0, len(octets) - 1))]) is None


@given(text=st.binary(max_size=200), size=st.integers(1, 64))
def test_any_octets_are_a_header_or_the_beginning_of_one_or_refused(text: bytes, size: int) -> None:
    for beginning in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"):
        with contextlib.suppress(NotIntroduced):
            in_pieces(beginning + text, size)


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 110\r\n", ("192.0.2.7", 40000)),
        (b"PROXY TCP6 2001:db8::7 ::1 40000 110\r\n", ("2001:db8::7", 40000)),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 40000 110\r\n", ("192.0.2.7", 40000)),
        (b"PROXY UNKNOWN\r\n", None),
        (v2(), ("192.0.2.7", 40000)),
        (v2(body=V4 + b"\x04\x00\x03abc"), ("192.0.2.7", 40000)),
        (v2(body=V4 + b"\x03\x00\x04\x00\x00\x00\x00"), ("192.0.2.7", 40000)),  # A checksum is not verified.
        (v2(family=0x21, body=bytes(15) + b"\x01" + bytes(16) + b"\x00\x07\x00\x6e"), ("::1", 7)),
        (v2(command=0x20), None),
        (LOCAL, None),
    ],
)
def test_headers_by_hand(header: bytes, client: Client | None) -> None:
    assert Introduction().feed(header + b"USER ada\r\n") == Introduced(client=client, rest=b"USER ada\r\n")


@pytest.mark.parametrize(
    "garbage",
    [
        b"USER ada@example.org\r\n",
        b"EHLO there\r\n",
        b"\x16\x03\x01",  # TLS
        b"proxy tcp4 192.0.2.7 10.0.0.1 40000 110\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 110\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 40000\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 40000 110\r\n",
        b"PROXY TCP4 192.0.2.700 10.0.0.1 40000 110\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 110\r\n",
        b"PROXY UDP4 192.0.2.7 10.0.0.1 40000 110\r\n",
        b"PROXY " + b"x" * V1_OCTETS_MAX,
        SIGNATURE[:11] + b"\r",
        v2(command=0x11),  # version 1 in the form of 2
        v2(command=0x22),  # neither LOCAL nor PROXY
        v2(body=V4[:11]),
        b"PROXY \n",
        v2(octets=V2_OCTETS_MAX),
    ],
)
def test_garbage_is_refused_and_not_repeated(garbage: bytes) -> None:
    with pytest.raises(NotIntroduced) as refused:
        Introduction().feed(garbage)
    assert "ada" not in str(refused.value)
    assert "192.0.2" not in str(refused.value)


def test_the_longest_headers_are_taken_and_one_octet_more_is_not() -> None:
    line = b"PROXY UNKNOWN " + b"x" * (V1_OCTETS_MAX - 16) + b"\r\n"
    assert len(line) == V1_OCTETS_MAX
    assert Introduction().feed(line) == Introduced(client=None, rest=b"")
    with pytest.raises(NotIntroduced, match="more than 107 octets"):
        Introduction().feed(line.replace(b"\r\n", b"x\r\n"))
    room = V2_OCTETS_MAX - 16 - len(V4) - 3
    longest = v2(body=V4 + b"\x04" + struct.pack("!H", room) + bytes(room))
    assert len(longest) == V2_OCTETS_MAX
    assert Introduction().feed(longest) == Introduced(client=("192.0.2.7", 40000), rest=b"")


def test_a_header_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    introduction = Introduction()
    assert introduction.feed(b"PROXY " + b"x" * (V1_OCTETS_MAX - 7)) is None
    with pytest.raises(NotIntroduced):
        introduction.feed(b"x")


def test_what_the_library_packs_is_read() -> None:
    for result, client in (
        (ProxyResultIPv4((IPv4Address("192.0.2.7"), 1), (IPv4Address("10.0.0.1"), 2)), ("192.0.2.7", 1)),
        (ProxyResultIPv6((IPv6Address("2001:db8::7"), 1), (IPv6Address("::1"), 2)), ("2001:db8::7", 1)),
        (ProxyResultLocal(), None),
        (ProxyResultUnix("/run/client", "/run/server"), None),
    ):
        assert Introduction().feed(ProxyProtocolV2().pack(result)) == Introduced(client=client, rest=b"")
