"""
What the drill asks inside the Compose lab: a process in a container of its own, which no drill breaks.

Each line of standard input is a question, a JSON list of a word and its arguments; each line of standard output is its
answer, ["ok", value] or ["failed", text]. Passwords come this way too: a command line would show them to the machine.

Rejected: `docker exec` for each question: a third of a second each, in a node that may just be dead or paused.

Knows       the store, the ledger and the nodes' web pages by their names in the lab. Needs no package of the drill.
"""

import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from node import config as configuration
from node.admin import Admin
from store.address import Address
from store.errors import Exists, StoreError
from store.identity import MARKER

PAGE_SECONDS_MAX = 2.0
FOLLOW_SECONDS_MAX = 60.0  # How long a node may take to learn a domain; a beat is half a second.
_Word = Callable[..., object]
AWAY = ".away"  # Where the content of the store waits while it is "unmounted": a name that no node looks at.


class Inside:
    """The answers. One method for each word."""

    def __init__(self, config: configuration.Config, nodes: tuple[str, ...]) -> None:
        self._root = config.mail_store
        self._admin = Admin(config)
        self._nodes = nodes

    def add_mailboxes(self, passwords: dict[str, str]) -> None:
        """Make domains and mailboxes; return when every node has learned the domains."""
        for domain in sorted({Address.parse(text).domain for text in passwords}):
            self._admin.add_domain(domain)
        for text, password in passwords.items():
            try:
                self._admin.add_mailbox(text, password)
            except Exists:
                self._admin.change_password(text, password)
        version = self._admin.registrations_version()
        deadline = time.monotonic() + FOLLOW_SECONDS_MAX
        for node in self._nodes:
            while _registrations_version(node) < version:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{node} never learned the domains (version {version})")
                time.sleep(0.05)

    def holder(self, text: str) -> str:
        """Return the node that has the claim on a mailbox, "" for none."""
        key = self._admin.store.find(Address.parse(text)).key
        return next((claim.node for claim in self._admin.claims() if claim.mailbox == key), "")

    def unready(self) -> dict[str, str]:
        """Return the nodes that are not ready, each with the reason."""
        found = {node: _page(node, "readyz") for node in self._nodes}
        return {node: text for node, (status, text) in found.items() if status != 200}  # noqa: PLR2004 (HTTP's OK)

    def unmount(self) -> None:
        """Take everything out of the store's directory, the marker first: without it no node believes what it misses."""
        away = f"{self._root}/{AWAY}"
        os.makedirs(away, exist_ok=True)
        names = sorted((name for name in os.listdir(self._root) if name != AWAY), key=lambda name: name != MARKER)
        for name in names:
            os.rename(f"{self._root}/{name}", f"{away}/{name}")

    def mount(self) -> None:
        """Put it back, the marker last. :raises OSError: a node wrote where the store was not mounted, against I9."""
        away = f"{self._root}/{AWAY}"
        strangers = [name for name in os.listdir(self._root) if name != AWAY]
        if strangers:
            raise OSError(f"a node wrote {strangers[:3]} where the store was not mounted")
        for name in sorted(os.listdir(away), key=lambda name: name == MARKER):
            os.rename(f"{away}/{name}", f"{self._root}/{name}")
        os.rmdir(away)


def _page(node: str, name: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{node}:8080/{name}", timeout=PAGE_SECONDS_MAX) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def _registrations_version(node: str) -> int:
    found = re.search(r"^mailroot_registrations_version (\S+)$", _page(node, "metrics")[1], re.MULTILINE)
    return int(float(found[1])) if found else -1


def main() -> None:
    """Answer until standard input ends."""
    inside = Inside(configuration.load(configuration.path_of(None)), tuple(sys.argv[1:]))
    words: dict[str, _Word] = {
        "add_mailboxes": inside.add_mailboxes,
        "holder": inside.holder,
        "unready": inside.unready,
        "unmount": inside.unmount,
        "mount": inside.mount,
    }
    for line in sys.stdin:
        word, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(_answer(words[word], arguments)) + "\n")
        sys.stdout.flush()


def _answer(word: _Word, arguments: list[object]) -> list[object]:
    try:
        return ["ok", word(*arguments)]
    except (StoreError, OSError) as error:
        return ["failed", f"{word.__name__}: {getattr(error, 'detail', error)}"]


if __name__ == "__main__":
    main()
