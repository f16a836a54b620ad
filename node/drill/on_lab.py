"""
The lab as the place of a drill: node processes, an embedded ledger and a small balancer, all on loopback.

It is like the Compose lab where that matters: clients see only the balancer, whose nodes take the PROXY header from it
alone; the ledger writes an append-only file. Between each node and the ledger is a proxy that can let nothing pass.

Guarantees  everything is in one new directory and in processes that the lab started; stop() leaves neither.
Fails with  Unready, whose text says which part is missing.
Knows       node.lab and its cousin with sentinels.
"""

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import redis
import yaml

from node import config
from node.admin import Admin
from node.drill.balancer import Backend, Balancer, Service
from node.drill.place import Address, Unready
from node.drill.proxy import Proxy
from node.lab import DOMAIN, Lab, LabNode, wait_until
from node.sentinels import SentinelLab
from store.errors import LedgerUnavailable

BALANCED_SECONDS_MAX = 30.0  # For the balancer to see what the nodes say of themselves.
LOOPBACK = "127.0.0.1"
NO_NETWORK = "the lab is on loopback, where a node's way to its clients cannot be cut: use --on compose"
ONE_LEDGER = "this lab has one ledger: fail-over-sentinel has a lab of its own"
APPEND_ONLY = {"appendonly": "yes", "appendfsync": "everysec"}  # As deploy/lab.


class _OneLedger(Lab):
    """Nodes that reach their one ledger through a proxy each."""

    ledger_settings: ClassVar[dict[str, str]] = APPEND_ONLY

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.proxies = {node.name: Proxy(self._ledger_port) for node in self.nodes}

    def configure(self, node: LabNode, **changes: object) -> None:
        """Write a node's configuration."""
        super().configure(node, redis=self.proxies[node.name].url, trusted_proxies=[LOOPBACK], **changes)

    def stop(self) -> None:
        """Stop everything that the lab started."""
        super().stop()
        for proxy in self.proxies.values():
            proxy.close()


class _Sentinels(SentinelLab):
    """Nodes that ask sentinels for their ledger."""

    def configure(self, node: LabNode, **changes: object) -> None:
        """Write a node's configuration."""
        super().configure(node, trusted_proxies=[LOOPBACK], **changes)


