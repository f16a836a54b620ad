"""Framing: what comes out does not depend on how the bytes were cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.lines import OVERLONG, LineBuffer, Overlong

LIMIT = 8

Lines = list[bytes | Overlong]


def take(buffer: LineBuffer, limit: int = LIMIT) -> Lines:
    lines: Lines = []
    while (line := buffer.next_line(limit)) is not None:
        lines.append(line)
    return lines


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def model(data: bytes) -> Lines:
    """All lines of the whole, seen at once."""
    lines: Lines = []
    for line in data.split(b"\n")[:-1]:
        if len(line) + 1 > LIMIT:
            lines.append(OVERLONG)
        else:
            lines.append(line.removesuffix(b"\r"))
    return lines


@given(
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b"a", b"bcd", b"\0", b"efghi"]), max_size=40).map(b"".join),
    st.lists(st.integers(0, 12), max_size=20),
)
def test_any_bytes_in_any_pieces_give_the_lines_of_the_whole(data: bytes, sizes: list[int]) -> None:
    buffer = LineBuffer()
    lines: Lines = []
    for piece in cut(data, sizes):
        buffer.append(piece)
        lines += take(buffer)
        assert len(buffer) <= LIMIT, "an unfinished line must not grow without bound"
    assert lines == model(data)


@given(st.binary(max_size=100), st.lists(st.integers(0, 30), max_size=10))
def test_nothing_is_lost_between_appends_that_nobody_looks_at(data: bytes, sizes: list[int]) -> None:
    buffer = LineBuffer()
    for piece in cut(data, sizes):
        buffer.append(piece)
    assert len(buffer) == len(data)
    assert take(buffer) == model(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"STAT", []),
        (b"STAT\r\n", [b"STAT"]),
        (b"STAT\n", [b"STAT"]),
        (b"\r\n\n", [b"", b""]),
        (b"a\r\r\n", [b"a\r"]),
        (b"123456\r\n", [b"123456"]),
        (b"1234567\r\n", [OVERLONG]),
        (b"1234567\n", [b"1234567"]),
        (b"12345678\n", [OVERLONG]),
    ],
)
def test_examples(data: bytes, expected: Lines) -> None:
    buffer = LineBuffer()
    buffer.append(data)
    assert take(buffer) == expected


def test_an_overlong_line_never_becomes_two_commands() -> None:
    buffer = LineBuffer()
    for _ in range(1000):
        buffer.append(b"DELE 1 ")
        assert buffer.next_line(LIMIT) is None
        assert len(buffer) <= 2 * LIMIT
    buffer.append(b"\r\nQUIT\r\n")
    assert take(buffer) == [OVERLONG, b"QUIT"]


def test_the_limit_is_that_of_the_moment() -> None:
    buffer = LineBuffer()
    buffer.append(b"a" * 20 + b"\r\n" + b"a" * 20 + b"\r\n")
    assert buffer.next_line(100) == b"a" * 20
    assert buffer.next_line(LIMIT) is OVERLONG
