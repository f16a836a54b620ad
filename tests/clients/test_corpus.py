"""Real mail, CPython's own test corpus for its e-mail package: what came in goes out, byte for byte."""

import contextlib
import importlib.util
import poplib
import re
import smtplib
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.client

TRACE = (b"Return-Path: ", b"Delivered-To: ", b"Received: ")


def directory() -> Path | None:
    """Return where this Python keeps the corpus; Debian has it in libpython3-testsuite."""
    places = [Path(sysconfig.get_path("stdlib")) / "test" / "test_email" / "data"]
    with contextlib.suppress(ImportError):
        spec = importlib.util.find_spec("test.test_email")
        places += [Path(place) / "data" for place in (spec.submodule_search_locations or ())] if spec else []
    return next((place for place in places if place.is_dir()), None)


@pytest.fixture(scope="module")
def corpus(lacking) -> list[bytes]:
    """Every message with canonical line ends."""
    found = directory()
    messages = [path.read_bytes() for path in sorted(found.glob("msg_*.txt"))] if found else []
    if len(messages) < 40:
        lacking(f"this Python does not ship test/test_email/data (looked at {found}); Debian: libpython3-testsuite")
    return [canonical(message) for message in messages]


def canonical(message: bytes) -> bytes:
    lines = re.split(rb"\r\n|\n", message)
    return b"\r\n".join(lines if lines[-1] == b"" else [*lines, b""])


def raw(client: poplib.POP3, number: int) -> bytes:
    """Return a message as it is on the wire, without the dots: poplib's own retr() forgets line ends."""
    client._putcmd(f"RETR {number}")
    assert client._getresp().startswith(b"+OK")
    lines = []
    while (line := client.file.readline()) != b".\r\n":
        lines.append(line[1:] if line.startswith(b".") else line)
    return b"".join(lines)


def without_trace(message: bytes) -> bytes:
    for field in TRACE:
        assert message.startswith(field), message[:200]
        # A field ends where a line begins that does not begin with a blank (RFC 5322 section 2.2.3). Ours are few.
        end = re.compile(rb"\r\n(?![ \t])").search(message)
        assert end is not None
        message = message[end.end() :]
    return message


@pytest.mark.invariant("I3")
@pytest.mark.parametrize("kind", ["LMTP", "SMTP"])
def test_what_comes_in_goes_out(account, corpus, kind):
    node = account.lab.nodes[1]
    transport, port = (smtplib.LMTP, node.ports.lmtp) if kind == "LMTP" else (smtplib.SMTP, node.ports.smtp)
    with transport("127.0.0.1", port, local_hostname="mta") as client:
        for message in corpus:
            client.ehlo_or_helo_if_needed()
            client.sendmail("sender@example.net", [account.user], message)
    with contextlib.closing(poplib.POP3("127.0.0.1", account.pop3, timeout=20)) as session:
        session.user(account.user)
        session.pass_(account.password)
        sizes = [int(line.split()[1]) for line in session.list()[1]]
        assert len(sizes) == len(corpus)
        for number, message in enumerate(corpus, 1):
            fetched = raw(session, number)
            assert len(fetched) == sizes[number - 1]
            if not message.startswith((b" ", b"\t")):
                assert without_trace(fetched) == message
            else:
                assert fetched.endswith(message)
        session.quit()


@pytest.mark.invariant("I3")
def test_a_scripts_delivery_is_the_same_message(account, corpus, tmp_path):
    """One process for each message is slow: the largest, and the one with the strangest line ends."""
    import subprocess
    import sys

    chosen = [max(corpus, key=len), max(corpus, key=lambda message: message.count(b"\r") - message.count(b"\n"))]
    command = [sys.executable, "-m", "node.cli", "deliver", account.user, "--config", str(account.lab.config_path)]
    for message in chosen:
        subprocess.run(command, input=message.replace(b"\r\n", b"\n"), check=True, capture_output=True)
    with contextlib.closing(poplib.POP3("127.0.0.1", account.pop3, timeout=20)) as session:
        session.user(account.user)
        session.pass_(account.password)
        assert [without_trace(raw(session, number)) for number in (1, 2)] == chosen
        session.quit()
