"""
The Compose lab as the place of a drill: a project of its own, on free ports, broken with the engine's own commands.

    kill, stop, pause                docker kill, docker stop, docker pause
    a cut                            the node's container leaves the network `ledger` or `nodes`
    an unmounted store               everything in the store's directory gets a name that no node looks at

Guarantees  touches its project, `mailroot-drill`, and nothing else; stop() leaves no container, network or volume of it.
Fails with  Unready, whose text has the failed command and what it said.
Knows       the services and networks of docker-compose.yml; HAProxy's statistics page.
"""

import csv
import os
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from node.drill.engine import COMMAND_SECONDS_MAX, Inside, compose_command, docker, run
from node.drill.place import Address, Unready
from node.lab import free_port

PROJECT = "mailroot-drill"
FILES = ("docker-compose.yml",)
SENTINEL_FILES = (*FILES, "deploy/compose.sentinel.yml")
TOP = Path(__file__).parents[2]  # Where docker-compose.yml is in a checkout.
PUBLISHED = ("POP3", "LMTP", "SMTP", "NODE1_HTTP", "NODE2_HTTP", "NODE3_HTTP", "STATS")
LEDGERS = ("redis", "redis-replica1", "redis-replica2")  # With Sentinels.
PLACED = ("pop3_ready", "lmtp_ready", "smtp_ready")  # The balancer's backends.

BUILD_SECONDS_MAX = 600.0  # The first start builds the image.
STOP_SECONDS_MAX = 60  # Then the engine kills it.
READY_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.1


