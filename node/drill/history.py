"""
What happened to the mail, as its users saw it; and a checker that says which promise a history breaks.

Knows       mailboxes, uids and times on one clock. Nothing of processes or sockets: the load and the scripted sessions
            write the history, tests/cluster/test_history.py shows that the checker rejects bad ones.

A *token* is the content of a message as far as the checker cares: the sender's own word, one for each attempt to deliver.
"""

import math
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from attrs import define, field, frozen

# What a violation is, for those who count them. "contradiction": clients saw what does not fit together.
Kind = Literal["lost", "not asked", "twice", "two holders", "contradiction", "unread"]


@frozen
class Violation:
    """One broken promise."""

    kind: Kind
    sentence: str


@define(eq=False, kw_only=True)
class Seen:
    """One session as its client saw it. ``answer`` is the reply to QUIT, None where there was none."""

    mailbox: str
    node: str
    asked_at: float
    opened_at: float = math.inf
    listed: tuple[str, ...] | None = None
    fetched: dict[str, str] = field(factory=dict)
    marked: list[str] = field(factory=list)
    quit_at: float = math.inf
    answer: str | None = None
    answered_at: float = math.inf

    @property
    def asked(self) -> set[str]:
        """The uids it asked to be removed: only a QUIT that was sent asks."""
        return set(self.marked) if self.quit_at < math.inf else set()

    @property
    def removed(self) -> set[str]:
        """The uids it was told are removed."""
        return set(self.marked) if self.answer is not None and self.answer.startswith("+OK") else set()

    @property
    def told_nothing(self) -> bool:
        """It was told that nothing was removed, or that nobody could say whether it may remove."""
        answer = self.answer or ""
        return answer.startswith("-ERR") and ("nothing was removed" in answer or "claims unavailable" in answer)


@define(eq=False, kw_only=True)
class Accepted:
    """A delivery that was answered with 250."""

    mailbox: str
    uid: str
    token: str
    at: float


class History:
    """Any number of threads write; one checks when they have ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.accepted: list[Accepted] = []
        self.sessions: list[Seen] = []
        self.readable: dict[str, dict[str, str]] = {}

    def note_accepted(self, mailbox: str, uid: str, token: str, at: float) -> None:
        """A delivery was answered with 250 at this time."""
        with self._lock:
            self.accepted.append(Accepted(mailbox=mailbox, uid=uid, token=token, at=at))

    def note_session(self, seen: Seen) -> None:
        """A session has its mailbox; it goes on writing down what it sees."""
        with self._lock:
            self.sessions.append(seen)

    def note_readable(self, mailbox: str, messages: dict[str, str]) -> None:
        """What the mailbox holds at the end: uid -> token."""
        self.readable[mailbox] = messages

    def violations(self) -> list[str]:
        """Return a sentence for each broken promise."""
        return [violation.sentence for violation in self.judge()]

    def judge(self) -> list[Violation]:
        """Return each broken promise."""
        unread = {delivery.mailbox for delivery in self.accepted} - set(self.readable)
        return [
            *(
                Violation("unread", f"{mailbox}: it received mail and nobody read it at the end")
                for mailbox in sorted(unread)
            ),
            *(violation for mailbox in sorted(self.readable) for violation in self._of(mailbox)),
        ]

    def _of(self, mailbox: str) -> Iterator[Violation]:
        accepted = [delivery for delivery in self.accepted if delivery.mailbox == mailbox]
        sessions = [seen for seen in self.sessions if seen.mailbox == mailbox]
        readable = self.readable[mailbox]
        yield from _gone(mailbox, accepted, sessions, readable)
        yield from _not_listed(mailbox, accepted, sessions)
        yield from _back_again(mailbox, sessions, readable)
        yield from _told_wrongly(mailbox, sessions, readable)
        yield from _twice(mailbox, accepted, sessions, readable)
        yield from _two_holders(mailbox, sessions)


def _gone(
    mailbox: str, accepted: list[Accepted], sessions: list[Seen], readable: dict[str, str]
) -> Iterator[Violation]:
    """
    Accepted is a part of readable and of what somebody asked to be removed; so is what was ever listed (I2, I4).

    What was accepted and is gone is lost. What a session had listed was there, so somebody removed it unasked.
    """
    asked = {uid for seen in sessions for uid in seen.asked}
    listed = {uid for seen in sessions for uid in seen.listed or ()}
    promised = {delivery.uid for delivery in accepted}
    for uid in sorted((promised | listed) - set(readable) - asked):
        sentence = f"{mailbox}: {uid} is gone and nobody asked for its removal"
        if uid in promised:
            yield Violation("lost", sentence)
        if uid in listed:
            yield Violation("not asked", f"{sentence}; a session had listed it")


def _not_listed(mailbox: str, accepted: list[Accepted], sessions: list[Seen]) -> Iterator[Violation]:
    """What was accepted before a login is in that session's listing, on every node."""
    for seen in sessions:
        if seen.listed is None:
            continue
        listed = set(seen.listed)
        asked = {uid for other in sessions if other.quit_at < seen.opened_at for uid in other.asked}
        for delivery in accepted:
            if delivery.at < seen.asked_at and delivery.uid not in listed and delivery.uid not in asked:
                sentence = f"{mailbox}: {delivery.uid} was accepted before a login at {seen.node} that did not list it"
                yield Violation("contradiction", sentence)


