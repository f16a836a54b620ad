"""
Mailboxes: how a message comes to rest on the shared disk, and how it leaves.

Guarantees  I1 a name ending in .eml is a complete message; I2 deliver() returns only after I1 holds, durably;
            I3 names are never used again; I4 remove() touches only the names it is given;
            I6 deliver() needs no claim.
Fails with  Unavailable, Full, LeaseLapsed: all of them temporary. A directory that is not there may be a share that is
            not mounted; whether a mailbox is Missing, only MailStore.find can tell, with the marker in sight (I9).
Knows       the layout of one mailbox's directory. Nothing of POP3, Redis or Twisted.

What can lie in a mailbox's directory, and what a crash makes of it:

    P3<uid>-<octets>.eml    a message of ours, CRLF, immutable          stays
    anything else .eml      a message of another program (adopted)      stays; its octets are counted
    .tmp-<uid>              a delivery in progress                      litter after 36 h, swept
    .auth-<n>-<uid>         the credential; the highest n counts        the others are litter
    .lock-<n>-<uid>-on|off  the administrator's lock; the highest n     the others are litter
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from threading import Lock as ThreadLock

from attrs import frozen

from store import files
from store.errors import HalfRemoved, LeaseLapsed, Unavailable
from store.message import Message, Snapshot, canonical, foreign_uid, is_foreign, message_name, read_name
from store.names import NameSource

CHUNK_OCTETS = 64 * 1024  # What one trip to the disk brings: DESIGN's measured worth of a hop between threads.
LITTER_SECONDS = 36 * 3600  # No delivery takes this long; a maildir's sweep has used 36 h since qmail.
COUNTED_MAX = 100_000  # Adopted messages whose octets a process remembers: about 20 MB.

DRAFT_PREFIX = ".tmp-"


@frozen(kw_only=True)
class Setting:
    """One value of a mailbox's small mutable state, as the listing shows it. ``state`` is the last part of the name."""

    number: int
    name: str
    state: str


def newest(names: Iterable[str], kind: str) -> Setting | None:
    """
    Return the newest ``.<kind>-<number>-<uid>[-state]`` of a listing, or None.

    State is a *new name* each time instead of a new content under an old name, because only names are seen at
    once by every node. Two administrators at one instant write the same number; the greater name wins, for all.
    """
    prefix = f".{kind}-"
    found: Setting | None = None
    for name in names:
        if name.startswith(prefix):
            number, _, rest = name[len(prefix) :].partition("-")
            uid, _, state = rest.partition("-")
            if number.isdecimal() and uid:
                setting = Setting(number=int(number), name=name, state=state)
                if found is None or (setting.number, setting.name) > (found.number, found.name):
                    found = setting
    return found


def write_setting(directory: str, names: NameSource, kind: str, content: bytes = b"", state: str = "") -> str:
    """Write a new value of a setting, then remove the values it replaces. Returns its file name."""
    listing = files.list_names(directory)
    current = newest(listing, kind)
    uid = names.next_uid()
    number = current.number + 1 if current else 1
    name = f".{kind}-{number:06d}-{uid}" + (f"-{state}" if state else "")
    files.write_new(directory, f"{DRAFT_PREFIX}{uid}", name, content)
    for old in listing:
        if old.startswith(f".{kind}-"):
            files.unlink(f"{directory}/{old}")
    return name


def read_setting(directory: str, listing: list[str], kind: str) -> tuple[Setting, bytes] | None:
    """
    Return the newest value of a setting and its content, or None where there is none.

    Between our listing and our reading another node may have written a newer one and removed this: then the
    directory is listed once more.
    """
    for attempt in (listing, None):
        setting = newest(files.list_names(directory) if attempt is None else attempt, kind)
        if setting is None:
            return None
        try:
            return setting, files.read_whole(f"{directory}/{setting.name}")
        except FileNotFoundError:
            continue
    message = f"{directory}: the setting {kind} changes faster than it can be read"
    raise Unavailable(message)


