"""The Docker engine, and the lab that a module's tests share."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from lab import ComposedLab, compose_command


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip where there is no engine or no Compose; in CI a missing one is a failure."""
    missing = ""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            missing = f"no Docker engine answers: {done.stderr.strip()}"
    except OSError:
        missing = "no Docker here: install docker.io and docker-compose"
    if not missing and not compose_command():
        missing = "no Compose here: install docker-compose"
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="module")
def lab(engine: None) -> Iterator[ComposedLab]:
    """The whole lab, for one module."""
    with ComposedLab(f"mailroot-test-{os.getpid()}") as made:
        made.wait_until_placed_on("node1", "node2", "node3")
        yield made
