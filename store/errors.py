"""
What can fail, and who may read which words about it.

Every failure has two texts: ``public`` is for strangers and never names a path, a host or a secret; ``detail``
is for the operator and says what happened and what to do. Whether a retry can help is in the type, so that a
bug (any exception that is not one of these) counts as temporary and mail is retried, never bounced.
"""

from typing import ClassVar


class StoreError(Exception):
    """A failure of the mail store or the ledger. ``detail`` is the operator's text."""

    temporary: ClassVar[bool] = True
    public: ClassVar[str] = "temporary failure, try again later"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Unavailable(StoreError):
    """The mail store does not answer, or answers nonsense: try later."""

    public = "mail store unavailable, try again later"


class Full(Unavailable):
    """No space, or a quota of the file server is used up: try later, after somebody has made room."""

    public = "mail store full, try again later"


class BrokenAlias(Unavailable):
    """A link that loops, leads outside the store or to no mailbox: the operator mends it, so mail is kept meanwhile."""


class LedgerUnavailable(Unavailable):
    """Redis does not answer: no new claims; mail is still accepted and running sessions read on."""

    public = "mailbox claims unavailable, try again later"


class Overloaded(Unavailable):
    """Too much work is waiting already; refusing now is kinder than queueing for ever."""

    public = "server busy, try again later"


class LeaseLapsed(Unavailable):
    """This node cannot know any more whether its claims are its own (I5)."""

    public = "session expired, nothing was removed"


class HalfRemoved(LeaseLapsed):
    """The same in the middle of a removal: what was removed stays removed, the rest stays."""

    public = "session expired, only some of the marked messages were removed"


class InUse(StoreError):
    """Another session holds the claim on the mailbox."""

    public = "mailbox in use by another session"


class Missing(StoreError):
    """No such domain, mailbox or message, seen with the store's marker in sight."""

    temporary = False
    public = "no such mailbox here"


class Exists(StoreError):
    """The name is taken already."""

    temporary = False
    public = "it exists already"


class Locked(StoreError):
    """The administrator locked the mailbox or its domain: no retrieval, but it still receives."""

    temporary = False
    public = "mailbox locked by the administrator"


class Refused(StoreError):
    """Input that no retry will make right; the detail says what would be right."""

    temporary = False
    public = "refused"


class Misconfigured(StoreError):
    """Marker, GUID or method do not fit this node; the detail is the fix."""

    temporary = False
    public = "server misconfigured"
