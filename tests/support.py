"""What tests in several folders share: the GUID of their stores, and waiting that never sleeps for luck."""

import time
import uuid
from collections.abc import Callable

import pytest

GUID = uuid.UUID("5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b")


def wait_until(condition: Callable[[], object], *, or_fail: str, seconds: float = 20.0) -> None:
    """Wait for a condition; the time limit only ends a test that has failed already."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(or_fail)
        time.sleep(0.02)
