"""
The trace that a final delivery puts before a message (RFC 5321 section 4.4), the same for LMTP, SMTP and scripts.

Knows       text. What strangers said (their HELO, their sender) is made harmless before it becomes a header.
"""

import re
import time
from datetime import UTC, datetime
from email.utils import format_datetime

from attrs import frozen

TEXT_CHARACTERS_MAX = 255  # A header line stays under RFC 5322's 998 octets whatever a stranger says of himself.

_UNSAFE = re.compile(r"[^\x21-\x7e\x80-\U0010ffff]+")


@frozen(kw_only=True)
class Envelope:
    """How a message came: ``sender`` is empty for a bounce, ``protocol`` is one of RFC 5321's and RFC 3848's words."""

    sender: str
    helo: str
    peer: str
    protocol: str
    node: str


def trace(envelope: Envelope, recipient: str, now: float | None = None) -> bytes:
    """Return the header lines for one recipient, CRLF."""
    date = format_datetime(datetime.fromtimestamp(time.time() if now is None else now, UTC))
    lines = (
        f"Return-Path: <{_safe(envelope.sender)}>",
        f"Delivered-To: {_safe(recipient)}",
        f"Received: from {_safe(envelope.helo) or 'unknown'} ([{_safe(envelope.peer)}])",
        f"\tby {_safe(envelope.node)} with {envelope.protocol}",
        f"\tfor <{_safe(recipient)}>; {date}",
        "",
    )
    return "\r\n".join(lines).encode("utf-8", "replace")


def _safe(text: str) -> str:
    return _UNSAFE.sub("", text.encode("utf-8", "replace").decode("utf-8"))[:TEXT_CHARACTERS_MAX]
