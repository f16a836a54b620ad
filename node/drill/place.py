"""
The two seams of the drill: where it runs, and who shows how it goes.

A *place* is a cluster with a balancer, whose parts can be broken one at a time and mended. What is broken is always a
part as a whole: a node, its way to the ledger, its way to the clients, the ledger, the store.

Knows       nothing of processes, containers or terminals: `on_lab.py`, `on_compose.py` and `progress.py` do.
"""

from typing import Protocol

from node.drill.outcome import Outcome

Address = tuple[str, int]  # Host and port.


class Unready(Exception):
    """A place did not become ready in its time; the text says which part and why, and where to look."""


class Place(Protocol):
    """
    A cluster that can be broken. Every call returns when its effect is there; none is called by two threads at once.

    Fault names, for ``cannot``: kill-node, stop-node, pause-node, cut-node-from-ledger, cut-node-from-clients,
    restart-ledger, wipe-ledger, fail-over-sentinel, unmount-store, rolling-restart (the scenarios' names).
    Breaking raises Unready where the part does not come back or go away as it should.

    A kind of place is a class whose objects are made with one argument, ``sentinel``: whether the ledger is to be a
    primary with replicas and sentinels, which only fail-over-sentinel asks for. Whoever makes one calls stop() in the end.
    """

    @property
    def name(self) -> str:
        """Return "lab" or "compose"."""
        ...

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the names of the nodes: "node1" and so on."""
        ...

    @property
    def pop3(self) -> Address:
        """Return where clients log in: the balancer, never a node."""
        ...

    @property
    def lmtp(self) -> Address:
        """Return where mail is delivered: the balancer, never a node."""
        ...

    def start(self) -> None:
        """Bring everything up; return when it is ready. :raises Unready: with the reason."""
        ...

    def stop(self) -> None:
        """End everything that start() began; nothing is left. May be called after a start() that failed."""
        ...

    def cannot(self, fault: str) -> str:
        """Return "", or the reason why this fault can't be made here and where it can."""
        ...

    def add_mailboxes(self, passwords: dict[str, str]) -> None:
        """Make mailboxes, address -> password; return when every node takes mail for them. Known ones stay."""
        ...

    def holder(self, mailbox: str) -> str:
        """Return the name of the node that has the claim on a mailbox as the ledger has it, "" for none."""
        ...

    def wait_until_ready(self) -> None:
        """Wait until every node is ready and the balancer places on all. :raises Unready: with the reason."""
        ...

    def kill_node(self, node: str) -> None:
        """End a node by SIGKILL."""
        ...

    def stop_node(self, node: str) -> int:
        """Stop a node by SIGTERM; return its exit status when it has ended."""
        ...

    def start_node(self, node: str) -> None:
        """Start a node that was killed or stopped; return at once, wait_until_ready() waits for it."""
        ...

    def pause_node(self, node: str) -> None:
        """Stop the clock of a node: SIGSTOP, or the freezer."""
        ...

    def resume_node(self, node: str) -> None:
        """Let a paused node run on."""
        ...

    def cut_from_ledger(self, node: str) -> None:
        """Let nothing pass between a node and the ledger, and tell neither: a partition."""
        ...

    def mend_ledger_cut(self, node: str) -> None:
        """Let it pass again."""
        ...

    def cut_from_clients(self, node: str) -> None:
        """Let nothing pass between a node and the balancer, while the node reaches ledger and store."""
        ...

    def mend_client_cut(self, node: str) -> None:
        """Let it pass again."""
        ...

    def restart_ledger(self) -> None:
        """Stop the ledger and start it again with its memory; return when it answers."""
        ...

    def wipe_ledger(self) -> None:
        """Let the ledger forget everything, while it runs."""
        ...

    def fail_over_ledger(self) -> None:
        """Kill the ledger's primary; return when a replica has been made the primary."""
        ...

    def mend_ledger(self) -> None:
        """Start again what fail_over_ledger() killed, as a replica."""
        ...

    def unmount_store(self) -> None:
        """Take the mail store away under every node."""
        ...

    def mount_store(self) -> None:
        """Give it back."""
        ...


class Display(Protocol):
    """Who shows how the drill goes. `progress.py` has the one for people and the one for logs."""

    def begin(self, scenario: str, sentence: str, steps: int) -> None:
        """A scenario begins: its name, what it breaks, and how many steps will come."""
        ...

    def step(self, text: str) -> None:
        """Its next step begins: "the load runs", "node2 gets SIGKILL", "waiting for the mailboxes"."""
        ...

    def tick(self, ok: int, refused: int, broken: int, accepted: int) -> None:
        """The load has come so far, counted since the scenario began; about four times a second."""
        ...

    def end(self, outcome: Outcome) -> None:
        """The scenario is over."""
        ...
