"""The scene of each module, what its logs must never hold, and the figures at the end of the run."""

from collections.abc import Iterator

import pytest
from running import figures, running
from scene import Scene

from node.drill.proxy import Proxy
from node.lab import Lab, LabNode
from node.sentinels import SentinelLab


class ProxiedLab(Lab):
    """A lab whose last node reaches the ledger through a proxy."""

    proxy: Proxy

    def configure(self, node: LabNode, **changes: object) -> None:
        through = {"redis": self.proxy.url} if node is self.nodes[-1] else {}
        super().configure(node, **through | changes)


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


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Three nodes whose ledger is watched over by sentinels: ``scene.lab.sentinels``."""
    with running(SentinelLab(tmp_path_factory.mktemp("lab"), nodes=3)) as made:
        yield made


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what docs/FAILURES.md publishes."""
    if figures:
        terminalreporter.section("cluster figures")
        for what, figure in sorted(figures.items()):
            terminalreporter.line(f"{figure}  {what}")
