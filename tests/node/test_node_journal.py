"""What a live node writes: one line for each session and each delivery, whatever strangers put into their names."""

import re

import pytest
from delivery_place import DOMAIN, PASSWORD, LivePlace
from support import wait_until

pytestmark = pytest.mark.cluster
LINE = re.compile(
    r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} (INFO|WARNING) [a-z0-9_]+( [a-z0-9_]+=([^ "]+|"([^"\\]|\\.)*"))*'
)
BODY = b"the secret recipe"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LivePlace:
    found = LivePlace(tmp_path_factory.mktemp("journal") / "place")
    yield found
    found.stop()
    for node in found.lab.nodes:
        for line in node.log_path.read_text().split("\n")[:-1]:
            assert LINE.fullmatch(line), line
            assert line.isprintable()


def lines(live: LivePlace, number: int, event: str, wanted: str) -> list[str]:
    """Return the lines of an event at a node that have a text in them; wait for the first."""

    def found() -> list[str]:
        text = live.lab.nodes[number].log_path.read_text()
        return [line for line in text.splitlines() if f" {event} " in line and wanted in line]

    wait_until(found, or_fail=f"no line {event} with {wanted}")
    return found()


@pytest.mark.invariant("I10")
@pytest.mark.parametrize(
    "sender", ['"a b\\"c"@x.example', '"a\x1b[2Jb"@x.example', "\u2028evil@x.example", "b\xfc@x.example"]
)
def test_a_delivery_is_one_line(live: LivePlace, sender: str) -> None:
    user = live.mailbox()
    with live.lmtp() as client:
        client.begin(user, sender=sender, hello="LHLO a\x07b", more=" SMTPUTF8")
        reply = client.data(b"Subject: s\r\n\r\n" + BODY + b"\r\n")
    (line,) = lines(live, 0, "delivery", f"recipient={user} ")
    assert f"uid={reply.rpartition(' ')[2]} " in line
    assert re.search(r" octets=\d+ seconds=\d+\.\d{3}$", line)
    assert BODY.decode() not in live.lab.nodes[0].log_path.read_text()


@pytest.mark.invariant("I10")
def test_a_session_is_one_line_without_its_password(live: LivePlace) -> None:
    user = live.mailbox()
    with live.lmtp() as client:
        client.begin(user)
        assert client.data(BODY + b"\r\n")[:3] == "250"
    assert len(live.received(user)) == 1
    (line,) = lines(live, 1, "session", user)
    assert " end=quit" in line
    text = live.lab.nodes[1].log_path.read_text()
    assert PASSWORD not in text
    assert BODY.decode() not in text


def test_a_refused_recipient_is_no_line_at_all(live: LivePlace) -> None:
    """Strangers guess thousands of names; a log full of them helps nobody."""
    with live.lmtp() as client:
        client.say("LHLO mx")
        client.say("MAIL FROM:<>")
        assert client.say(f"RCPT TO:<guessed@{DOMAIN}>")[:3] == "550"
    with live.lmtp() as client:
        client.begin(live.mailbox(), sender="after@x.example")
        client.data(b"x\r\n")
    lines(live, 0, "delivery", "after@x.example")
    assert "guessed" not in live.lab.nodes[0].log_path.read_text()