def _back_again(mailbox: str, sessions: list[Seen], readable: dict[str, str]) -> Iterator[Violation]:
    """What was removed stays away."""
    for remover in sessions:
        for uid in sorted(remover.removed):
            removed = f"{mailbox}: {uid} was removed at {remover.node} and is"
            if uid in readable:
                yield Violation("contradiction", f"{removed} readable at the end")
            for seen in sessions:
                if seen.asked_at > remover.answered_at and uid in (seen.listed or ()):
                    yield Violation("contradiction", f"{removed} listed at {seen.node} later")


def _told_wrongly(mailbox: str, sessions: list[Seen], readable: dict[str, str]) -> Iterator[Violation]:
    """A session that was told that nothing was removed has removed nothing (I5)."""
    for seen in sessions:
        if seen.told_nothing:
            others = {uid for other in sessions if other is not seen for uid in other.asked}
            for uid in sorted(seen.asked - set(readable) - others):
                sentence = f"{mailbox}: {seen.node} said that nothing was removed, but {uid} is gone"
                yield Violation("contradiction", sentence)


def _twice(
    mailbox: str, accepted: list[Accepted], sessions: list[Seen], readable: dict[str, str]
) -> Iterator[Violation]:
    """A uid has one content for ever (I3), a content that was sent once has one uid, a listing has no uid twice."""
    pairs = {(delivery.uid, delivery.token) for delivery in accepted} | set(readable.items())
    for seen in sessions:
        pairs |= set(seen.fetched.items())
        if seen.listed is not None and len(set(seen.listed)) < len(seen.listed):
            yield Violation("twice", f"{mailbox}: a session at {seen.node} listed a uid twice")
    for which, what in ((0, "uid"), (1, "message")):
        times = Counter(pair[which] for pair in pairs)
        for name in sorted(name for name, count in times.items() if count > 1):
            yield Violation("twice", f"{mailbox}: the {what} {name} is there twice")


def _two_holders(mailbox: str, sessions: list[Seen]) -> Iterator[Violation]:
    """
    Of two sessions that were open at one time at most one removed something.

    Open for certain: from its own +OK to its own QUIT, both as the client saw them.
    """
    removers = sorted((seen for seen in sessions if seen.removed), key=lambda seen: seen.opened_at)
    for index, first in enumerate(removers):
        for second in removers[index + 1 :]:
            if second.opened_at < first.quit_at:
                sentence = f"{mailbox}: {first.node} and {second.node} held it at one time and both removed"
                yield Violation("two holders", sentence)