class OnLab:
    """Three nodes on this machine. ``sentinel`` gives them a ledger that fails over."""

    name = "lab"

    def __init__(self, *, sentinel: bool = False) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="mailroot-drill-"))
        self._lab: _OneLedger | _Sentinels = (_Sentinels if sentinel else _OneLedger)(self._directory)
        self._balancer = Balancer(self._services(), proxy_header=True)
        self._admin: Admin | None = None

    def _services(self) -> tuple[Service, ...]:
        def backends(port: str) -> tuple[Backend, ...]:
            return tuple(
                Backend(name=node.name, port=getattr(node.ports, port), http=node.ports.http)
                for node in self._lab.nodes
            )

        return (
            Service(name="pop3", backends=backends("pop3"), ready=("/readyz",)),
            # A node takes mail without a ledger, so it has a page of its own for that.
            Service(name="lmtp", backends=backends("lmtp"), ready=("/readyz/mail", "/readyz")),
        )

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the names of the nodes."""
        return tuple(node.name for node in self._lab.nodes)

    @property
    def pop3(self) -> Address:
        """Return where clients log in."""
        return self._balancer.at("pop3")

    @property
    def lmtp(self) -> Address:
        """Return where mail is delivered."""
        return self._balancer.at("lmtp")

    # Up and down

    def start(self) -> None:
        """Start everything."""
        with _unready():
            self._lab.start()
        self._admin = Admin(config.load(str(self._own_configuration())))
        self._admin.add_domain(DOMAIN)
        self._balancer.start()
        self.wait_until_ready()

    def _own_configuration(self) -> Path:
        """Write the configuration of an administrator, who reaches the ledger past every proxy."""
        path = self._directory / "admin.yaml"
        settings = yaml.safe_load(self._lab.config_path.read_text())
        path.write_text(yaml.safe_dump(settings | {"redis": self._lab.ledger_url}))
        path.chmod(0o600)
        return path

    def stop(self) -> None:
        """Stop everything, and remove the directory."""
        self._balancer.close()
        self._lab.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def cannot(self, fault: str) -> str:
        """Return the reason why a fault can't be made here."""
        if fault == "cut-node-from-clients":
            return NO_NETWORK
        if fault == "fail-over-sentinel" and isinstance(self._lab, _OneLedger):
            return ONE_LEDGER
        return ""

    # Looking

    def add_mailboxes(self, passwords: dict[str, str]) -> None:
        """Make mailboxes; return when every node takes mail for them."""
        for mailbox, password in passwords.items():
            self._administrator.add_mailbox(mailbox, password)
        with _unready():
            wait_until(self._know_all_domains, "the nodes never learned the domain")

    def _know_all_domains(self) -> bool:
        version = self._administrator.registrations_version()
        nodes = self._administrator.nodes()
        return all(int(node.facts["registrations"]) >= version for node in nodes) and len(nodes) == len(self.nodes)

    def holder(self, mailbox: str) -> str:
        """Return the node that has the claim on a mailbox."""
        local, _, domain = mailbox.partition("@")
        for claim in self._administrator.claims():
            if claim.mailbox == f"{domain}/{local}":
                return claim.node
        return ""

    def wait_until_ready(self) -> None:
        """Wait until every node is ready and the balancer places on all."""
        with _unready():
            self._lab.wait_until_ready()
            wait_until(self._is_balanced, "the balancer does not place on all nodes", BALANCED_SECONDS_MAX)

    def _is_balanced(self) -> bool:
        return self._balancer.up("pop3") == self._balancer.up("lmtp") == set(self.nodes)

    @property
    def _administrator(self) -> Admin:
        if self._admin is None:
            raise Unready("the lab was not started")
        return self._admin

    # Breaking nodes

    def _node(self, name: str) -> LabNode:
        return next(node for node in self._lab.nodes if node.name == name)

    def kill_node(self, node: str) -> None:
        """End a node by SIGKILL."""
        self._node(node).kill()

    def stop_node(self, node: str) -> int:
        """Stop a node by SIGTERM; return its exit status when it has ended."""
        self._node(node).signal(signal.SIGTERM)
        try:
            status = self._node(node).wait()
        except subprocess.TimeoutExpired as error:
            self._node(node).kill()
            raise Unready(f"{node} did not end within {error.timeout:g} s of SIGTERM") from error
        return -1 if status is None else status

    def start_node(self, node: str) -> None:
        """Start a node that was killed or stopped."""
        self._node(node).start()

    def pause_node(self, node: str) -> None:
        """Stop the clock of a node."""
        self._node(node).signal(signal.SIGSTOP)

    def resume_node(self, node: str) -> None:
        """Let it run on."""
        self._node(node).signal(signal.SIGCONT)

    # Breaking ways

    def cut_from_ledger(self, node: str) -> None:
        """Let nothing pass between a node and the ledger, and tell neither."""
        self._one_ledger.proxies[node].hole()

    def mend_ledger_cut(self, node: str) -> None:
        """Let it pass again."""
        self._one_ledger.proxies[node].heal()

    def cut_from_clients(self, node: str) -> None:
        """Refuse: loopback can't be cut without privileges."""
        raise Unready(f"{node}: {NO_NETWORK}")

    def mend_client_cut(self, node: str) -> None:
        """There is nothing to mend."""

    # Breaking the ledger

    @property
    def _one_ledger(self) -> _OneLedger:
        if not isinstance(self._lab, _OneLedger):
            raise Unready("with sentinels a ledger that goes away fails over; this fault is for one ledger")
        return self._lab

    def restart_ledger(self) -> None:
        """Stop the ledger and start it again with its append-only file."""
        ledger = self._one_ledger.ledger
        if ledger is not None:
            ledger.stop()
        self._one_ledger.start_ledger()

    def wipe_ledger(self) -> None:
        """Let the ledger forget everything."""
        with redis.Redis.from_url(self._one_ledger.ledger_url) as client:
            client.flushall()

    def fail_over_ledger(self) -> None:
        """Kill the primary; return when another one was promoted."""
        if not isinstance(self._lab, _Sentinels):
            raise Unready(ONE_LEDGER)
        with _unready():
            self._lab.sentinels.fail_over()

    def mend_ledger(self) -> None:
        """Start the killed one again, as a replica."""
        if isinstance(self._lab, _Sentinels):
            with _unready():
                self._lab.sentinels.restart_dead()

    # Breaking the store

    @property
    def _away(self) -> Path:
        return self._directory / "mailroot-away"

    def unmount_store(self) -> None:
        """Leave an empty directory where the store was, as an unmounted share does."""
        self._lab.store.rename(self._away)
        self._lab.store.mkdir()

    def mount_store(self) -> None:
        """Give the store back. :raises Unready: somebody wrote into the empty directory, which breaks I9."""
        try:
            self._lab.store.rmdir()
        except OSError as error:
            found = sorted(path.name for path in self._lab.store.iterdir())
            raise Unready(f"a node wrote {found[:3]} where the store was not mounted") from error
        self._away.rename(self._lab.store)


@contextlib.contextmanager
def _unready() -> Iterator[None]:
    """Tell what node.lab says in the words of a place."""
    try:
        yield
    except (RuntimeError, LedgerUnavailable) as error:
        raise Unready(str(error)) from error
