"""
Do we take mail for this address? One answer for all who ask: RCPT in delivery.py, and an MTA in front (socketmap.py).

Guarantees  "no" is certain. NO_DOMAIN is said only of registrations that were read to their end, NO_MAILBOX only with
            the store's marker in sight (I9): whoever hears "no" bounces mail for ever.
            A locked domain or mailbox receives: ``winpop lock`` keeps a user from his mail, not the mail from him.
Fails with  StoreError, or whatever a bug raises: could not tell, which is answered with "try later".
Knows       the replica as two callables, the store through the disk pool. Nothing of SMTP, LMTP or Postfix.
"""

from collections.abc import Callable
from enum import Enum

from attrs import frozen

from node.pools import Pool
from store.address import Address, normal_domain
from store.domain import MailStore
from store.errors import Missing, Refused, Unavailable


class Verdict(Enum):
    """What is certain of an address or a domain. What is not is an exception."""

    YES = "yes"
    NO_DOMAIN = "no such domain"
    NO_MAILBOX = "no such mailbox"


@frozen(kw_only=True)
class Recipients:
    """Who may be a recipient, as this node knows it now."""

    disk: Pool
    store: MailStore
    accepts: Callable[[str], bool]
    is_complete: Callable[[], bool]
    store_trouble: Callable[[], str | None]

    def domain(self, text: str) -> Verdict:
        """
        Tell whether this cluster receives mail for a domain; a text that can't be one is none.

        The registrations are in this process's memory: the answer needs neither the store nor the ledger.

        :raises Unavailable: it is not among the domains known so far, and there may be more.
        """
        try:
            domain = normal_domain(text)
        except Refused:
            return Verdict.NO_DOMAIN
        if self.accepts(domain):
            return Verdict.YES
        if not self.is_complete():
            raise Unavailable("the registered domains have not been read yet")
        return Verdict.NO_DOMAIN

    async def mailbox(self, text: str) -> Verdict:
        """
        Tell whether there is a mailbox or an alias of this address; a text that can't be an address is none.

        :raises StoreError: could not tell: the store is away or does not answer, an alias is broken.
        """
        try:
            address = Address.parse(text)
        except Refused:
            return Verdict.NO_MAILBOX
        trouble = self.store_trouble()
        if trouble is not None:
            raise Unavailable(trouble)
        verdict = self.domain(address.domain)
        if verdict is not Verdict.YES:
            return verdict
        try:
            # The same look that a delivery begins with, so that what is accepted here is accepted there.
            await self.disk.run(self.store.find, address)
        except (Missing, Refused):
            return Verdict.NO_MAILBOX
        return Verdict.YES
