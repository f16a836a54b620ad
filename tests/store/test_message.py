"""The one form in which the bytes of a message rest, at every chunk size, and what names of files say."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from store.message import Message, canonical, foreign_uid, is_foreign, message_name, read_name

UID = "0123456789abcdef0123456789"
LINES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"word", b"\0", b""]), max_size=12).map(b"".join)


def plainly(content):
    """The same as canonical(), said in the simplest way."""
    content = re.sub(rb"(?<!\r)\n", b"\r\n", content)
    return content if content.endswith(b"\r\n") else content + b"\r\n"


def in_chunks(content, size):
    return [content[at : at + size] for at in range(0, len(content), size)]


@pytest.mark.parametrize(
    ("sent", "rests"),
    [
        (b"", b"\r\n"),
        (b"no end", b"no end\r\n"),
        (b"bare\nlf\n", b"bare\r\nlf\r\n"),
        (b"right\r\nalready\r\n", b"right\r\nalready\r\n"),
        (b"mixed\nand\r\n", b"mixed\r\nand\r\n"),
        (b"a bare\rCR is data\r", b"a bare\rCR is data\r\r\n"),
        (b"\n\n", b"\r\n\r\n"),
        (b"\r\r\n", b"\r\r\n"),
        (b"\r\n.\r\n", b"\r\n.\r\n"),
    ],
)
def test_every_line_ends_in_crlf_at_every_chunk_size(sent, rests):
    for size in range(1, len(sent) + 2):
        assert b"".join(canonical(in_chunks(sent, size))) == rests


@pytest.mark.parametrize("length", range(7))
def test_all_short_messages_of_cr_lf_and_a_letter_at_every_cut(length):
    for letters in itertools.product((b"\r", b"\n", b"x"), repeat=length):
        content = b"".join(letters)
        for cut in range(length + 1):
            assert b"".join(canonical([content[:cut], b"", content[cut:]])) == plainly(content)


@given(st.lists(LINES | st.binary(max_size=20)))
@example([b"\r", b"\n"])
@example([b"x\r", b"", b"\n\n"])
def test_any_bytes_in_any_chunks(chunks):
    assert b"".join(canonical(chunks)) == plainly(b"".join(chunks))


@given(LINES, st.integers(1, 5))
def test_what_is_canonical_already_is_not_changed(content, size):
    once = b"".join(canonical([content]))
    assert b"".join(canonical(in_chunks(once, size))) == once


@given(st.from_regex(r"[0-9a-f]{26}", fullmatch=True), st.integers(0, 10**15 - 1))
def test_a_name_says_what_was_put_into_it(uid, octets):
    name = message_name(uid, octets)
    assert read_name(name) == Message(uid, octets, name)


@pytest.mark.parametrize(
    "name",
    [
        "P347865.eml",
        f"P3{UID}-12.EML",
        f"P3{UID}-.eml",
        f"P3{UID}--1.eml",
        f"P3{UID}-12.eml\n",
        f"P3{UID.upper()}-12.eml",
        f"P3{UID}-\u0661.eml",
        "a note.eml",
    ],
)
def test_other_names_ending_in_eml_are_other_programs_messages(name):
    assert read_name(name) is None
    assert is_foreign(name.strip())


@pytest.mark.parametrize("name", [".tmp-1", ".hidden.eml", "eml", "notes.txt", ".auth-000001-1"])
def test_what_is_no_mail_is_no_message(name):
    assert read_name(name) is None
    assert not is_foreign(name)


def test_another_programs_name_is_its_uid_where_pop3_can_say_it():
    assert foreign_uid("P347865.eml") == "P347865"
    assert foreign_uid("x" * 70 + ".eml") == "x" * 70


@pytest.mark.parametrize("name", ["a note.eml", "x" * 71 + ".eml", "caf\u00e9.eml", ".eml", "odd\udcff.eml"])
def test_a_name_that_pop3_cannot_say_becomes_a_hash(name):
    assert re.fullmatch(r"[0-9a-f]{32}", foreign_uid(name))
    assert foreign_uid(name) == foreign_uid(name)


@pytest.mark.invariant("I3")
def test_two_names_that_differ_in_case_only_have_two_uids():
    names = ["P347865.eml", "P347865.EML", "P347865.Eml", "p347865.eml"]
    assert len({foreign_uid(name) for name in names}) == len(names)
