"""One lab for all real clients, and the rule that CI has every client."""

import itertools
import os
import shutil
import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from attrs import frozen

from node.lab import DOMAIN, Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("clients"), nodes=2)
    try:
        made.start()
        made.populate()
        yield made
    finally:
        made.stop()
    for node in made.nodes:
        log = node.log_path.read_text()
        assert " ERROR " not in log, log[-3000:]
        assert Account.password not in log


@frozen
class Account:
    """A mailbox of one test, and where a client finds it."""

    lab: Lab
    user: str
    password = "a pass-word with blanks"

    @property
    def pop3(self) -> int:
        return self.lab.nodes[0].ports.pop3

    @property
    def smtp(self) -> int:
        return self.lab.nodes[1].ports.smtp

    def deliver(self, *contents: bytes) -> list[str]:
        """Deliver by LMTP at the other node; return the uids."""
        uids = []
        with smtplib.LMTP("127.0.0.1", self.lab.nodes[1].ports.lmtp, local_hostname="mta") as client:
            client.ehlo_or_helo_if_needed()
            for content in contents:
                client.mail("sender@example.net")
                assert client.rcpt(self.user)[0] == 250
                code, reply = client.data(content)
                assert code == 250, reply
                uids.append(reply.decode().rpartition(" ")[2])
        return uids

    def _files(self) -> list[Path]:
        local = self.user.partition("@")[0]
        return sorted((self.lab.store / DOMAIN / f"P3_{local}.mbx").glob("*.eml"))

    def count(self) -> int:
        """Return how many messages lie in the store."""
        return len(self._files())

    def contents(self) -> list[bytes]:
        """Return the messages as they lie in the store, which is as RETR sends them."""
        return [path.read_bytes() for path in self._files()]


_numbers = itertools.count(1)


@pytest.fixture
def account(lab: Lab) -> Account:
    user = f"client{next(_numbers)}@{DOMAIN}"
    lab.admin().add_mailbox(user, Account.password)
    return Account(lab, user)


@pytest.fixture(scope="session")
def lacking() -> Callable[[str], NoReturn]:
    """Skip with a reason; but what .ci/run installs must be there."""

    def give_up(reason: str) -> NoReturn:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return give_up


@pytest.fixture
def program(request: pytest.FixtureRequest, lacking: Callable[[str], NoReturn]) -> str:
    """The program that the module names in ``PROGRAM``."""
    name = request.module.PROGRAM
    path = shutil.which(name)
    if path is None:
        lacking(f"{name} is not installed; .ci/run installs it")
    return path
