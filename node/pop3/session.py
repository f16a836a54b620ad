"""
POP3 as states: the verb table, and the three things that a session asks the world for. Knows no sockets.

RFC 1939 freezes the listing at login. After it STAT, LIST, UIDL, DELE, RSET and NOOP are functions of the
snapshot and the marks, and a session asks for three things only, which it returns as values:

    Open    verify the user, take the claim, make the snapshot    (PASS, AUTH)
    Fetch   the bytes of one message                              (RETR, TOP)
    Remove  the marked messages, then give the claim back         (QUIT)

Guarantees  one reply for each command, in order. I4: only QUIT asks for a removal, and only of what this session
            listed and marked.

Three numberings: a *number* is POP3's, from 1; an *index* is number - 1, into the snapshot; a *uid* names a
message for ever. Only numbers come in, only uids go out to the store.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable
from typing import ClassVar, Final, NamedTuple

from node.dots import END_OF_MESSAGE
from node.lines import Overlong
from node.pop3.wire import COMMAND_OCTETS_MAX, SASL_OCTETS_MAX, Command, Reply, continuation, err, ok, parse
from store.message import Message, Snapshot

REFUSALS_MAX = 10  # Replies of -ERR to junk or wrong passwords on one connection; then it ends.

FOLLOWING = 3  # Messages named beside the one a client asks for; clients read in the order of the listing.

AUTHORIZATION: Final = "AUTHORIZATION"
TRANSACTION: Final = "TRANSACTION"


class Open(NamedTuple):
    """Ask for the mailbox of a user."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Open(user={self.user!r}, password=<redacted>)"


class Fetch(NamedTuple):
    """
    Ask for a message, or for its header and the first ``body_lines`` lines of its body.

    ``following`` are the next few messages of the listing: what a client most likely asks for next.
    """

    message: Message
    body_lines: int | None
    following: tuple[Message, ...] = ()


class Remove(NamedTuple):
    """Ask for the removal of the marked messages and the end of the claim."""

    messages: tuple[Message, ...]


class Refusal(NamedTuple):
    """The world's "no": a response code (or none) and a text for strangers."""

    code: str
    text: str


Ask = Open | Fetch | Remove
_EMPTY = Snapshot((), 0)


