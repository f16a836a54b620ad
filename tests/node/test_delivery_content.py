"""Where a message ends and what its lines are: nobody smuggles a second message in, no octet is lost."""

import socket

import pytest
from delivery_place import Client, LivePlace, MemoryPlace, Place

from node.delivery import LINE_OCTETS
from node.spool import SPOOL_OCTETS


@pytest.fixture(scope="module", params=["memory", pytest.param("live", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    kind = MemoryPlace if request.param == "memory" else LivePlace
    found = kind(tmp_path_factory.mktemp("delivery") / "place")
    yield found
    found.stop()


@pytest.fixture
def user(place: Place) -> str:
    return place.mailbox()


@pytest.fixture(params=["lmtp", "smtp"])
def client(request: pytest.FixtureRequest, place: Place) -> Client:
    with (place.lmtp if request.param == "lmtp" else place.smtp)() as found:
        found.hello = "LHLO mx" if request.param == "lmtp" else "EHLO mx"
        yield found


def deliver(client: Client, user: str, content: bytes) -> None:
    client.begin(user, hello=client.hello)
    assert client.data(content)[:3] == "250"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"", b""),
        (b"\r\n", b"\r\n"),
        (b"a\r\n", b"a\r\n"),
        (b"..\r\n", b".\r\n"),
        (b"..a\r\n", b".a\r\n"),
        (b"...\r\n", b"..\r\n"),
        (b".a\r\n", b"a\r\n"),
        (b"a.\r\n", b"a.\r\n"),
        (b" .\r\n", b" .\r\n"),
        (b"a\nb\r\n", b"a\r\nb\r\n"),
        (b"a\n\nb\r\n", b"a\r\n\r\nb\r\n"),
        (b"a\rb\r\n", b"a\rb\r\n"),
        (b"a\r\r\n", b"a\r\r\n"),
        (b"a\n\r\n", b"a\r\n\r\n"),
        (b"a\0b\xff\x80\r\n", b"a\0b\xff\x80\r\n"),
    ],
)
def test_what_is_sent_and_what_retr_gives_back(
    place: Place, client: Client, user: str, sent: bytes, kept: bytes
) -> None:
    deliver(client, user, sent)
    assert place.content(user) == kept


@pytest.mark.parametrize(
    ("fake_end", "kept"),
    [
        (b"\n.\n", b"\r\n.\r\n"),
        (b"\n.\r\n", b"\r\n.\r\n"),
        (b"\r\n.\n", b"\r\n\r\n"),  # The line begins with a dot, which RFC 5321 section 4.5.2 takes away.
        (b"\r.\r", b"\r.\r"),
        (b"\r\n.\r", b"\r\n\r"),
        (b"\r.\r\n", b"\r.\r\n"),
        (b"\r\n.\0\r\n", b"\r\n\0\r\n"),
        (b"\r\n\r.\r\n", b"\r\n\r.\r\n"),
        (b"\r\n.\r\r\n", b"\r\n\r\r\n"),
        (b"\r\n. \r\n", b"\r\n \r\n"),
    ],
    ids=repr,
)
def test_only_crlf_dot_crlf_ends_a_message(
    place: Place, client: Client, user: str, fake_end: bytes, kept: bytes
) -> None:
    victim = place.mailbox()
    second = f"MAIL FROM:<boss@example.net>\r\nRCPT TO:<{victim}>\r\nDATA\r\nevil\r\n".encode()
    client.begin(user, hello=client.hello)
    client.send(b"a" + fake_end + second + b".\r\n")
    assert client.reply()[:3] == "250"
    assert client.say("NOOP")[:3] == "250"  # The next reply is to the next command: nothing of it was taken for one.
    assert place.content(user) == b"a" + kept + second
    assert place.house.uids(victim) == []


@pytest.mark.parametrize("around", [SPOOL_OCTETS, LINE_OCTETS])
def test_a_line_longer_than_a_buffer_has_no_seam(place: Place, client: Client, around: int) -> None:
    for length in range(around - 2, around + 3):
        user = place.mailbox()
        content = b"x" * length + b"\r\n..y\r\n"
        deliver(client, user, content)
        assert place.content(user) == content.replace(b"..y", b".y")


def test_a_dot_or_a_line_feed_within_a_long_line_stays(place: Place, client: Client, user: str) -> None:
    content = (b"." + b"x" * 499 + b"\n" + b"\r" + b"x" * 498) * 300
    deliver(client, user, b"." + content + b"\r\n")
    assert place.content(user) == content.replace(b"\n", b"\r\n") + b"\r\n"


def test_a_line_of_nothing_but_carriage_returns(place: Place, client: Client, user: str) -> None:
    deliver(client, user, b"\r" * 200_000 + b"\n")
    assert place.content(user) == b"\r" * 200_000 + b"\n"


def test_an_end_in_pieces_is_an_end(place: Place, client: Client, user: str) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.begin(user, hello=client.hello)
    for octet in b"a\r\n..\r\nb\r\n.\r\n":
        client.send(bytes([octet]))
    assert client.reply()[:3] == "250"
    assert place.content(user) == b"a\r\n.\r\nb\r\n"


def test_more_than_a_megabyte(place: Place, client: Client, user: str) -> None:
    content = b"".join(b"%070d\r\n" % number for number in range(20_000))
    assert len(content) > 2**20
    deliver(client, user, content)
    assert place.content(user) == content


def test_two_recipients_have_the_same_message(place: Place, client: Client) -> None:
    first, second = place.mailbox(), place.mailbox()
    content = b"y" * 3 * SPOOL_OCTETS + b"\r\n"
    client.begin(first, second, hello=client.hello)
    assert client.data(content)[:3] == "250"
    if client.hello.startswith("LHLO"):
        assert client.reply()[:3] == "250"
    assert place.content(first) == place.content(second) == content


def test_a_second_message_in_one_connection(place: Place, client: Client, user: str) -> None:
    deliver(client, user, b"1\r\n")
    deliver(client, user, b"2\r\n")
    assert place.contents(user) == [b"1\r\n", b"2\r\n"]


@pytest.mark.invariant("I2")
def test_a_client_that_leaves_in_the_middle_delivers_nothing(place: Place, client: Client, user: str) -> None:
    with place.smtp() as leaver:
        leaver.begin(user, hello="EHLO mx")
        leaver.send(b"a: b\r\n\r\n" + b"x" * 2 * SPOOL_OCTETS + b"\r\n.")
    deliver(client, user, b"after\r\n")
    assert place.content(user) == b"after\r\n"
    assert [name for name in place.house.find(user).listing() if name.startswith(".tmp-")] == []
