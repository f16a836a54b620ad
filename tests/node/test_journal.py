"""What is logged: one line an event, never a secret, never a stranger's control character."""

import io
import logging
import re

import pytest
from dialogs.connection import MemoryConnection
from dialogs.memory import House, factory_of, world_of
from hypothesis import given
from hypothesis import strategies as st

from node import journal
from store.errors import Unavailable

PASSWORD = "correct-horse-battery"
BODY = "the secret recipe"


@pytest.fixture
def log() -> "Log":
    target = io.StringIO()
    handler = logging.StreamHandler(target)
    handler.setFormatter(journal._Line())
    logger = logging.getLogger("mailroot")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield Log(target)
    logger.removeHandler(handler)
    logger.setLevel(level)


class Log:
    def __init__(self, target: io.StringIO) -> None:
        self.target = target

    @property
    def text(self) -> str:
        return self.target.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def test_a_line_has_time_level_event_and_fields(log: Log) -> None:
    journal.event("delivery", uid="0a", seconds=0.25, sender="", text='a "b"', mailbox="ä")
    (line,) = log.lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} INFO delivery .*", line)
    assert line.endswith(r'uid=0a seconds=0.250 sender="" text="a \"b\"" mailbox=ä')


@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF, categories=None)))
def test_no_value_breaks_the_line_or_steers_a_terminal(text: str) -> None:
    told = journal._told("event", {"name": text})
    assert len(told.splitlines()) == 1
    assert told.isprintable()


def test_a_failure_of_the_world_has_its_detail_and_a_bug_its_traceback(log: Log) -> None:
    reference = journal.failure("ask_failed", Unavailable("the share is away"), ask="open")
    assert re.fullmatch(r"[0-9a-f]{4}", reference)
    (line,) = log.lines
    assert f'WARNING ask_failed ref={reference} failure=Unavailable detail="the share is away" ask=open' in line
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError as error:
        journal.failure("ask_failed", error)
    assert "ERROR ask_failed" in log.text
    assert "ZeroDivisionError: a bug" in log.text
    assert journal.failure("ask_failed", None)


@pytest.mark.invariant("I10")
def test_a_whole_session_writes_one_line_and_no_secret(log: Log, tmp_path) -> None:
    house = House.build(str(tmp_path))
    house.mailbox("ada@example.org", PASSWORD)
    house.message("ada@example.org", f"Subject: s\r\n\r\n{BODY}\r\n".encode())
    connection = MemoryConnection(factory_of(world_of(house)))
    connection.send(f"USER ada@example.org\r\nPASS {PASSWORD}x\r\nPASS {PASSWORD}\r\n".encode())
    connection.send(f"USER ada@example.org\r\nPASS {PASSWORD}\r\n".encode())
    connection.send(b"STAT\r\nRETR 1\r\nTOP 1 5\r\nDELE 1\r\nQUIT\r\n")
    assert connection.closed
    assert BODY.encode() in connection.received
    (line,) = log.lines
    assert "INFO session node=n1 peer=192.0.2.7 user=ada@example.org end=quit" in line
    assert "fetched=2 removed=1" in line
    assert_silent(log.text)


@pytest.mark.invariant("I10")
@pytest.mark.parametrize("failing", ["recall", "verify"])
def test_a_bug_in_the_login_shows_its_traceback_without_the_password(failing: str, log: Log, tmp_path) -> None:
    house = House.build(str(tmp_path))
    house.mailbox("ada@example.org", PASSWORD)

    class Broken:
        def recall(self, user, password):
            if failing == "recall":
                raise RuntimeError("a bug")

        def verify(self, user, password):
            raise RuntimeError("a bug")

    connection = MemoryConnection(factory_of(world_of(house, authenticator=Broken())))
    connection.send(f"USER ada@example.org\r\nPASS {PASSWORD}\r\n".encode())
    assert connection.received.splitlines()[-1].startswith(b"-ERR [SYS/TEMP] internal failure, try again later (ref ")
    assert "RuntimeError: a bug" in log.text
    assert_silent(log.text)
    connection.drop()


@pytest.mark.invariant("I10")
def test_a_user_name_with_control_characters_is_no_command_and_never_logged_raw(log: Log, tmp_path) -> None:
    connection = MemoryConnection(factory_of(world_of(House.build(str(tmp_path)))))
    connection.send(b"USER ada\x1b[2J\r\nUSER \xff\xfe\x80 x\r\nPASS x\r\nQUIT\r\n")
    assert [line[:4] for line in connection.received.split(b"\r\n")] == [
        b"+OK ",
        b"-ERR",
        b"+OK ",
        b"-ERR",
        b"+OK ",
        b"",
    ]
    assert log.text.isascii()
    assert "\x1b" not in log.text
    assert r'user="\udcff\udcfe\udc80 x"' in log.text


def assert_silent(text: str) -> None:
    for secret in (PASSWORD, BODY, "PASS"):
        assert secret not in text
