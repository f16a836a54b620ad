"""A node's POP3 side in memory: claims within the process, pools of all kinds, a store to fill."""

import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from support import GUID
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from node.auth.encrypted_file import EncryptedFile
from node.claims import Claim
from node.pools import InlinePool
from node.pop3.asks import World
from node.pop3.server import Pop3Factory
from store.address import Address
from store.credential import Credential, seal
from store.domain import MailStore
from store.errors import InUse, LeaseLapsed
from store.identity import derived_key, found
from store.mailbox import Mailbox, write_setting
from store.names import NameSource


class MemoryClaims:
    """The double of node.claims.Claims: passes the same contract (test_node_claiming_contract.py)."""

    def __init__(self) -> None:
        self.by_mailbox: dict[str, Claim] = {}
        self.lapsed = False
        self._tokens = itertools.count(1)

    async def take(self, mailbox: str) -> Claim:
        if self.lapsed:
            raise LeaseLapsed("the double was told to lapse")
        if mailbox in self.by_mailbox:
            raise InUse(f"{mailbox} is claimed")
        claim = self.by_mailbox[mailbox] = Claim(mailbox, next(self._tokens), "memory~1")
        return claim

    async def confirm(self, claim: Claim) -> bool:
        return self.still_ours(claim)

    def still_ours(self, claim: Claim) -> bool:
        return not self.lapsed and not claim.lost and self.by_mailbox.get(claim.mailbox) is claim

    async def drop(self, claim: Claim) -> None:
        if self.by_mailbox.get(claim.mailbox) is claim:
            del self.by_mailbox[claim.mailbox]

    def break_claim(self, mailbox: str) -> None:
        """Do as an administrator does: the mailbox is free, and its holder removes nothing."""
        claim = self.by_mailbox.pop(mailbox, None)
        if claim is not None:
            claim.lost = True


class OrderedClaims(MemoryClaims):
    """Notes what is done, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.failure: Exception | None = None

    async def take(self, mailbox: str):
        self.done.append("take")
        if self.failure:
            raise self.failure
        return await super().take(mailbox)

    async def confirm(self, claim) -> bool:
        self.done.append("confirm")
        if self.failure:
            raise self.failure
        return await super().confirm(claim)


class HandPool:
    """A pool whose work waits until the test lets it happen, or fails it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred, Callable[[], object]]] = []

    def run(self, function: Callable, *args: object, **kwargs: object) -> Deferred:
        answer: Deferred = Deferred()
        self.calls.append((answer, lambda: function(*args, **kwargs)))
        return answer

    def step(self) -> None:
        """Do the oldest call."""
        answer, work = self.calls.pop(0)
        try:
            outcome = work()
        except Exception:
            answer.errback(Failure())
        else:
            answer.callback(outcome)

    def fail(self, error: Exception) -> None:
        """Fail the oldest call without doing it."""
        self.calls.pop(0)[0].errback(error)

    def drain(self) -> None:
        while self.calls:
            self.step()


class House:
    """A store as an administrator and other programs fill it."""

    def __init__(self, store: MailStore, key: bytes) -> None:
        self.store, self.key = store, key

    @classmethod
    def build(cls, root: str) -> "House":
        """Found a store whose uids come out the same each time, so that two stores answer alike."""
        identity = found(root, GUID, "encrypted_file")
        ticks = itertools.count(1_700_000_000)
        names = NameSource(clock=lambda: next(ticks), host="n1", entropy=bytes)
        return cls(MailStore(root, identity.store_id, names), derived_key(GUID, identity.store_id, "credentials"))

    def find(self, address: str) -> Mailbox:
        return self.store.find(Address.parse(address))

    def mailbox(self, address: str, password: str) -> Mailbox:
        parsed = Address.parse(address)
        self.store.add_domain(parsed.domain)
        mailbox = self.store.add_mailbox(parsed)
        self.password(address, password)
        return mailbox

    def password(self, address: str, password: str) -> None:
        content = seal(Credential.of(password), self.key, self.store.store_id)
        write_setting(self.find(address).path, self.store.names, "auth", content)

    def alias(self, alias: str, target: str) -> None:
        self.store.add_alias(Address.parse(alias), Address.parse(target))

    def lock(self, address: str, *, locked: bool) -> None:
        self.store.set_lock(self.find(address).path, locked=locked)

    def message(self, address: str, content: bytes) -> str:
        return self.find(address).deliver(self.store.names, [content]).uid

    def file(self, address: str, name: str, content: bytes) -> None:
        with open(f"{self.find(address).path}/{name}", "wb") as file:
            file.write(content)

    def uids(self, address: str) -> list[str]:
        mailbox = self.find(address)
        return [message.uid for message in mailbox.snapshot(mailbox.listing()).messages]


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def world_of(house: House, **changes: object) -> World:
    """Return a world in which everything happens at once."""
    settings: dict[str, object] = {
        "disk": InlinePool(),
        "store": house.store,
        "authenticator": EncryptedFile(house.store, house.key),
        "claims": MemoryClaims(),
        "is_domain_locked": lambda _domain: False,
        "store_trouble": lambda: None,
        "observe": lambda _ask, _seconds: None,
    }
    return World(**(settings | changes))


def factory_of(world: World, clock: Callable[[], float] | None = None, *, plain_allowed: bool = True) -> Pop3Factory:
    """Return a factory; ``logins`` and ``ends`` on it are what it counted."""
    logins: list[str] = []
    ends: list[str] = []
    factory = Pop3Factory(
        node="n1",
        greeting="Mailroot ready",
        plain_allowed=plain_allowed,
        world=world,
        count_login=logins.append,
        count_session=lambda end, _commands: ends.append(end),
        clock=clock or Clock(),
    )
    factory.logins, factory.ends = logins, ends
    return factory


def now(coroutine: Coroutine) -> Any:
    """Return what a coroutine that waits for nothing returns, or raise what it raises."""
    results: list[object] = []
    failures: list[BaseException] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, lambda failure: failures.append(failure.value))
    if failures:
        raise failures[0]
    assert results, "it waits for something"
    return results[0]
