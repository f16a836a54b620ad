"""
What a session asks of the world, carried out: Open, Fetch, Remove.

Guarantees  I4, I5: nothing is removed without a last look at the claim, which comes after the last pause and before
            the first unlink. A claim that was taken is dropped, whatever happens to the session.
Fails with  nothing: a failure becomes a Refusal for the client and an event for the operator.
Knows       the store through the disk pool, the claims, the replica. Nothing of states or sockets.
"""

import time
from collections.abc import Callable

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from node import journal
from node.auth.outcome import Authenticator, No
from node.claims import Claim, Claiming
from node.pools import Pool, TimedOut
from node.pop3.session import Fetch, Open, Refusal, Remove
from store.domain import MailStore, locked_in
from store.errors import InUse, LeaseLapsed, LedgerUnavailable, Locked, StoreError, Unavailable
from store.mailbox import CHUNK_OCTETS, Mailbox, Reading
from store.message import Message, Snapshot

WRONG = Refusal("AUTH", "wrong user or password")  # RFC 3206: the client should ask its user for a password.


@frozen(kw_only=True)
class World:
    """What all sessions of a node share. ``observe`` takes the name of an ask and its seconds."""

    disk: Pool
    store: MailStore
    authenticator: Authenticator
    claims: Claiming
    is_domain_locked: Callable[[str], bool]
    store_trouble: Callable[[], str | None]
    observe: Callable[[str, float], None]


@frozen
class Opened:
    """
    A mailbox that is ours until remove() or close().

    ``ahead`` holds messages, by name, that came with an earlier one in the same trip to the disk: never more than
    CHUNK_OCTETS, and only until the next trip.
    """

    mailbox: Mailbox
    claim: Claim
    snapshot: Snapshot
    has_litter: bool
    ahead: dict[str, bytes] = field(factory=dict, repr=False)


@frozen
class Started:
    """A message whose first chunk is here; the rest follows from ``reading``, which is None where there is no more."""

    first: bytes
    reading: Reading | None


async def open_mailbox(world: World, ask: Open) -> Opened | Refusal:
    """
    Verify, claim, list: IN-USE is for right credentials only, and a listing older than the claim would be stale.

    A user whose password was verified lately is claimed for before the verification, whose listing of the mailbox is
    then young enough to be the session's too: one trip to the disk instead of two, and no word to the client before
    the verification.
    """
    began = time.monotonic()
    claim: Claim | None = None
    try:
        trouble = world.store_trouble()
        if trouble is not None:
            raise Unavailable(trouble)
        in_use: InUse | None = None
        recalled = world.authenticator.recall(ask.user, ask.password)
        if recalled is not None:
            try:
                claim = await world.claims.take(recalled.key)
            except InUse as error:
                in_use = error
        verified = await world.disk.run(_verify, world.authenticator, ask)
        if isinstance(verified, No):
            return await _give_up(world, claim, WRONG)
        mailbox, is_locked, snapshot, has_litter = verified
        if is_locked or world.is_domain_locked(mailbox.key.partition("/")[0]):
            raise Locked(f"{mailbox.key} or its domain is locked")
        if in_use is not None and recalled == mailbox:
            raise in_use
        if claim is None or claim.mailbox != mailbox.key:
            if claim is not None:
                await world.claims.drop(claim)
            claim = await world.claims.take(mailbox.key)
            snapshot, has_litter = await world.disk.run(_list, mailbox)
        return Opened(mailbox, claim, snapshot, has_litter)
    except Exception as error:  # noqa: BLE001 (whatever it was, the client gets one reply and the operator the rest)
        return await _give_up(world, claim, _refusal(error, "open", user=ask.user))
    finally:
        world.observe("open", time.monotonic() - began)


async def _give_up(world: World, claim: Claim | None, refusal: Refusal) -> Refusal:
    if claim is not None:
        await world.claims.drop(claim)
    return refusal


def at_hand(opened: Opened, ask: Fetch) -> bytes | None:
    """Return a whole message that came along with an earlier one, if it did."""
    return opened.ahead.pop(ask.message.name, None)


