"""
The scenarios: what each of them breaks, how it is mended, and which promises it makes. A table.

Knows       the seams of a place. What a scenario has in common with all others is in `run.py`.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from node.drill import promises
from node.drill.place import Place
from node.drill.promises import Judge
from store.claim import LEASE_TTL_SECONDS

BEYOND_LEASE_SECONDS = LEASE_TTL_SECONDS + 2.0  # The take-over's limit is a second less.
AFTER_KILL_SECONDS = 1.0
NOTICE_SECONDS = 1.0  # Two beats: every node has seen what happened to the ledger, and its readiness says so.
OUTAGE_SECONDS = 8.0  # Nodes look at the store every 5 s: all have seen it go.
LAST_WORDS_SECONDS = 2.0  # How long sessions at a stopping node stay open.


class Stage(Protocol):
    """What an action may use while it breaks something."""

    @property
    def place(self) -> Place:
        """Return the cluster."""
        ...

    @property
    def victim(self) -> str:
        """Return the node that is broken."""
        ...

    def step(self, text: str) -> None:
        """Say what is being done."""
        ...

    def finish_held(self) -> None:
        """Let the sessions that are open at the victim say QUIT."""
        ...

    def stopped(self, exit_status: int) -> None:
        """Note the exit status of a node that was told to stop."""
        ...


@frozen(kw_only=True)
class Scenario:
    """One thing that breaks. ``{victim}`` in a text is the node."""

    name: str
    sentence: str
    fault: Callable[[Stage], None]
    mend: Callable[[Stage], None]
    lasts_seconds: float = 0.0  # How long it stays broken at least.
    holds: bool = True  # Sessions are held open at the victim when it breaks.
    is_taken_over: bool = False  # The mailboxes of these are to open elsewhere.
    is_node_by_node: bool = False  # Its fault says a step for each node.
    sentinel: bool = False  # It needs a ledger with replicas and sentinels.
    own_promises: tuple[Judge, ...] = ()

    @property
    def promises(self) -> tuple[Judge, ...]:
        """Return what is promised whatever breaks, and what is promised of this one."""
        return promises.ALWAYS + self.own_promises


def _nothing(_stage: Stage) -> None:
    """It is whole already."""


def _start_victim(stage: Stage) -> None:
    stage.place.start_node(stage.victim)


def _stop(stage: Stage) -> None:
    """Stop the victim while its sessions are open; they say QUIT a little later."""
    finishing = threading.Timer(LAST_WORDS_SECONDS, stage.finish_held)
    finishing.start()
    try:
        stage.stopped(stage.place.stop_node(stage.victim))
    finally:
        finishing.join()


def _restart_all(stage: Stage) -> None:
    for node in stage.place.nodes:
        stage.step(f"{node} gets SIGTERM, and is started again")
        stage.stopped(stage.place.stop_node(node))
        stage.place.start_node(node)
        stage.place.wait_until_ready()


_opens_after_kill = promises.opens_within(promises.KILL_SECONDS_MAX, "a killed node")
_opens_after_pause = promises.opens_within(promises.LAPSE_SECONDS_MAX, "a paused node")
_opens_after_cut = promises.opens_within(promises.LAPSE_SECONDS_MAX, "a node that was cut off")
_loses_no_session = (promises.no_session_broken, promises.no_session_refused, promises.stops_with_zero)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="kill-node",
        sentence="{victim} gets SIGKILL, and is started again later.",
        fault=lambda stage: stage.place.kill_node(stage.victim),
        mend=_start_victim,
        lasts_seconds=AFTER_KILL_SECONDS,
        is_taken_over=True,
        own_promises=(_opens_after_kill,),
    ),
    Scenario(
        name="stop-node",
        sentence="{victim} gets SIGTERM while sessions are open; it lets them finish, ends, and is started again.",
        fault=_stop,
        mend=_start_victim,
        lasts_seconds=AFTER_KILL_SECONDS,
        own_promises=(*_loses_no_session, promises.held_sessions_go_on),
    ),
    Scenario(
        name="pause-node",
        sentence="{victim} gets SIGSTOP for longer than its lease, then SIGCONT.",
        fault=lambda stage: stage.place.pause_node(stage.victim),
        mend=lambda stage: stage.place.resume_node(stage.victim),
        lasts_seconds=BEYOND_LEASE_SECONDS,
        is_taken_over=True,
        own_promises=(_opens_after_pause,),
    ),
    Scenario(
        name="cut-node-from-ledger",
        sentence="Nothing passes between {victim} and the ledger, for longer than its lease.",
        fault=lambda stage: stage.place.cut_from_ledger(stage.victim),
        mend=lambda stage: stage.place.mend_ledger_cut(stage.victim),
        lasts_seconds=BEYOND_LEASE_SECONDS,
        is_taken_over=True,
        own_promises=(_opens_after_cut,),
    ),
    Scenario(
        name="cut-node-from-clients",
        sentence="Nothing passes between {victim} and the balancer, while it reaches the ledger and the store.",
        fault=lambda stage: stage.place.cut_from_clients(stage.victim),
        mend=lambda stage: stage.place.mend_client_cut(stage.victim),
        lasts_seconds=BEYOND_LEASE_SECONDS,
        is_taken_over=True,
        own_promises=(_opens_after_cut,),
    ),
    Scenario(
        name="restart-ledger",
        sentence="The ledger is stopped and started again, with its memory.",
        fault=lambda stage: stage.place.restart_ledger(),
        mend=_nothing,
        lasts_seconds=NOTICE_SECONDS,
        own_promises=(promises.held_sessions_go_on,),
    ),
    Scenario(
        name="wipe-ledger",
        sentence="The ledger forgets everything while it runs.",
        fault=lambda stage: stage.place.wipe_ledger(),
        mend=_nothing,
        lasts_seconds=NOTICE_SECONDS,
        own_promises=(promises.held_sessions_go_on,),
    ),
    Scenario(
        name="fail-over-sentinel",
        sentence="The ledger's primary is killed; the sentinels make a replica the primary.",
        fault=lambda stage: stage.place.fail_over_ledger(),
        mend=lambda stage: stage.place.mend_ledger(),
        sentinel=True,
        own_promises=(promises.held_sessions_go_on,),
    ),
    Scenario(
        name="rolling-restart",
        sentence="Every node in turn gets SIGTERM and is started again.",
        fault=_restart_all,
        mend=_nothing,
        holds=False,
        is_node_by_node=True,
        own_promises=_loses_no_session,
    ),
    Scenario(
        name="unmount-store",
        sentence="The mail store is taken away under all nodes, and given back.",
        fault=lambda stage: stage.place.unmount_store(),
        mend=lambda stage: stage.place.mount_store(),
        lasts_seconds=OUTAGE_SECONDS,
    ),
)

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