class Session:
    """One conversation. Give it lines with receive(); answer what it asks with opened(), refused(), removed()."""

    def __init__(self, *, plain_allowed: bool) -> None:
        self._plain_allowed = plain_allowed
        self._state: str = AUTHORIZATION
        self._user: str | None = None
        self._in_sasl = False
        self._refusals = 0
        self._snapshot = _EMPTY
        self._marked: set[int] = set()
        self.login: str = ""

    @property
    def line_octets_max(self) -> int:
        """Return how long the next line may be."""
        return SASL_OCTETS_MAX if self._in_sasl else COMMAND_OCTETS_MAX

    @property
    def marked(self) -> int:
        """Return how many messages are marked."""
        return len(self._marked)

    def receive(self, line: bytes | Overlong) -> Reply | Ask:
        """Take one line; return the reply, or what has to be asked before there can be one."""
        if isinstance(line, Overlong):
            self._in_sasl = False
            return self._refuse("line too long")
        if self._in_sasl:
            return self._sasl_line(line)
        command = parse(line)
        if command is None:
            return self._refuse("not a command")
        verb = self._VERBS.get((self._state, command.verb))
        if verb is None:
            return self._refuse("not in this state" if command.verb in self._KNOWN else "unknown command")
        return verb(self, command)

    # Answers of the world

    def opened(self, snapshot: Snapshot) -> Reply:
        """The claim is ours and the listing is frozen (RFC 1939 section 4)."""
        self._state = TRANSACTION
        self._snapshot = snapshot
        return ok(f"{len(snapshot.messages)} messages ({snapshot.octets} octets)")

    def refused(self, refusal: Refusal) -> Reply:
        """The answer to Open or Fetch is no. The session goes on, unless passwords are being guessed."""
        if refusal.code == "AUTH":
            return self._refuse(refusal.text, refusal.code)
        return err(refusal.text, refusal.code)

    def removed(self, left: int) -> Reply:
        """The removal is over; RFC 1939 section 6 wants -ERR where some marked message could not be removed."""
        if left:
            return err(f"{left} of {len(self._marked)} marked messages were not removed", "SYS/TEMP", ends=True)
        return ok("bye", ends=True)

    def not_removed(self, refusal: Refusal) -> Reply:
        """Nothing was removed, or nobody can tell how much was (I5)."""
        return err(refusal.text, refusal.code, ends=True)

    # AUTHORIZATION

    def _capa(self, _command: Command) -> Reply:
        # RFC 2449 section 6. No IMPLEMENTATION: the greeting is configurable so as not to tell strangers.
        names = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER"]
        if self._plain_allowed:
            names += ["USER", "SASL PLAIN"]
        return ok("capabilities follow", _lines(names))

    def _user_named(self, command: Command) -> Reply:
        if not self._plain_allowed:
            return self._refuse("plain passwords are not allowed on this connection")
        if not command.argument:
            return self._refuse("USER needs a name")
        # Every name is welcome: RFC 1939 section 7 allows it, and a "no" would tell who exists.
        self._user = command.argument.decode("utf-8", "surrogateescape")
        return ok("now the password")

    def _pass(self, command: Command) -> Reply | Ask:
        if self._user is None:
            return self._refuse("USER comes first")
        user, self._user = self._user, None
        # RFC 1939 section 7: PASS has one argument, so a server may take blanks as part of it.
        return self._open(user, command.argument.decode("utf-8", "surrogateescape"))

    def _open(self, user: str, password: str) -> Open:
        self.login = user
        return Open(user, password)

    def _auth(self, command: Command) -> Reply | Ask:
        mechanism, _, initial = command.argument.partition(b" ")
        if not mechanism:
            return ok("mechanisms follow", _lines(["PLAIN"] if self._plain_allowed else []))
        if mechanism.upper() != b"PLAIN" or not self._plain_allowed:
            return self._refuse("mechanism not offered")
        if initial:
            # RFC 5034 section 4: "=" stands for an initial response of no octets.
            return self._sasl_plain(b"" if initial == b"=" else initial)
        self._in_sasl = True
        return continuation()

    def _sasl_line(self, line: bytes) -> Reply | Ask:
        self._in_sasl = False
        if line == b"*":
            return self._refuse("authentication cancelled")
        return self._sasl_plain(line)

    def _sasl_plain(self, encoded: bytes) -> Reply | Ask:
        # RFC 4616: [authorization id] NUL authentication id NUL password.
        try:
            parts = b64decode(encoded, validate=True).decode("utf-8").split("\0")
        except (binascii.Error, UnicodeDecodeError):
            return self._refuse("not base64 of UTF-8")
        if len(parts) != 3 or not parts[1] or parts[0] not in ("", parts[1]):  # noqa: PLR2004 (the three of RFC 4616)
            return self._refuse("not a PLAIN response, or an authorization id that is not the user's")
        return self._open(parts[1], parts[2])

    def _leave(self, _command: Command) -> Reply:
        return ok("bye", ends=True)

    # TRANSACTION

    def _stat(self, command: Command) -> Reply:
        if command.argument:
            return self._refuse("STAT takes no argument")
        count, octets = len(self._snapshot.messages), self._snapshot.octets
        for index in self._marked:
            count -= 1
            octets -= self._snapshot.messages[index].octets
        return Reply(b"+OK %d %d\r\n" % (count, octets))

    def _list(self, command: Command) -> Reply:
        if command.argument:
            return self._one(command, lambda number, message: ok(f"{number} {message.octets}"))
        return self._all([f"{n} {m.octets}\r\n" for n, m in enumerate(self._snapshot.messages, 1)])

    def _uidl(self, command: Command) -> Reply:
        if command.argument:
            return self._one(command, lambda number, message: ok(f"{number} {message.uid}"))
        return self._all([f"{n} {m.uid}\r\n" for n, m in enumerate(self._snapshot.messages, 1)])

    def _all(self, lines: list[str]) -> Reply:
        for index in sorted(self._marked, reverse=True):
            del lines[index]
        return Reply(b"+OK\r\n", "".join(lines).encode("ascii") + END_OF_MESSAGE)

    def _one(self, command: Command, answer: Callable[[int, Message], Reply]) -> Reply:
        index = self._index(command.argument)
        if index is None:
            return self._no_message()
        return answer(index + 1, self._snapshot.messages[index])

    def _retr(self, command: Command) -> Reply | Ask:
        index = self._index(command.argument)
        if index is None:
            return self._no_message()
        messages = self._snapshot.messages
        return Fetch(messages[index], None, messages[index + 1 : index + 1 + FOLLOWING])

    def _top(self, command: Command) -> Reply | Ask:
        number, _, lines = command.argument.partition(b" ")
        index, body_lines = self._index(number), _number(lines)
        if body_lines is None:
            return self._refuse("TOP needs a message number and a number of lines")
        return self._no_message() if index is None else Fetch(self._snapshot.messages[index], body_lines)

    def _dele(self, command: Command) -> Reply:
        index = self._index(command.argument)
        if index is None:
            return self._no_message()
        self._marked.add(index)
        return ok(f"message {index + 1} marked")

    def _noop(self, command: Command) -> Reply:
        return self._refuse("NOOP takes no argument") if command.argument else ok()

    def _rset(self, command: Command) -> Reply:
        if command.argument:
            return self._refuse("RSET takes no argument")
        self._marked.clear()
        return ok(f"{len(self._snapshot.messages)} messages ({self._snapshot.octets} octets)")

    def _remove_and_leave(self, _command: Command) -> Ask:
        return Remove(tuple(self._snapshot.messages[index] for index in sorted(self._marked)))

    # Shared

    def _index(self, argument: bytes) -> int | None:
        """Return the index that a message number stands for, or None where no unmarked message has it."""
        number = _number(argument)
        if number is None or not 1 <= number <= len(self._snapshot.messages) or number - 1 in self._marked:
            return None
        return number - 1

    @staticmethod
    def _no_message() -> Reply:
        return err("no such message")

    def _refuse(self, text: str, code: str = "") -> Reply:
        self._refusals += 1
        if self._refusals >= REFUSALS_MAX:
            return err(f"{text}; too many of these, closing", code, ends=True)
        return err(text, code)

    # RFC 1939, RFC 2449 (CAPA, in both states), RFC 5034 (AUTH). What is illegal is simply absent.
    _VERBS: ClassVar[dict[tuple[str, str], Callable[["Session", Command], Reply | Ask]]] = {
        (AUTHORIZATION, "CAPA"): _capa,
        (AUTHORIZATION, "USER"): _user_named,
        (AUTHORIZATION, "PASS"): _pass,
        (AUTHORIZATION, "AUTH"): _auth,
        (AUTHORIZATION, "QUIT"): _leave,
        (TRANSACTION, "CAPA"): _capa,
        (TRANSACTION, "STAT"): _stat,
        (TRANSACTION, "LIST"): _list,
        (TRANSACTION, "UIDL"): _uidl,
        (TRANSACTION, "RETR"): _retr,
        (TRANSACTION, "TOP"): _top,
        (TRANSACTION, "DELE"): _dele,
        (TRANSACTION, "NOOP"): _noop,
        (TRANSACTION, "RSET"): _rset,
        (TRANSACTION, "QUIT"): _remove_and_leave,
    }
    _KNOWN: ClassVar[frozenset[str]] = frozenset(verb for _, verb in _VERBS)


def _lines(texts: list[str]) -> bytes:
    return "".join(f"{text}\r\n" for text in texts).encode("ascii") + END_OF_MESSAGE


def _number(text: bytes) -> int | None:
    """Return a decimal number of at most ten digits, or None. int() alone would take ``+1``, ``1_0`` and blanks."""
    return int(text) if len(text) <= 10 and text.isdigit() else None  # noqa: PLR2004 (2**32 has ten digits)