async def fetch(world: World, opened: Opened, ask: Fetch) -> Started | Refusal:
    """
    Read the first chunk of a message; most messages are no longer.

    A trip to the disk is worth CHUNK_OCTETS, so short messages bring the following along: messages never change, and
    a client that reads one mostly reads the next.
    """
    began = time.monotonic()
    try:
        opened.ahead.clear()
        started, following = await world.disk.run(_start, opened.mailbox, ask)
    except FileNotFoundError:
        return Refusal("SYS/TEMP", "the message is gone, or the mail store is away")
    except Exception as error:  # noqa: BLE001
        return _refusal(error, "fetch", mailbox=opened.mailbox.key, uid=ask.message.uid)
    else:
        opened.ahead.update(following)
        return started
    finally:
        world.observe("fetch", time.monotonic() - began)


async def remove(world: World, opened: Opened, ask: Remove) -> int | Refusal:
    """Remove what the session marked, give the claim back, and return how many messages are left behind."""
    began = time.monotonic()
    claim = opened.claim
    unfinished: Deferred[None] | None = None
    try:
        if not ask.messages:
            return 0
        if not await world.claims.confirm(claim):
            raise LeaseLapsed(f"the claim on {claim.mailbox} is not known to be ours any more")
        left = await world.disk.run(opened.mailbox.remove, ask.messages, lambda: world.claims.still_ours(claim))
        return len(left)
    except Exception as error:  # noqa: BLE001
        if isinstance(error, TimedOut):
            # The thread may wake up and go on removing: the mailbox stays claimed until it is done.
            unfinished = error.finished
        return _refusal(error, "remove", mailbox=opened.mailbox.key, marked=len(ask.messages))
    finally:
        if unfinished is None:
            await close(world, opened)
        else:
            unfinished.addCallback(lambda _: Deferred.fromCoroutine(close(world, opened)))
        world.observe("remove", time.monotonic() - began)


async def close(world: World, opened: Opened) -> None:
    """Give the claim back; RFC 1939 section 6 for a session that ends without QUIT. Litter is swept on the way."""
    await world.claims.drop(opened.claim)
    if opened.has_litter:
        world.disk.run(opened.mailbox.sweep, world.store.names).addErrback(_sweep_failed, opened.mailbox.key)


def _sweep_failed(failure: Failure, mailbox: str) -> None:
    journal.failure("sweep_failed", failure.value, mailbox=mailbox)


def _verify(authenticator: Authenticator, ask: Open) -> tuple[Mailbox, bool, Snapshot, bool] | No:
    verdict = authenticator.verify(ask.user, ask.password)
    if isinstance(verdict, No):
        return verdict
    mailbox, listing = verdict
    return mailbox, locked_in(listing), mailbox.snapshot(listing), bool(mailbox.litter(listing))


def _list(mailbox: Mailbox) -> tuple[Snapshot, bool]:
    listing = mailbox.listing()
    return mailbox.snapshot(listing), bool(mailbox.litter(listing))


def _start(mailbox: Mailbox, ask: Fetch) -> tuple[Started, dict[str, bytes]]:
    started = _read(mailbox, ask.message)
    following: dict[str, bytes] = {}
    room = CHUNK_OCTETS - len(started.first) if started.reading is None else 0
    for message in ask.following:
        room -= message.octets
        if room < 0:
            break
        try:
            read = _read(mailbox, message)
        except (FileNotFoundError, StoreError):
            break  # Whoever asks for this one will be told.
        if read.reading is not None:
            read.reading.close()
            break
        following[message.name] = read.first
    return started, following


def _read(mailbox: Mailbox, message: Message) -> Started:
    reading = mailbox.read(message)
    first = reading.next_chunk()
    if len(first) != message.octets:  # Longer, too: another program may still be writing its file.
        return Started(first, reading)
    reading.close()
    return Started(first, None)


def _refusal(error: BaseException, ask: str, **fields: object) -> Refusal:
    """Return what the client hears of a failure, and tell the operator the rest."""
    if ask == "open" and isinstance(error, LeaseLapsed):
        error = LedgerUnavailable(error.detail)  # For somebody who logs in no session has expired.
    if isinstance(error, InUse):
        return Refusal("IN-USE", error.public)
    if isinstance(error, Locked):
        return Refusal("SYS/PERM", error.public)
    reference = journal.failure("ask_failed", error, ask=ask, **fields)
    if isinstance(error, StoreError):
        return Refusal("SYS/TEMP" if error.temporary else "SYS/PERM", f"{error.public} (ref {reference})")
    return Refusal("SYS/TEMP", f"internal failure, try again later (ref {reference})")
