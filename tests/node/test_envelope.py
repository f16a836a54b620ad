"""The trace headers: whatever strangers say of themselves, five lines come out and nothing else."""

import email
import email.policy
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.envelope import Envelope, trace

NOON = 1_772_366_400.0
ANY_TEXT = st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF, categories=None), max_size=400)


def heading(recipient: str = "ada@example.org", **said: str) -> bytes:
    settings = {"sender": "bob@example.net", "helo": "mx", "peer": "192.0.2.7", "protocol": "LMTP", "node": "n1"}
    return trace(Envelope(**(settings | said)), recipient, NOON)


def test_the_five_lines() -> None:
    assert heading() == (
        b"Return-Path: <bob@example.net>\r\n"
        b"Delivered-To: ada@example.org\r\n"
        b"Received: from mx ([192.0.2.7])\r\n"
        b"\tby n1 with LMTP\r\n"
        b"\tfor <ada@example.org>; Sun, 01 Mar 2026 12:00:00 +0000\r\n"
    )


def test_a_bounce_has_an_empty_return_path() -> None:
    assert heading(sender="").startswith(b"Return-Path: <>\r\n")


def test_who_says_no_name_is_unknown() -> None:
    assert b"Received: from unknown ([192.0.2.7])\r\n" in heading(helo=" \r\n\t")


def test_addresses_beyond_ascii_stay_readable() -> None:
    assert heading(recipient="äda@example.org").count("äda@example.org".encode()) == 2


@given(sender=ANY_TEXT, helo=ANY_TEXT, peer=ANY_TEXT, recipient=ANY_TEXT)
def test_no_stranger_can_add_a_header_or_end_the_headers(sender: str, helo: str, peer: str, recipient: str) -> None:
    found = heading(sender=sender, helo=helo, peer=peer, recipient=recipient)
    assert re.fullmatch(
        rb"Return-Path: <[^\r\n ]*>\r\nDelivered-To: [^\r\n ]*\r\nReceived: from [^\r\n ]+ \(\[[^\r\n ]*\]\)\r\n"
        rb"\tby n1 with LMTP\r\n\tfor <[^\r\n ]*>; Sun, 01 Mar 2026 12:00:00 \+0000\r\n",
        found,
    )
    # RFC 5322 section 2.1.1 counts octets: 255 characters of UTF-8 may be 1020 of them.
    assert all(len(line.decode()) < 998 for line in found.split(b"\r\n"))
    assert b"\0" not in found


@pytest.mark.parametrize(
    "evil", ["a\r\nX-Spam: no", "a\nX: y", "a\rX: y", "a\r\n\r\nbody", "a\0b", "a b> <c", "\ud800x"]
)
def test_what_would_be_a_header_is_part_of_the_name(evil: str) -> None:
    parsed = email.message_from_bytes(heading(helo=evil, sender=evil) + b"\r\n", policy=email.policy.compat32)
    assert parsed.keys() == ["Return-Path", "Delivered-To", "Received"]
