"""Deliveries while something is wrong: 4xx for what a retry can help, 250 for nothing that is not on the disk (I2)."""

import logging
import threading

import pytest
from delivery_place import DOMAIN, Client, MemoryPlace
from twisted.internet.defer import fail

from node import delivery
from node.lab import wait_until
from store import files
from store.errors import Full, Overloaded, Refused, Unavailable


@pytest.fixture
def place(tmp_path) -> MemoryPlace:
    found = MemoryPlace(tmp_path / "place")
    yield found
    found.stop()


@pytest.fixture
def lmtp(place: MemoryPlace) -> Client:
    with place.lmtp() as client:
        yield client


@pytest.fixture
def user(place: MemoryPlace) -> str:
    return place.mailbox()


def listing(place: MemoryPlace, user: str) -> list[str]:
    return [name for name in place.house.find(user).listing() if not name.startswith(".auth-")]


@pytest.mark.invariant("I2")
@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (Full("no space"), "452 4.2.2 mail store full, try again later (ref "),
        (Unavailable("it hangs"), "451 4.3.0 mail store unavailable, try again later (ref "),
        (Overloaded("too much"), "451 4.3.0 server busy, try again later (ref "),
        (RuntimeError("a bug"), "451 4.3.0 internal failure, try again later (ref "),
        (Refused("never"), "550 5.1.1 no such mailbox here"),
    ],
)
def test_a_failure_at_the_last_step_is_no_delivery(
    place: MemoryPlace, user: str, monkeypatch: pytest.MonkeyPatch, error: Exception, reply: str
) -> None:
    def refuse(_draft: files.Draft, _name: str) -> None:
        raise error

    with place.lmtp() as lmtp:
        lmtp.begin(user)
        with monkeypatch.context() as patch:
            patch.setattr(files.Draft, "publish", refuse)
            assert lmtp.data(b"a: b\r\n\r\n").startswith(reply)
        assert listing(place, user) == []
        assert place.counted == [("LMTP", "failed")]
        lmtp.begin(user)
        assert lmtp.data(b"a: b\r\n\r\n")[:3] == "250"
    assert place.content(user) == b"a: b\r\n\r\n"


