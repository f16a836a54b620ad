"""
The wiring of a node process, its clockwork and its stop order. The only file that imports the reactor.

Start       marker and GUID verified, store writable, sockets bound, then lease and registrations; without a ledger the
            node starts all the same: it receives mail and says [SYS/TEMP] to logins until the ledger is there.
Stop        give the balancer notice (notice.py), stop accepting, let sessions and deliveries finish (DRAIN_SECONDS at
            most), drop claims, end the lease.
Fails with  StoreError and OSError before the reactor runs, each with a sentence that says what to do.
"""

import gc
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import uvloop
from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from node import health, journal, pools
from node.auth.encrypted_file import EncryptedFile
from node.claims import Claims
from node.config import Address, Config
from node.delivery import Inbound
from node.notice import Notice
from node.pop3.asks import World
from node.pop3.server import Pop3Factory
from node.ports import Ports
from node.recipients import Recipients
from node.replica import Replica
from node.socketmap import SocketmapFactory
from node.startup import allow_many_connections, bind, check_store
from store import identity
from store.claim import BEAT_SECONDS, GRACE_SECONDS, LEASE_TTL_SECONDS, ClaimTable
from store.domain import MailStore
from store.errors import LedgerUnavailable, Misconfigured, StoreError
from store.keys import Keys
from store.ledger import Ledger
from store.names import NameSource
from store.registry import Registry

