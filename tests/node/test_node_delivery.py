"""Mail in, where it is not ordinary: any bytes, any commands, names that are paths, a reply for each recipient."""

import os
import socket
from pathlib import Path

import pytest
from delivery_place import DOMAIN, OCTETS_MAX, PASSWORD, Client, Exchange, LivePlace, MemoryPlace, Place
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from node.delivery import LINE_OCTETS
from node.spool import SPOOL_OCTETS
from store.message import canonical

PIECES = (b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\n.\r\n", b"\0", b"\xff", b"x" * (LINE_OCTETS - 1))
CONTENT = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> MemoryPlace:
    found = MemoryPlace(tmp_path_factory.mktemp("delivery") / "place")
    yield found
    found.stop()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LivePlace:
    found = LivePlace(tmp_path_factory.mktemp("delivery") / "place")
    yield found
    found.stop()
    for node in found.lab.nodes:
        log = node.log_path.read_text()
        assert " ERROR " not in log, log[-3000:]
        assert PASSWORD not in log


@pytest.fixture(params=["memory", pytest.param("live", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(request.param)


def stuffed(content: bytes) -> bytes:
    """As a client must send it: lines end with CRLF and nothing else (RFC 5321 section 2.3.8)."""
    lines = content.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


@pytest.mark.invariant("I2")
@FEW
@given(contents=st.lists(CONTENT, min_size=1, max_size=3), cut=st.integers(1, 70_000))
def test_any_bytes_come_back(memory: MemoryPlace, contents: list[bytes], cut: int) -> None:
    user = memory.mailbox()
    contents = [content if content.endswith(b"\r\n") else content + b"\r\n" for content in contents]
    transaction = f"MAIL FROM:<a@example.net>\r\nRCPT TO:<{user}>\r\nDATA\r\n".encode()
    # All of it pipelined: the next transaction stands right behind the end of the data.
    wire = b"LHLO mx\r\n" + b"".join(transaction + stuffed(content) + b".\r\n" for content in contents)
    with memory.lmtp() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(wire[:cut])
        client.send(wire[cut:])
        codes = [client.reply()[:3] for _ in range(1 + 4 * len(contents))]
    assert codes == ["250"] + ["250", "250", "354", "250"] * len(contents)
    assert memory.contents(user) == [b"".join(canonical([content])) for content in contents]


VERBS = ("LHLO", "EHLO", "HELO", "MAIL FROM:", "RCPT TO:", "DATA", "RSET", "NOOP", "VRFY", "EXPN", "HELP", "AUTH", "X")
ADDRESSES = st.text(st.sampled_from('<>@[]().,:;"\\ \ta0\udcff\xfc'), max_size=9)
ARGUMENTS = st.one_of(
    ADDRESSES,
    ADDRESSES.map("<{}>".format),
    st.sampled_from(["", "<>", "<a@b.c>", "<a@b.c> SIZE=1", "<a@b.c> SMTPUTF8", "<a@b.c> BODY=8BITMIME", "PLAIN AA=="]),
    st.text(st.characters(max_codepoint=0x2FF, exclude_characters="\r\n"), max_size=30),
    st.just("y" * 2000),
)
LINES = st.lists(st.tuples(st.sampled_from(VERBS), ARGUMENTS).map(" ".join), max_size=12)


@FEW
@example(
    lines=["LHLO x", "VRFY 0@", "VRFY \udcff[", "MAIL FROM:<@[>", 'MAIL FROM:<"', "MAIL FROM:<>", "RCPT TO:<x@"],
    lmtp=True,
)
@given(lines=LINES, lmtp=st.booleans())
def test_each_command_has_one_reply_whatever_it_is(
    memory: MemoryPlace, caplog: pytest.LogCaptureFixture, lines: list[str], lmtp: bool
) -> None:
    """No recipient is known, so DATA never opens a message. The fifth word that is no command ends the conversation."""
    strange = ("X",) if lmtp else ("X", "LHLO")
    assume(sum(line.partition(" ")[0] in strange for line in lines) < 5)
    caplog.clear()
    with (memory.lmtp if lmtp else memory.smtp)() as client:
        client.send("".join(f"{line}\r\n" for line in [*lines, "QUIT"]).encode("utf-8", "surrogateescape"))
        codes = [client.reply()[:3] for _ in range(len(lines) + 1)]
        assert client.reply() == ""
    assert codes[-1] == "221"
    assert all(code[0] in "25" for code in codes), codes
    assert "bug" not in caplog.text


def test_who_speaks_another_protocol_is_sent_away(place: Place) -> None:
    """A web browser, say: its header lines and what follows are no commands."""
    with place.smtp() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: y\r\nCookie: z\r\nOrigin: o\r\n\r\nRSET\r\n")
        assert [client.reply()[:3] for _ in range(6)] == ["500", "500", "500", "500", "502", ""]


def test_lmtp_refuses_a_large_message_once_for_each_recipient(place: Place) -> None:
    """RFC 2033 section 4.2: a reply for each; one too few, and the client takes the next reply for it."""
    first, second = place.mailbox(), place.mailbox()
    with place.lmtp() as client:
        client.begin(first, second)
        client.send(b"x" * OCTETS_MAX + b"\r\n.\r\nMAIL FROM:<>\r\n")
        assert [client.reply()[:9] for _ in range(3)] == ["552 5.3.4", "552 5.3.4", "250 OK"]
    assert place.received(first) == place.received(second) == []


def test_smtp_refuses_a_large_message_once(place: Place) -> None:
    first, second = place.mailbox(), place.mailbox()
    with place.smtp() as client:
        client.begin(first, second, hello="EHLO mx")
        client.send(b"x" * OCTETS_MAX + b"\r\n.\r\nMAIL FROM:<>\r\n")
        assert [client.reply()[:9] for _ in range(2)] == ["552 5.3.4", "250 OK"]


def test_lmtp_tells_each_recipient_of_a_spool_that_fails(
    memory: MemoryPlace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with memory.lmtp() as client:
        client.begin(memory.mailbox(), memory.mailbox())
        with monkeypatch.context() as patch:
            patch.setattr("node.spool.tempfile.TemporaryFile", None)
            client.send(b"y" * 2 * SPOOL_OCTETS + b"\r\n.\r\nMAIL FROM:<>\r\n")
            assert [client.reply()[:9] for _ in range(3)] == ["451 4.3.0", "451 4.3.0", "250 OK"]
    assert "delivery_bug" in caplog.text


def tree(directory: Path) -> dict[str, int]:
    """Return everything below a directory with its time of change."""
    return {
        f"{at}/{name}": os.lstat(f"{at}/{name}").st_mtime_ns
        for at, folders, names in os.walk(directory)
        for name in [*folders, *names]
        if not name.endswith(".log") and "/ledger" not in at and name != "ledger"
    }


TRICKS = ["../outside/x", "..", ".", "../../etc/passwd", "/etc/passwd", "x/../y", "P3_x", "p3_x.mbx", "x.mbx/../z"]
TRICKS += [f"a{character}b" for character in "@()/\\[]:;,\"<>*=?| \t\0'\x7f"]
TRICKS += ["%2e%2e", "~", "-rf", "$(id)", "x" * 65, ".hidden", "trailing.", "a..b", "CON", "\N{FULLWIDTH SOLIDUS}"]
DOMAINS = ["..", "../outside", ".", "/", "outside", ".mailroot", f"{DOMAIN}/P3_x.mbx", f"{DOMAIN}\0", "[127.0.0.1]"]


@pytest.mark.cluster
def test_a_name_that_is_a_path_leads_nowhere(live: LivePlace) -> None:
    outside = live.lab.directory / "outside" / "P3_x.mbx"
    outside.mkdir(parents=True)
    before = tree(live.lab.directory)
    with live.lmtp() as client:
        client.say("LHLO mx")
        client.say("MAIL FROM:<>")
        for address in [f"{trick}@{DOMAIN}" for trick in TRICKS] + [f"x@{domain}" for domain in DOMAINS]:
            for written in (f"<{address}>", f'<"{address.rpartition("@")[0]}"@{address.rpartition("@")[2]}>'):
                reply = client.say(f"RCPT TO:{written}")
                assert reply[:2] in ("55", "50"), (written, reply)
        assert client.say("DATA")[:3] == "503"
    assert tree(live.lab.directory) == before


@pytest.mark.parametrize(
    "hello", ["LHLO evil\rX-Spam: no", "LHLO e\0vil", "LHLO " + "h" * 400, "LHLO <script>", "LHLO \xff\xfe"]
)
def test_what_a_client_says_of_itself_stays_in_its_line(place: Place, hello: str) -> None:
    user = place.mailbox()
    with place.lmtp() as client:
        client.begin(user, hello=hello, sender='"a b\\"c"@example.net')
        assert client.data(b"S: 1\r\n\r\n")[:3] == "250"
    (message,) = place.received(user)
    lines = message.split(b"\r\n")
    assert [line.partition(b" ")[0] for line in lines[:3]] == [b"Return-Path:", b"Delivered-To:", b"Received:"]
    assert lines[3].startswith(b"\tby n")
    assert lines[5:] == [b"S: 1", b"", b""]
    assert b"\r" not in b"".join(lines)
    assert b"\0" not in message


@pytest.mark.parametrize("target", ["P3_gone.mbx", "P3_loop.mbx", "../../outside"])
def test_a_broken_alias_keeps_the_mail_with_the_sender(memory: MemoryPlace, target: str) -> None:
    link = Path(memory.house.store.domain_path(DOMAIN)) / "P3_loop.mbx"
    link.symlink_to(target)
    try:
        with memory.lmtp() as client:
            client.say("LHLO mx")
            client.say("MAIL FROM:<>")
            wanted = "550" if target == "P3_gone.mbx" else "451"  # Its mailbox was deleted: nobody will mend that.
            assert client.say(f"RCPT TO:<loop@{DOMAIN}>")[:3] == wanted
    finally:
        link.unlink()


@pytest.mark.cluster
@pytest.mark.invariant("I6")
def test_a_mailbox_that_is_being_read_receives_and_its_session_does_not_see_it(live: LivePlace) -> None:
    user = live.mailbox()

    def deliver(client: Client, text: bytes) -> None:
        client.begin(user)
        assert client.data(text)[:3] == "250"

    with live.lmtp() as client, socket.create_connection(("127.0.0.1", live.second.ports.pop3), timeout=30) as reader:
        deliver(client, b"old\r\n")
        session = Exchange(reader.sendall, reader.makefile("rb").readline)
        session.command(f"USER {user}")
        session.command(f"PASS {PASSWORD}")
        deliver(client, b"new\r\n")
        assert session.command("STAT").startswith(b"+OK 1 ")
        session.command("DELE 1")
        session.command("QUIT")
    assert live.contents(user) == [b"new\r\n"]
