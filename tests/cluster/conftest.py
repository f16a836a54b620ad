"""The scene of each module, what its logs must never hold, and the figures at the end of the run."""

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy import Proxy
from scene import Scene

from node.lab import ACCOUNTS, Lab, LabNode

_figures: dict[str, str] = {}


class ProxiedLab(Lab):
    """A lab whose last node reaches the ledger through a proxy."""

    proxy: Proxy

    def configure(self, node: LabNode, **changes: object) -> None:
        through = {"redis": self.proxy.url} if node is self.nodes[-1] else {}
        super().configure(node, **through | changes)


@contextlib.contextmanager
def running(lab: Lab) -> Iterator[Scene]:
    made = Scene(lab, _figures)
    try:
        lab.start()
        lab.populate()
        yield made
    finally:
        lab.stop()
    judge_logs(made)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Three nodes, a ledger and a store, for one module."""
    with running(Lab(tmp_path_factory.mktemp("lab"), nodes=3)) as made:
        yield made


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The same, with a proxy between node 3 and the ledger: ``scene.lab.proxy``."""
    lab = ProxiedLab(tmp_path_factory.mktemp("lab"), nodes=3)
    lab.proxy = Proxy(lab._ledger_port)
    try:
        with running(lab) as made:
            yield made
    finally:
        lab.proxy.close()


def judge_logs(scene: Scene) -> None:
    """No secret and no body in any line (I10), and no bug."""
    secrets = scene.secrets()
    secrets += [base64.b64encode(secret.encode()).decode()[:12] for secret in secrets]
    secrets += ["body-of-token", str(scene.lab.guid), *ACCOUNTS.values()]
    logs = list(Path(scene.lab.directory).glob("*.log"))
    assert len(logs) >= len(scene.lab.nodes)
    for log in logs:
        for line in log.read_text().splitlines():
            assert not any(secret in line for secret in secrets), f"{log.name}: {line}"
            assert " ERROR " not in line, f"{log.name}: {line}"
            assert not line.startswith("Traceback"), log.read_text()[-3000:]


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what docs/FAILURES.md publishes."""
    if _figures:
        terminalreporter.section("cluster figures")
        for what, figure in sorted(_figures.items()):
            terminalreporter.line(f"{figure}  {what}")