class OctetCounts:
    """
    The octets of adopted messages, counted once per process and for as long as the file stays what it was.

    Rejected: a rename to a name that carries the octets. The program that wrote the file may still be at it,
    and an operator who goes back to that program wants its names back.
    """

    def __init__(self) -> None:
        self._counted: OrderedDict[str, tuple[tuple[int, int, int], int]] = OrderedDict()
        self._lock = ThreadLock()

    def octets(self, path: str) -> int:
        """Return what RETR will send of this file. FileNotFoundError where it has gone."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise files.failure(error) from error
        key = (status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            known = self._counted.get(path)
            if known is not None and known[0] == key:
                self._counted.move_to_end(path)
                return known[1]
        octets = sum(map(len, canonical(_chunks(path))))
        with self._lock:
            self._counted[path] = (key, octets)
            if len(self._counted) > COUNTED_MAX:
                self._counted.popitem(last=False)
        return octets


_octet_counts = OctetCounts()


def _chunks(path: str) -> Generator[bytes, None, None]:
    # os.read, not open(): the file object costs as much again as a small message.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while chunk := os.read(descriptor, CHUNK_OCTETS):
                yield chunk
        finally:
            os.close(descriptor)
    except (FileNotFoundError, IsADirectoryError):
        raise
    except OSError as error:
        raise files.failure(error) from error


class Reading:
    """A message being read: chunks of at most CHUNK_OCTETS, in its canonical form, with one descriptor held."""

    def __init__(self, path: str, *, foreign: bool) -> None:
        chunks = _chunks(path)
        self._chunks = canonical(chunks) if foreign else chunks

    def next_chunk(self) -> bytes:
        """Return the next bytes, or none at the end."""
        return next(self._chunks, b"")

    def close(self) -> None:
        """Give the descriptor back."""
        # A thread that hangs in next_chunk() still runs the generator; its end closes the descriptor then.
        with suppress(ValueError):
            self._chunks.close()


@frozen
class Mailbox:
    """
    One mailbox, found and resolved: aliases of it are this same value.

    ``key`` (``domain/local``) is what a claim is taken on; ``path`` is its directory.
    """

    path: str
    key: str

    def listing(self) -> list[str]:
        """Return every name in the mailbox. :raises Unavailable: its directory went away meanwhile."""
        try:
            return files.list_names(self.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            message = f"mailbox {self.key} is gone: {self.path}"
            raise Unavailable(message) from error

    def snapshot(self, listing: list[str]) -> Snapshot:
        """Return what a session keeps of a listing until its end: the messages, oldest first."""
        messages: list[Message] = []
        octets = 0
        for name in sorted(listing):
            message = read_name(name)
            if message is None:
                if not is_foreign(name):
                    continue
                try:
                    message = Message(foreign_uid(name), _octet_counts.octets(f"{self.path}/{name}"), name)
                except (FileNotFoundError, IsADirectoryError):
                    continue
            messages.append(message)
            octets += message.octets
        return Snapshot(tuple(messages), octets)

    def read(self, message: Message) -> Reading:
        """Begin to read a message. The first chunk tells whether it is still there."""
        return Reading(f"{self.path}/{message.name}", foreign=read_name(message.name) is None)

    def deliver(self, names: NameSource, chunks: Iterable[bytes]) -> Message:
        """
        Store a message for good; the order of effects is files.Draft's.

        :param chunks: the message, any line ends; at most one chunk is held at a time.
        :returns: the message as a listing shows it.
        :raises Unavailable, Full: nothing was delivered, or so late that it cannot be told (then a second copy
            is the worst that can come of trying again).
        """
        uid = names.next_uid()
        try:
            draft = files.Draft(self.path, f"{DRAFT_PREFIX}{uid}")
        except (FileNotFoundError, NotADirectoryError) as error:
            message = f"mailbox {self.key} is gone: {self.path}"
            raise Unavailable(message) from error
        try:
            for chunk in canonical(chunks):
                draft.write(chunk)
            delivered = Message(uid, draft.octets, message_name(uid, draft.octets))
            draft.publish(delivered.name)
        except (FileNotFoundError, NotADirectoryError) as error:
            draft.discard()
            message = f"mailbox {self.key} was removed during a delivery: {self.path}"
            raise Unavailable(message) from error
        except BaseException:
            draft.discard()
            raise
        return delivered

    def remove(self, messages: Iterable[Message], still_ours: Callable[[], bool]) -> list[Message]:
        """
        Remove messages by the names that the session listed; return those that could not be removed (I4).

        :param still_ours: the last look before each unlink (I5); a process that slept between two of them
            stops at the next.
        :raises LeaseLapsed: it said no; what was not removed yet stays (HalfRemoved: some was).
        """
        left: list[Message] = []
        removed = 0
        for message in messages:
            if not still_ours():
                detail = f"mailbox {self.key}: the lease lapsed during the removal; {removed} removed, the rest was not"
                raise (HalfRemoved if removed else LeaseLapsed)(detail)
            try:
                if files.unlink(f"{self.path}/{message.name}") or files.is_directory(self.path):
                    removed += 1
                else:
                    left.append(message)
            except (Unavailable, NotADirectoryError):
                left.append(message)
        # No fsync of the directory: after a power cut a removed message may be back, which loses nothing.
        # Rejected because it costs every QUIT a disk flush.
        return left

    def litter(self, listing: list[str]) -> list[str]:
        """Return the names that may have to be swept: drafts and replaced settings."""
        hidden = [name for name in listing if name.startswith(".")]
        current = {setting.name for kind in ("auth", "lock") if (setting := newest(hidden, kind))}
        return [
            name
            for name in hidden
            if name.startswith(DRAFT_PREFIX) or (name.startswith((".auth-", ".lock-")) and name not in current)
        ]

    def sweep(self, names: NameSource) -> list[str]:
        """
        Remove litter older than LITTER_SECONDS and return its names.

        Age is measured on the server's clock, which stamps both the litter and a file made for the comparison:
        a node whose own clock jumped a week ahead must not take a running delivery for litter.
        """
        candidates = self.litter(self.listing())
        if not candidates:
            return []
        probe_name = f"{DRAFT_PREFIX}{names.next_uid()}"
        probe = files.Draft(self.path, probe_name)
        try:
            now = files.modified_seconds(f"{self.path}/{probe_name}")
        finally:
            probe.discard()
        swept = []
        for name in candidates:
            path = f"{self.path}/{name}"
            try:
                if now - files.modified_seconds(path) > LITTER_SECONDS and files.unlink(path):
                    swept.append(name)
            except FileNotFoundError:
                continue
        return swept
