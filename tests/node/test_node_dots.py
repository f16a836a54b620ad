"""Dot-stuffing and TOP against a model that sees the whole message at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.dots import Stuffer, TopCutter

SIZES = (1, 2, 3, 5, 64, 10_000)

messages = st.lists(
    st.sampled_from([b"\r\n", b"\r\n", b".", b"..", b"a", b"B: c", b"\r", b" ", b"\xff", b"\0"]), max_size=60
).map(lambda parts: b"".join(parts) + b"\r\n")


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def stuffed(data: bytes, size: int) -> bytes:
    stuffer = Stuffer()
    return b"".join(stuffer.feed(piece) for piece in pieces(data, size))


def cut(data: bytes, body_lines: int, size: int) -> bytes:
    """Feed as the server does: nothing more once the cutter is done."""
    cutter, out = TopCutter(body_lines), b""
    for piece in pieces(data, size):
        out += cutter.feed(piece)
        if cutter.done:
            break
    return out


def stuffed_whole(data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


def top_whole(data: bytes, body_lines: int) -> bytes:
    lines = [line + b"\n" for line in data.split(b"\n")[:-1]]
    for number, line in enumerate(lines):
        if not line.strip(b"\r\n"):
            return b"".join(lines[: number + 1 + body_lines])
    return data


@given(messages)
def test_stuffing_is_that_of_the_whole_message(message: bytes) -> None:
    for size in SIZES:
        assert stuffed(message, size) == stuffed_whole(message)


@given(messages)
def test_the_client_gets_the_message_back(message: bytes) -> None:
    lines = (stuffed(message, 3) + b".\r\n").split(b"\r\n")
    end = lines.index(b".")
    assert lines[end:] == [b".", b""], "only the end looks like the end"
    received = b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in lines[:end])
    assert received == message


@given(messages, st.integers(0, 5))
def test_top_is_that_of_the_whole_message(message: bytes, body_lines: int) -> None:
    for size in SIZES:
        assert cut(message, body_lines, size) == top_whole(message, body_lines)


@given(messages)
def test_top_of_more_lines_than_there_are_is_the_message(message: bytes) -> None:
    for size in SIZES:
        assert cut(message, 9_999_999_999, size) == message


@pytest.mark.parametrize(
    ("message", "body_lines", "expected"),
    [
        (b"A: b\r\n\r\nc\r\nd\r\n", 0, b"A: b\r\n\r\n"),
        (b"A: b\r\n\r\nc\r\nd\r\n", 1, b"A: b\r\n\r\nc\r\n"),
        (b"A: b\r\n\r\nc\r\nd\r\n", 2, b"A: b\r\n\r\nc\r\nd\r\n"),
        (b"A: b\r\n\r\n\r\n\r\nd\r\n", 2, b"A: b\r\n\r\n\r\n\r\n"),
        (b"\r\nbody\r\n", 0, b"\r\n"),
        (b"A: b\r\n", 0, b"A: b\r\n"),
        (b"A: b\r\n \r\n\r\nc\r\n", 0, b"A: b\r\n \r\n\r\n"),
    ],
)
def test_examples_of_top(message: bytes, body_lines: int, expected: bytes) -> None:
    for size in SIZES:
        assert cut(message, body_lines, size) == expected


def test_a_cutter_that_is_done_says_so_within_the_chunk() -> None:
    cutter = TopCutter(0)
    assert cutter.feed(b"A: b\r\n\r\nrest") == b"A: b\r\n\r\n"
    assert cutter.done
    assert cutter.feed(b"more") == b""


def test_nothing_in_nothing_out() -> None:
    stuffer = Stuffer()
    assert stuffer.feed(b"") == b""
    assert stuffer.feed(b".") == b"..", "an empty chunk does not end a line, nor begin one"
    assert stuffer.feed(b"") == b""
    assert stuffer.feed(b".") == b"."