DRAIN_SECONDS = 30.0  # How long a stopping node waits for its sessions; a balancer's drain is about as long.
STORE_LOOK_SECONDS = 5.0  # How soon a share that went away is noticed without a client's help.
HOUSEKEEPING_SECONDS = 1.0
STOP_LOOK_SECONDS = 0.05  # How often a stopping node looks whether it may go on.
GARBAGE_THRESHOLDS = (20_000, 20, 20)  # Sessions make few cycles; Python's default of 700 costs some per cent.
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Node:
    """One node process, from its configuration to its end."""

    def __init__(self, config: Config, *, worker: int = 0) -> None:
        self.config = config
        self.name = f"{config.node}-{worker}" if worker else config.node
        found = check_store(config)
        self.ports = Ports(config, worker=worker)
        at_socketmap = self.config.socketmap_listen
        self._socketmap_sockets = [bind(at, "socketmap.listen", reuse_port=worker > 0) for at in at_socketmap]
        # Each worker is scraped and probed by itself: the first at the port of the configuration, the next one higher.
        offset = max(worker - 1, 0)
        http = [(host, port + offset) for host, port in config.http_listen]
        self._http_sockets = [bind(at, "http.listen", reuse_port=False) for at in http]

        self._loop = uvloop.new_event_loop()
        # Twisted wraps each event of a descriptor in a log context that says whose it is. Nothing here reads it (journal.py
        # has its own fields), and it was a tenth of a session's processor time.
        asyncioreactor.callWithLogger = _call_bare  # type: ignore[attr-defined]
        asyncioreactor.install(self._loop)  # type: ignore[no-untyped-call]
        from twisted.internet import reactor  # noqa: PLC0415 (only now is it the one we want)

        self.reactor = cast("Any", reactor)
        self.disk = pools.ThreadPool(
            "mail store",
            self.reactor,
            threads=pools.DISK_THREADS_MAX,
            seconds_max=pools.DISK_SECONDS_MAX,
            call_soon=self._loop.call_soon,
        )
        self.ledger_pool = pools.ThreadPool(
            "ledger",
            self.reactor,
            threads=pools.LEDGER_THREADS_MAX,
            seconds_max=pools.LEDGER_SECONDS_MAX,
            call_soon=self._loop.call_soon,
        )
        self.store = MailStore(config.mail_store, found.store_id, NameSource())
        incarnation = secrets.token_hex(6)
        self.ledger = Ledger(config.redis, f"mailroot:{self.name}~{incarnation}")
        keys = Keys(found.store_id)
        self.table = ClaimTable(self.ledger, keys)
        self.claims = Claims(
            node=self.name,
            table=self.table,
            ledger=self.ledger,
            incarnation=incarnation,
            pool=self.ledger_pool,
            facts=self._facts,
        )
        self.replica = Replica(
            node=self.name,
            registry=Registry(self.ledger, keys),
            store=self.store,
            ledger_pool=self.ledger_pool,
            disk=self.disk,
        )
        self.metrics = health.Metrics()
        self._store_trouble: str | None = None
        self._started = time.time()
        self._stopping = False
        self.notice = Notice()
        self._exit_status = 0
        self._joined = False
        self._socketmap_ports: list[Any] = []  # IListeningPort, whose methods mypy can't see without a plugin
        self._loops: list[LoopingCall] = []
        self.pop3 = self._pop3_factory(found)
        self.socketmap = SocketmapFactory(
            Recipients(
                disk=self.disk,
                store=self.store,
                accepts=self.replica.accepts,
                is_complete=lambda: self.replica.trouble is None,
                store_trouble=lambda: self._store_trouble,
            )
        )
        self._gauges()

    def _pop3_factory(self, found: identity.Identity) -> Pop3Factory:
        key = identity.derived_key(self.config.guid, found.store_id, "credentials")
        world = World(
            disk=self.disk,
            store=self.store,
            authenticator=EncryptedFile(self.store, key),
            claims=self.claims,
            is_domain_locked=self.replica.is_locked,
            store_trouble=lambda: self._store_trouble,
            observe=self.metrics.observe,
        )
        return Pop3Factory(
            node=self.name,
            greeting=self.config.greeting,
            plain_allowed=self.config.plain_without_tls,
            world=world,
            count_login=self.metrics.count_login,
            count_session=self.metrics.count_session,
        )

    def _gauges(self) -> None:
        gauge = self.metrics.gauge
        gauge("sessions_open", "POP3 sessions now", lambda: len(self.pop3.sessions))
        gauge("claims_held", "Claims this node holds", lambda: self.claims.held)
        gauge("registrations_version", "Version of the registrations this node applied", lambda: self.replica.version)
        gauge(
            "registrations_behind",
            "Versions the ledger has that this node has not applied",
            lambda: self.replica.behind,
        )
        gauge(
            "lease_seconds_left",
            "Seconds until the lease lapses by our own clock",
            lambda: self.claims.lease_seconds_left,
        )
        gauge("ready", "1 where /readyz says 200", lambda: not any(self.troubles().values()))
        gauge("disk_calls_open", "Calls of the mail store without an answer", lambda: self.disk.waiting)
        gauge("ledger_calls_open", "Calls of the ledger without an answer", lambda: self.ledger_pool.waiting)

    # What others see

    def _facts(self) -> dict[str, object]:
        """Return what `mailroot cluster status` shows of this node; settings that should not differ between nodes too."""
        return {
            "host": socket.gethostname(),
            "boot": _boot_id(),
            "pid": os.getpid(),
            "started": int(self._started),
            "sessions": len(self.pop3.sessions),
            "claims": self.claims.held,
            "registrations": self.replica.version,
            "trouble": self._store_trouble or self.replica.trouble or "",
            "missing_directories": ", ".join(self.replica.missing_directories),
            "mail_store": self.config.mail_store,
            "method": self.config.method,
            "greeting": self.config.greeting,
            "plain_without_tls": self.config.plain_without_tls,
        }

    def troubles(self) -> dict[str, str | None]:
        """Return what a login depends on, each with what is wrong."""
        young = self.claims.epoch_age_seconds < GRACE_SECONDS
        lease = "no claims yet: the ledger is new, and nodes may still assert theirs" if young else None
        return {
            "store": self._store_trouble,
            "ledger": self.claims.trouble,
            "lease": lease if self.claims.trouble is None else None,
            "registrations": self.replica.trouble,
            "stopping": self._stopping_trouble,
        }

    def mail_troubles(self) -> dict[str, str | None]:
        """Return what a delivery depends on, each with what is wrong. The ledger is not among it (I6)."""
        return {
            "store": self._store_trouble,
            "domains": None if self.replica.knows_domains else self.replica.trouble,
            "stopping": self._stopping_trouble,
        }

    @property
    def _stopping_trouble(self) -> str | None:
        return "the node is stopping" if self._stopping else None

    # Running

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status, which is not 0 where the node gave up by itself."""
        allow_many_connections()
        # What is loaded by now stays; the collector need not look at it again, nor at young objects every 700.
        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        self.reactor.callWhenRunning(self._detach, self._start())
        self.reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(self._stop()))
        self.reactor.run()
        return self._exit_status

    async def _start(self) -> None:
        await self.replica.read_store()
        for listener in self._http_sockets:
            site = health.site(self.metrics, self.troubles, self.mail_troubles, self.notice.asked)
            self.reactor.adoptStreamPort(listener.fileno(), listener.family, site)
        for listener in self._socketmap_sockets:
            self._socketmap_ports.append(
                self.reactor.adoptStreamPort(listener.fileno(), listener.family, self.socketmap)
            )
        for listener in (*self._http_sockets, *self._socketmap_sockets):
            listener.close()  # The port has a descriptor of its own.
        inbound = Inbound(
            node=self.name,
            disk=self.disk,
            store=self.store,
            recipients=self.socketmap.recipients,
            count=self.metrics.count_delivery,
            observe=self.metrics.observe,
            octets_max=self.config.octets_max,
        )
        await self.ports.open(self.reactor, self.pop3, inbound)
        self._every(BEAT_SECONDS, self._beat)
        self._every(STORE_LOOK_SECONDS, self._look_at_store)
        self._every(HOUSEKEEPING_SECONDS, self._keep_house)
        journal.event(
            "node_started",
            node=self.name,
            pid=os.getpid(),
            store=self.config.mail_store,
            pop3=_at(self.config.pop3_listen),
            lmtp=_at(self.config.lmtp_listen),
            smtp=_at(self.config.smtp_listen),
            socketmap=_at(self.config.socketmap_listen),
        )

    async def _beat(self) -> None:
        if not self._joined:
            await self._join()
            if not self._joined:
                return
        await self.replica.follow(await self.claims.beat())

    async def _join(self) -> None:
        deadline = self._started + LEASE_TTL_SECONDS + 2 * BEAT_SECONDS
        try:
            await self.claims.join()
        except Misconfigured as error:
            self.claims.trouble = error.detail
            if time.time() > deadline:
                # The former owner of the name would have lapsed by now: it is a live twin.
                journal.failure("node_refused", error)
                self._give_up(os.EX_CONFIG)
        except LedgerUnavailable as error:
            if self.claims.trouble != error.detail:
                journal.warning("ledger_missing", detail=error.detail)
            self.claims.trouble = error.detail
            await self.replica.follow(None)
        else:
            self._joined = True
            await self._look_for_twins()

    async def _look_for_twins(self) -> None:
        """Two hosts of one name on one NFS share throw each other's state away; say so before the share does."""
        for other in await self.ledger_pool.run(self.table.nodes):
            facts = other.facts
            if other.alive and facts.get("host") == socket.gethostname() and facts.get("boot") != _boot_id():
                journal.warning(
                    "host_name_twice",
                    host=socket.gethostname(),
                    other=other.node,
                    detail="two hosts of one NFS share have this name; renames in flight will fail. Rename one",
                )

    async def _look_at_store(self) -> None:
        """I9: a node without its store's marker serves nothing; looked at while it runs, too."""
        try:
            await self.disk.run(identity.verify, self.config.mail_store, self.config.guid, self.config.method)
        except StoreError as error:
            if self._store_trouble is None:
                journal.failure("store_lost", error)
            self._store_trouble = error.detail
        else:
            if self._store_trouble is not None:
                journal.event("store_found", store=self.config.mail_store)
            self._store_trouble = None

    async def _keep_house(self) -> None:
        self.disk.expire()
        self.ledger_pool.expire()
        self.ports.keep_house()
        self.socketmap.end_idle()

    def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        async def once() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 (the clockwork must not stop for a bug)
                journal.failure("clockwork", error, work=work.__name__)

        loop = LoopingCall(lambda: Deferred.fromCoroutine(once()))
        loop.clock = self.reactor
        loop.start(seconds)
        self._loops.append(loop)

    def _detach(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        def failed(failure: Failure) -> None:
            journal.failure("node_failed", failure.value)
            self._give_up(os.EX_SOFTWARE)

        Deferred.fromCoroutine(work).addErrback(failed)

    # Stopping

    def _give_up(self, status: int) -> None:
        self._exit_status = status
        self.reactor.stop()

    async def _stop(self) -> None:
        self._stopping = True
        journal.event("node_stopping", node=self.name, sessions=len(self.pop3.sessions))
        self.notice.give()
        while not self.notice.is_over:
            await deferLater(self.reactor, STOP_LOOK_SECONDS)
        await self.ports.close()
        for port in self._socketmap_ports:
            await _maybe(port.stopListening())
        self.socketmap.stop()
        deadline = self.reactor.seconds() + DRAIN_SECONDS
        while not self.ports.is_empty and self.reactor.seconds() < deadline:
            self.ports.end_silent()
            await deferLater(self.reactor, STOP_LOOK_SECONDS)
        self.ports.abort()
        deadline = self.reactor.seconds() + HOUSEKEEPING_SECONDS
        while self.claims.held and self.reactor.seconds() < deadline:
            await deferLater(self.reactor, STOP_LOOK_SECONDS)
        for loop in self._loops:
            loop.stop()
        await self.claims.leave()
        self.ledger.close()
        self.disk.close()
        self.ledger_pool.close()
        journal.event("node_stopped", node=self.name)


def _call_bare(_logger: object, function: Callable[..., object], *arguments: object) -> None:
    """Stand in for twisted.python.log.callWithLogger; the reactor catches the errors itself."""
    function(*arguments)


async def _maybe(result: Deferred[None] | None) -> None:
    if result is not None:
        await result


def _boot_id() -> str:
    """Return what tells one running kernel from another, or "" where the kernel does not say."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _at(addresses: tuple[Address, ...]) -> str:
    return ",".join(f"{host}:{port}" for host, port in addresses) or "-"
