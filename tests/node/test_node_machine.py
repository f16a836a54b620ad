"""Two sessions, deliveries and an administrator at once, against a model of what POP3 promises."""

import base64
import shutil
import tempfile
from typing import NamedTuple

import pytest
from dialogs.connection import MemoryConnection
from dialogs.memory import Clock, House, factory_of, world_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from node.pop3.server import AUTOLOGOUT_SECONDS
from store import credential

ADA, KEY = "ada@example.org", "example.org/ada"
PIECES = (1, 7, 2**31)

bodies = st.lists(st.sampled_from([b".", b"..x", b"text", b"", b"\xff", b"a: b"]), max_size=4).map(b"\n".join)
clients = st.sampled_from([0, 1])
numbers = st.integers(0, 5)


class Stored(NamedTuple):
    uid: str
    content: bytes  # As RETR gives it, before dot-stuffing.


class ModelSession:
    """What a session promised at login, and what its user marked since."""

    def __init__(self, listing: list[Stored]) -> None:
        self.listing = listing
        self.marked: set[int] = set()

    def visible(self) -> list[tuple[int, Stored]]:
        return [(number, it) for number, it in enumerate(self.listing, 1) if number not in self.marked]

    def has(self, number: int) -> bool:
        return 1 <= number <= len(self.listing) and number not in self.marked