@pytest.mark.invariant("I2")
def test_the_reply_waits_for_the_disk(
    place: MemoryPlace, lmtp: Client, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for name in ("fsync", "rename", "close"):
        original = getattr(files.os, name)
        monkeypatch.setattr(files.os, name, lambda *a, name=name, original=original: order.append(name) or original(*a))
    lmtp.begin(user)
    order.clear()
    assert lmtp.data(b"a: b\r\n\r\n")[:3] == "250"
    assert order == ["fsync", "rename", "fsync", "fsync", "close", "close"]


def test_one_of_two_recipients_fails(place: MemoryPlace, lmtp: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = place.mailbox(), place.mailbox()
    publish, failures = files.Draft.publish, [Full("no space")]

    def fail_once(draft: files.Draft, name: str) -> None:
        if failures:
            raise failures.pop()
        publish(draft, name)

    monkeypatch.setattr(files.Draft, "publish", fail_once)
    lmtp.begin(first, second)
    assert lmtp.data(b"x\r\n")[:3] == "452"
    assert lmtp.reply()[:3] == "250"
    assert listing(place, first) == []
    assert place.content(second) == b"x\r\n"


def test_in_smtp_a_temporary_failure_outweighs_a_permanent_one(
    place: MemoryPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = place.mailbox(), place.mailbox(), place.mailbox()
    publish, failures = files.Draft.publish, [Unavailable("later"), Refused("never")]

    def fail_twice(draft: files.Draft, name: str) -> None:
        if failures:
            raise failures.pop()
        publish(draft, name)

    monkeypatch.setattr(files.Draft, "publish", fail_twice)
    with place.smtp() as smtp:
        smtp.begin(first, second, third, hello="EHLO mx")
        assert smtp.data(b"x\r\n")[:3] == "451"
    assert place.content(third) == b"x\r\n"


@pytest.mark.invariant("I9")
def test_without_the_marker_in_sight_nobody_is_unknown(place: MemoryPlace, lmtp: Client, user: str) -> None:
    place.trouble = "the share is not mounted"
    lmtp.say("LHLO mx")
    lmtp.say("MAIL FROM:<>")
    assert lmtp.say(f"RCPT TO:<{user}>").startswith("451 4.3.0 mail store unavailable")
    assert lmtp.say("RCPT TO:<x@unknown.example>")[:3] == "451"
    place.trouble = None
    assert lmtp.say(f"RCPT TO:<{user}>")[:3] == "250"
    root = place.house.store.root
    files.os.rename(root, f"{root}-away")
    files.os.mkdir(root)
    assert lmtp.say("DATA")[:3] == "354"
    assert lmtp.data(b"x\r\n")[:3] == "451"
    assert lmtp.say("MAIL FROM:<>")[:3] == "250"
    assert lmtp.say(f"RCPT TO:<{user}>")[:3] == "451"


def test_a_domain_is_unknown_only_once_the_registrations_were_read(place: MemoryPlace, lmtp: Client) -> None:
    place.complete = False
    lmtp.say("LHLO mx")
    lmtp.say("MAIL FROM:<>")
    assert lmtp.say("RCPT TO:<x@unknown.example>")[:3] == "451"
    assert lmtp.say(f"RCPT TO:<x@{DOMAIN}>")[:3] == "550"
    place.complete = True
    assert lmtp.say("RCPT TO:<x@unknown.example>")[:3] == "550"


def test_a_bug_is_a_451_and_told(
    lmtp: Client, user: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "trace", None)
    lmtp.begin(user)
    assert lmtp.data(b"x\r\n").startswith("451 4.3.0 internal failure")
    assert "bug=TypeError" in caplog.text


def test_a_spool_that_fails_does_not_make_commands_of_the_rest(
    place: MemoryPlace, lmtp: Client, user: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local disk is full in the middle of a message whose own lines look like a transaction."""
    rest = f"RSET\r\nMAIL FROM:<boss@example.net>\r\nRCPT TO:<{user}>\r\nDATA\r\nevil\r\n".encode()
    lmtp.begin(user)
    with monkeypatch.context() as patch:
        patch.setattr("node.spool.tempfile.TemporaryFile", None)
        lmtp.send(b"".join(b"y" * 998 + b"\r\n" for _ in range(400)) + rest + b".\r\n")
        assert lmtp.reply().startswith("451 4.3.0 internal failure")
    assert "delivery_bug" in caplog.text
    assert lmtp.say("NOOP")[:3] == "250"
    assert listing(place, user) == []
    lmtp.begin(user)
    assert lmtp.data(b"x\r\n")[:3] == "250"


def test_the_recipients_of_one_message_are_bounded(
    place: MemoryPlace, lmtp: Client, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "RECIPIENTS_MAX", 2)
    lmtp.begin(user, user)
    assert lmtp.data(b"x\r\n")[:3] == "250"
    assert lmtp.reply()[:3] == "250"
    lmtp.say("MAIL FROM:<>")
    replies = [lmtp.say(f"RCPT TO:<{user}>")[:9] for _ in range(3)]
    assert replies == ["250 2.1.5", "250 2.1.5", "452 4.5.3"]
    lmtp.say("DATA")
    assert lmtp.data(b"y\r\n")[:3] == "250"
    assert lmtp.reply()[:3] == "250"
    assert place.contents(user) == [b"x\r\n", b"x\r\n", b"y\r\n", b"y\r\n"]


def test_the_connections_are_bounded(place: MemoryPlace, lmtp: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "CONNECTIONS_MAX", 1)
    with place.lmtp() as second:
        assert second.greeting.startswith("421 4.3.2 too many connections")
        assert second.reply() == ""
    assert lmtp.say("LHLO mx")[:3] == "250"
    lmtp.__exit__()
    wait_until(lambda: not place.connections, "the connections were never forgotten")
    with place.lmtp() as third:
        assert third.greeting[:3] == "220"


def test_a_node_that_stops_says_so_and_lets_a_delivery_finish(place: MemoryPlace, lmtp: Client, user: str) -> None:
    with place.lmtp() as idle:
        lmtp.begin(user)

        async def end() -> None:
            for connection in list(place.connections):
                connection.end()

        place.run(end())
        assert idle.reply().startswith("421 4.3.2 the service is stopping")
        assert idle.reply() == ""
    assert lmtp.data(b"x\r\n")[:3] == "250"
    assert place.content(user) == b"x\r\n"


def test_a_connection_that_says_nothing_is_closed(place: MemoryPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "IDLE_SECONDS", 0.1)
    with place.lmtp() as client:
        assert client.reply() == ""


def test_connections_that_come_and_go_leave_no_words(
    place: MemoryPlace, lmtp: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for words in (b"", b"LHLO mx\r\n", b"LHLO mx\r\nMAIL FROM:<>\r\nRCPT", b"\xff\xfe\r\n", b"\r\n\r\n"):
        with place.lmtp() as client:
            client.send(words)
    lmtp.__exit__()
    wait_until(lambda: not place.connections, "the connections were never forgotten")
    assert caplog.text == ""


def test_an_overloaded_disk_refuses_recipients_for_a_while(
    place: MemoryPlace, lmtp: Client, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lmtp.say("LHLO mx")
    lmtp.say("MAIL FROM:<>")
    with monkeypatch.context() as patch:
        patch.setattr(place.disk, "run", lambda *_: fail(Overloaded("too much waits")))
        assert lmtp.say(f"RCPT TO:<{user}>").startswith("451 4.3.0 server busy")
    assert lmtp.say(f"RCPT TO:<{user}>")[:3] == "250"


def test_one_slow_sender_holds_up_nobody(place: MemoryPlace, lmtp: Client, user: str) -> None:
    lmtp.begin(user)
    lmtp.send(b"half a li")
    with place.lmtp() as other:
        other.begin(user)
        assert other.data(b"whole\r\n")[:3] == "250"
    lmtp.send(b"ne\r\n.\r\n")
    assert lmtp.reply()[:3] == "250"
    assert sorted(place.contents(user)) == [b"half a line\r\n", b"whole\r\n"]
    assert threading.active_count() < 10