class OnCompose:
    """The lab of docker-compose.yml. ``sentinel`` adds the overlay with a ledger that fails over."""

    name = "compose"
    nodes = ("node1", "node2", "node3")

    def __init__(self, *, sentinel: bool = False, project: str = PROJECT) -> None:
        self._project = project
        self._files = SENTINEL_FILES if sentinel else FILES
        self._sentinel = sentinel
        self._ports = {key: free_port() for key in PUBLISHED}
        self._containers: dict[str, str] = {}
        self._inside: Inside | None = None
        self._dead_ledger = ""

    @property
    def _label(self) -> str:
        return f"label=com.docker.compose.project={self._project}"

    @property
    def _one_off(self) -> str:
        return f"{self._project}-inside"

    @property
    def pop3(self) -> Address:
        """Return where clients log in."""
        return "127.0.0.1", self._ports["POP3"]

    @property
    def lmtp(self) -> Address:
        """Return where mail is delivered."""
        return "127.0.0.1", self._ports["LMTP"]

    # Up and down

    def start(self) -> None:
        """Start the lab, after the removal of what a drill that was killed may have left."""
        missing = [file for file in self._files if not (TOP / file).exists()]
        if missing:
            raise Unready(f"{missing[0]} is not in {TOP}: this place needs a checkout of the repository")
        self.stop()
        self._compose("up", "--detach", "--build", seconds=BUILD_SECONDS_MAX)
        # A container like the one-off `setup`, with its mounts and networks, that waits for questions.
        self._compose("run", "--detach", "--no-deps", "--name", self._one_off, "setup", "sleep", "infinity")
        for line in docker("ps", "--all", "--filter", self._label, "--format", _SERVICE_AND_ID).splitlines():
            service, one_off, container = line.split()
            if one_off.lower() == "false":
                self._containers[service] = container
        self._inside = Inside(self._one_off, self.nodes)
        self.wait_until_ready()

    def stop(self) -> None:
        """Remove the project."""
        if self._inside is not None:
            self._inside.close()
            self._inside = None
        self._containers.clear()
        for paused in docker("ps", "--quiet", "--filter", self._label, "--filter", "status=paused").split():
            docker("unpause", paused)
        for one_off in docker("ps", "--all", "--quiet", "--filter", f"name=^{self._one_off}$").split():
            docker("rm", "--force", one_off)
        self._compose("down", "--volumes", "--remove-orphans", "--timeout", "5")

    def cannot(self, fault: str) -> str:
        """Return the reason why a fault can't be made here."""
        if fault == "fail-over-sentinel" and not self._sentinel:
            return f"needs the lab with Sentinels ({SENTINEL_FILES[-1]})"
        if fault in ("restart-ledger", "wipe-ledger") and self._sentinel:
            return "with Sentinels a ledger that goes away fails over; this fault is for the lab with one ledger"
        return ""

    # Looking

    def add_mailboxes(self, passwords: dict[str, str]) -> None:
        """Make mailboxes; return when every node takes mail for them."""
        self._ask("add_mailboxes", passwords)

    def holder(self, mailbox: str) -> str:
        """Return the node that has the claim on a mailbox."""
        return str(self._ask("holder", mailbox))

    def wait_until_ready(self) -> None:
        """Wait until every node is ready and the balancer places all protocols on all of them."""
        _wait(lambda: self._ask("unready") == {}, lambda: f"nodes are not ready: {self._ask('unready')}")
        _wait(self._places_on_all, lambda: f"the balancer does not place on all nodes: {self._placing()}")

    def _places_on_all(self) -> bool:
        found = self._placing()
        return all(found.get((backend, node)) == "UP" for backend in PLACED for node in self.nodes)

    def _placing(self) -> dict[tuple[str, str], str]:
        """Return what the balancer thinks of its servers: (backend, node) -> UP, DOWN, ..."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ports['STATS']}/;csv", timeout=5) as answer:
                rows = csv.DictReader(answer.read().decode().removeprefix("# ").splitlines())
                return {(row["pxname"], row["svname"]): row["status"] for row in rows}
        except OSError as error:
            return {("statistics page", ""): str(error)}

    # Breaking nodes

    def kill_node(self, node: str) -> None:
        """End a node by SIGKILL."""
        docker("kill", self._containers[node])

    def stop_node(self, node: str) -> int:
        """Stop a node by SIGTERM; return its exit status when it has ended."""
        container = self._containers[node]
        docker("stop", "--time", str(STOP_SECONDS_MAX), container)
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", container))

    def start_node(self, node: str) -> None:
        """Start a node again."""
        docker("start", self._containers[node])

    def pause_node(self, node: str) -> None:
        """Freeze a node."""
        docker("pause", self._containers[node])

    def resume_node(self, node: str) -> None:
        """Let it run on."""
        docker("unpause", self._containers[node])

    def cut_from_ledger(self, node: str) -> None:
        """Take a node out of the network that it shares with the ledger."""
        docker("network", "disconnect", f"{self._project}_ledger", self._containers[node])

    def mend_ledger_cut(self, node: str) -> None:
        """Bring it back, by its old name."""
        docker("network", "connect", "--alias", node, f"{self._project}_ledger", self._containers[node])

    def cut_from_clients(self, node: str) -> None:
        """Take a node out of the network that it shares with the balancer."""
        docker("network", "disconnect", f"{self._project}_nodes", self._containers[node])

    def mend_client_cut(self, node: str) -> None:
        """Bring it back, by its old name; the balancer asks for its address again."""
        docker("network", "connect", "--alias", node, f"{self._project}_nodes", self._containers[node])

    # Breaking what they share

    def restart_ledger(self) -> None:
        """Stop the ledger and start it with its append-only file."""
        docker("restart", "--time", "10", self._containers["redis"])
        _wait(self._ledger_answers, lambda: "the ledger does not answer after its restart")

    def _ledger_answers(self) -> bool:
        try:
            return docker("exec", self._containers["redis"], "redis-cli", "ping").strip() == "PONG"
        except Unready:
            return False

    def wipe_ledger(self) -> None:
        """Let the ledger forget everything."""
        docker("exec", self._containers["redis"], "redis-cli", "flushall")

    def fail_over_ledger(self) -> None:
        """Kill the ledger's primary; return when a replica has been made the primary."""
        self._dead_ledger = next((service for service in LEDGERS if self._role(service) == "master"), "")
        if not self._dead_ledger:
            raise Unready("no ledger is the primary: there is nothing to fail over from")
        docker("kill", self._containers[self._dead_ledger])
        others = [service for service in LEDGERS if service != self._dead_ledger]
        _wait(lambda: "master" in map(self._role, others), lambda: f"no Sentinel made one of {others} the primary")

    def mend_ledger(self) -> None:
        """Start again what was killed; it comes back as a replica."""
        docker("start", self._containers[self._dead_ledger])
        _wait(lambda: self._role(self._dead_ledger) == "slave", lambda: f"{self._dead_ledger} is no replica")

    def _role(self, service: str) -> str:
        try:
            return docker("exec", self._containers[service], "redis-cli", "role").partition("\n")[0]
        except Unready:  # It is dead, or on its way.
            return ""

    def unmount_store(self) -> None:
        """Take the mail store away under every node."""
        self._ask("unmount")

    def mount_store(self) -> None:
        """Give it back."""
        self._ask("mount")

    def _ask(self, word: str, *arguments: object) -> object:
        if self._inside is None:
            raise Unready("the lab does not run")
        return self._inside.ask(word, *arguments)

    def _compose(self, *words: str, seconds: float = COMMAND_SECONDS_MAX) -> str:
        files = [word for file in self._files for word in ("--file", str(TOP / file))]
        command = [
            *compose_command(),
            "--project-name",
            self._project,
            "--project-directory",
            str(TOP),
            *files,
            *words,
        ]
        ports = {f"MAILROOT_{key}_PORT": str(port) for key, port in self._ports.items()}
        # The overlay with Sentinels has fixed addresses: not those of a lab that a person may have running.
        return run(command, seconds, ports | {"MAILROOT_LEDGER_NET": f"10.215.{os.getpid() % 256}"})


_SERVICE_AND_ID = (
    '{{.Label "com.docker.compose.service"}} {{.Label "com.docker.compose.oneoff"}} {{.ID}}'  # Compose's own labels.
)


def _wait(condition: Callable[[], bool], reason: Callable[[], str]) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise Unready(reason())
        time.sleep(LOOK_SECONDS)
