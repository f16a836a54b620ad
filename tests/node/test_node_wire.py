"""Commands in, replies out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.pop3.wire import Command, Reply, continuation, err, ok, parse


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"QUIT", Command("QUIT", b"")),
        (b"quit", Command("QUIT", b"")),
        (b"TOP 1 2", Command("TOP", b"1 2")),
        (b"PASS  two  blanks ", Command("PASS", b" two  blanks ")),
        (b"PASS ", Command("PASS", b"")),
        (b"USER \xc3\xa4", Command("USER", b"\xc3\xa4")),
        (b"", None),
        (b" QUIT", None),
        (b"QU", None),
        (b"QUITS", None),
        (b"QUI7", None),
        (b"QUIT\r", None),
        (b"QUIT\t1", None),
        (b"PASS a\0b", None),
        (b"PASS a\x7fb", None),
        (b"USER a\nPASS b", None),
        (b"\xff\xfe", None),
    ],
)
def test_parsing(line: bytes, expected: Command | None) -> None:
    assert parse(line) == expected


@given(st.binary(max_size=300))
def test_any_line_is_a_command_or_none(line: bytes) -> None:
    command = parse(line)
    if command is not None:
        assert command.verb.isalpha()
        assert command.verb == command.verb.upper()
        assert not any(byte < 0x20 or byte == 0x7F for byte in line), "a control character went through"
        assert line.lower() in (
            command.verb.lower().encode() + b" " + command.argument.lower(),
            command.verb.lower().encode(),
        )


def test_replies() -> None:
    assert ok() == Reply(b"+OK\r\n")
    assert ok("bye", ends=True) == Reply(b"+OK bye\r\n", b"", ends=True)
    assert ok("list", b"1\r\n.\r\n").encode() == b"+OK list\r\n1\r\n.\r\n"
    assert err("no").encode() == b"-ERR no\r\n"
    assert err("used", "IN-USE").encode() == b"-ERR [IN-USE] used\r\n"
    assert continuation().encode() == b"+ \r\n"
    assert not err("no").ends


def test_a_reply_is_ascii_whatever_went_in() -> None:
    assert ok("größer").encode() == b"+OK gr??er\r\n"
    assert err("größer", "SYS/TEMP").encode() == b"-ERR [SYS/TEMP] gr??er\r\n"
