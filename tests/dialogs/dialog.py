r"""
Conversations as text, and what carries them out. The first line of each file says what it shows.

    mailbox ada@example.org lovelace      a mailbox and its password (its domain is made too)
    message ada@example.org A: b\n\nc     a delivered message; \r \n \0 \t \\ \xNN are escapes
    file ada@example.org old.eml A: b\n   a file that another program left there, byte for byte
    alias post@example.org ada@example.org
    password ada@example.org new          a new password; also lock, unlock ada@example.org
    free ada@example.org                  nobody claims the mailbox (where the node needs a moment, after a moment)
    left ada@example.org 2                so many messages are in the mailbox

    1 C STAT                              client 1 sends a line; it connects, and is greeted, when first mentioned
    1 raw QUIT\n                          client 1 sends these very bytes
    1 S +OK 2                             the server's next line begins so
    1 = +OK 2 120                         the server's next line is this one
    1 closed                              the server closes, and says nothing more before
    1 half                                client 1 closes its half of the connection
    1 drop                                the connection of client 1 breaks

In all texts ``{b64:…}`` is the base64 of what is inside, escapes first, and ``{x*300}`` is x, 300 times.
"""

import base64
import re
from pathlib import Path
from typing import Protocol

from attrs import field, frozen
from dialogs.memory import House

DOMAIN = "example.org"

_SPOKEN = re.compile(r"(\d+) (C|raw|S|=|closed|half|drop)(?: (.*))?")
_STAGED = re.compile(r"(mailbox|message|file|alias|password|lock|unlock|free|left) (\S+)(?: (.*))?")
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)")
_REPEATED = re.compile(r"\{([^{}]+?)\*(\d+)\}")
_BASE64 = re.compile(r"\{b64:(.*?)\}")
_PLAIN_ESCAPES = {b"r": b"\r", b"n": b"\n", b"0": b"\0", b"t": b"\t", b"\\": b"\\"}


@frozen
class Step:
    """One line of a dialog. ``client`` is 0 where it sets the scene."""

    line_number: int
    text: str
    client: int
    verb: str
    rest: str


@frozen
class Dialog:
    """A file."""

    path: Path
    shows: str
    steps: list[Step] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"


class Client(Protocol):
    """A connection, from the client's end."""

    def send(self, data: bytes) -> None: ...

    def line(self) -> bytes:
        """Return the server's next line without its CRLF. :raises AssertionError: there is none."""
        ...

    def ended(self) -> bool:
        """Tell whether the server closed the connection and nothing is left to read."""
        ...

    def silent(self) -> bool:
        """Tell whether the server has said nothing more."""
        ...

    def half(self) -> None: ...

    def drop(self) -> None: ...


class Place(Protocol):
    """Where a dialog takes place."""

    house: House

    def connect(self) -> Client: ...

    def free(self, mailbox: str) -> None:
        """Wait until nobody claims a mailbox (by its key)."""
        ...


def read(path: Path) -> Dialog:
    """Read a dialog. :raises ValueError: a line is none of those above."""
    lines = path.read_text().splitlines()
    if not lines or not lines[0].startswith("# "):
        raise ValueError(f"{path}: the first line must say what the dialog shows: # ...")
    steps = []
    for number, text in enumerate(lines, 1):
        if not text or text.startswith("#"):
            continue
        if spoken := _SPOKEN.fullmatch(text):
            steps.append(Step(number, text, int(spoken[1]), spoken[2], spoken[3] or ""))
        elif staged := _STAGED.fullmatch(text):
            steps.append(Step(number, text, 0, staged[1], f"{staged[2]} {staged[3] or ''}"))
        else:
            raise ValueError(f"{path}:{number}: not understood: {text!r}")
    return Dialog(path, lines[0][2:], steps)


def expand(text: str, domain: str) -> str:
    text = text.replace(DOMAIN, domain).replace(DOMAIN.upper(), domain.upper())
    text = _REPEATED.sub(lambda match: match[1] * int(match[2]), text)
    return _BASE64.sub(lambda match: base64.b64encode(unescape(match[1])).decode(), text)


def unescape(text: str) -> bytes:
    def one(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes.fromhex(code[1:].decode()) if len(code) > 1 else _PLAIN_ESCAPES[code]

    return _ESCAPE.sub(one, text.encode())


def perform(dialog: Dialog, place: Place, domain: str = DOMAIN) -> dict[int, Client]:
    """Carry out a dialog; return its clients. :raises AssertionError: with the line that did not come true."""
    assert len(domain) == len(DOMAIN), "octets must not depend on where the dialog takes place"
    clients: dict[int, Client] = {}
    for step in dialog.steps:
        rest = expand(step.rest, domain)
        try:
            if not step.client:
                _set(place, step.verb, *rest.split(" ", 1))
                continue
            if step.client not in clients:
                clients[step.client] = place.connect()
                greeting = clients[step.client].line()
                assert greeting.startswith(b"+OK"), f"greeted with {greeting!r}"
            _speak(clients[step.client], step.verb, rest)
        except AssertionError as error:
            raise AssertionError(f"{dialog.path.name}:{step.line_number}: {step.text}\n  {error}") from None
    for number, client in clients.items():
        assert client.silent(), f"{dialog.path.name}: the server said more to client {number}: {client.line()!r}"
    return clients


def _speak(client: Client, verb: str, rest: str) -> None:
    match verb:
        case "C":
            client.send(rest.encode() + b"\r\n")
        case "raw":
            client.send(unescape(rest))
        case "S":
            line = client.line()
            assert line.startswith(unescape(rest)), f"the server said {line!r}"
        case "=":
            line = client.line()
            assert line == unescape(rest), f"the server said {line!r}"
        case "closed":
            assert client.ended(), "the connection is open"
        case "half":
            client.half()
        case "drop":
            client.drop()


def _set(place: Place, verb: str, address: str, rest: str) -> None:
    house = place.house
    match verb:
        case "mailbox":
            house.mailbox(address, rest)
        case "message":
            house.message(address, unescape(rest))
        case "file":
            name, _, content = rest.partition(" ")
            house.file(address, name, unescape(content))
        case "alias":
            house.alias(address, rest)
        case "password":
            house.password(address, rest)
        case "lock" | "unlock":
            house.lock(address, locked=verb == "lock")
        case "free":
            place.free(house.find(address).key)
        case "left":
            uids = house.uids(address)
            assert len(uids) == int(rest), f"{len(uids)} are left"