class TwoSessions(RuleBasedStateMachine):
    @initialize(size=st.sampled_from(PIECES))
    def begin(self, size: int) -> None:
        self.root = tempfile.mkdtemp(prefix="mailroot-machine-")
        self.house = House.build(self.root)
        self.house.mailbox(ADA, "lovelace")
        self.house.alias("post@example.org", ADA)
        self.clock = Clock()
        self.world = world_of(self.house)
        self.factory = factory_of(self.world, self.clock)
        self.size = size
        self.stored: list[Stored] = []
        self.connections: list[MemoryConnection | None] = [None, None]
        self.sessions: list[ModelSession | None] = [None, None]

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    # Speaking

    def say(self, client: int, text: str) -> bytes:
        connection = self.connections[client]
        if connection is None:
            connection = self.connections[client] = MemoryConnection(self.factory, self.size)
        before = len(connection.received)
        connection.send(text.encode() + b"\r\n")
        return connection.received[before:]

    def gone(self, client: int) -> None:
        self.connections[client] = self.sessions[client] = None

    def notice_the_end(self, client: int) -> None:
        connection = self.connections[client]
        if connection is not None and connection.closed:
            self.gone(client)

    def session(self, client: int) -> ModelSession:
        found = self.sessions[client]
        assert found is not None
        return found

    # The world around

    @rule(body=bodies, name=st.sampled_from([ADA, "post@example.org"]))
    def deliver(self, body: bytes, name: str) -> None:
        uid = self.house.message(name, body)
        content = body.replace(b"\n", b"\r\n")
        self.stored.append(Stored(uid, content if content.endswith(b"\r\n") else content + b"\r\n"))

    @rule()
    def break_claim(self) -> None:
        self.world.claims.break_claim(KEY)

    @rule(seconds=st.sampled_from([1, AUTOLOGOUT_SECONDS - 1, AUTOLOGOUT_SECONDS + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.factory.autologout()
        for client, connection in enumerate(self.connections):
            if connection is not None:
                connection.pump()
                self.notice_the_end(client)

    # A client

    @rule(client=clients, sasl=st.booleans(), alias=st.booleans(), right=st.booleans())
    def log_in(self, client: int, *, sasl: bool, alias: bool, right: bool) -> None:
        user, password = "post@example.org" if alias else ADA, "lovelace" if right else "babbage"
        if self.sessions[client] is not None:
            assert self.say(client, f"USER {user}").startswith(b"-ERR")
            self.notice_the_end(client)  # The tenth refusal of a connection is its last.
            return
        if sasl:
            reply = self.say(client, "AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode())
        else:
            assert self.say(client, f"USER {user}").startswith(b"+OK")
            reply = self.say(client, f"PASS {password}")
        if not right:
            assert reply.startswith(b"-ERR [AUTH]")
        elif self.holders():
            assert reply.startswith(b"-ERR [IN-USE]")
        else:
            octets = sum(len(it.content) for it in self.stored)
            assert reply == b"+OK %d messages (%d octets)\r\n" % (len(self.stored), octets)
            self.sessions[client] = ModelSession(list(self.stored))
        self.notice_the_end(client)

    @rule(client=clients)
    def drop(self, client: int) -> None:
        connection = self.connections[client]
        if connection is not None:
            connection.drop()
            self.gone(client)

    @rule(client=clients)
    @precondition(lambda self: any(self.sessions))
    def look(self, client: int) -> None:
        if self.sessions[client] is None:
            assert self.say(client, "CAPA").startswith(b"+OK")
            return
        visible = self.session(client).visible()
        octets = sum(len(it.content) for _, it in visible)
        assert self.say(client, "STAT") == b"+OK %d %d\r\n" % (len(visible), octets)
        sizes = b"".join(b"%d %d\r\n" % (number, len(it.content)) for number, it in visible)
        assert self.say(client, "LIST") == b"+OK\r\n" + sizes + b".\r\n"
        uids = "".join(f"{number} {it.uid}\r\n" for number, it in visible)
        assert self.say(client, "UIDL") == b"+OK\r\n" + uids.encode() + b".\r\n"

    @rule(client=clients, number=numbers)
    @precondition(lambda self: any(self.sessions))
    def retrieve(self, client: int, number: int) -> None:
        if self.sessions[client] is None:
            return
        session, reply = self.session(client), self.say(client, f"RETR {number}")
        if not session.has(number):
            assert reply == b"-ERR no such message\r\n"
            return
        stored = session.listing[number - 1]
        if stored not in self.stored and reply.startswith(b"-ERR [SYS/TEMP] the message is gone"):
            return  # Another session removed it after this one's claim was broken.
        lines = [b"." + line if line.startswith(b".") else line for line in stored.content.split(b"\r\n")]
        assert reply == b"+OK %d octets\r\n" % len(stored.content) + b"\r\n".join(lines) + b".\r\n"

    @rule(client=clients, number=numbers)
    @precondition(lambda self: any(self.sessions))
    def mark(self, client: int, number: int) -> None:
        if self.sessions[client] is None:
            return
        session = self.session(client)
        had = session.has(number)
        assert self.say(client, f"DELE {number}").startswith(b"+OK" if had else b"-ERR no such message")
        if had:
            session.marked.add(number)

    @rule(client=clients)
    @precondition(lambda self: any(self.sessions))
    def reset(self, client: int) -> None:
        if self.sessions[client] is not None:
            assert self.say(client, "RSET").startswith(b"+OK")
            self.session(client).marked.clear()

    @rule(client=clients)
    @precondition(lambda self: any(self.connections))
    def leave(self, client: int) -> None:
        session = self.sessions[client]
        ours = session is not None and self.ours(client)
        reply = self.say(client, "QUIT")
        if session is None or not session.marked or ours:
            assert reply.endswith(b"+OK bye\r\n")
        else:
            assert reply.startswith(b"-ERR [SYS/TEMP] session expired, nothing was removed")
        if session is not None and ours:
            removed = {session.listing[number - 1] for number in session.marked}
            self.stored = [it for it in self.stored if it not in removed]
        self.gone(client)

    def ours(self, client: int) -> bool:
        connection = self.connections[client]
        assert connection is not None
        claim = connection.protocol._opened.claim
        return self.world.claims.still_ours(claim)

    def holders(self) -> list[int]:
        """Return the clients whose session, as far as the model knows, holds the claim."""
        return [client for client in (0, 1) if self.sessions[client] is not None and self.ours(client)]

    # Always

    @invariant()
    def nothing_is_lost_and_nothing_comes_back(self) -> None:
        if hasattr(self, "house"):
            assert self.house.uids(ADA) == [it.uid for it in self.stored]

    @invariant()
    def a_claim_lives_as_long_as_its_session(self) -> None:
        if hasattr(self, "house"):
            assert len(self.world.claims.by_mailbox) == len(self.holders()) <= 1


@pytest.mark.invariant("I4")
def test_two_sessions_and_deliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential, "ITERATIONS", 1)
    run_state_machine_as_test(
        TwoSessions,
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
