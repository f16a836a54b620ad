"""Made-up reports: what the drill could say of a good day, and of a bad one."""

import random

from attrs import evolve

from node.drill.outcome import Outcome, Promise, Report, Second

SENTENCES = {
    "kill-node": "node2, which holds the mailbox, gets SIGKILL; it is started again.",
    "stop-node": "node2 gets SIGTERM: it lets its sessions finish, and ends.",
    "pause-node": "node2 gets SIGSTOP for longer than its lease, then SIGCONT.",
    "cut-node-from-ledger": "node2 reaches the balancer and the store, but not the ledger.",
    "cut-node-from-clients": "The balancer reaches node2 no more; node2 reaches the ledger.",
    "restart-ledger": "The ledger is stopped and started again, with its append-only file.",
    "wipe-ledger": "The ledger forgets everything.",
    "rolling-restart": "All nodes are stopped and started, one by one.",
    "unmount-store": "The mail store is taken away under the nodes, and given back.",
}
HOSTILE = "<script>alert('mail')</script>"


def outcome(scenario: str, *, seconds: int = 30, fault: tuple[float, float] = (8.3, 15.2)) -> Outcome:
    """An outcome in which every promise was kept."""
    chance = random.Random(scenario)
    timeline = []
    for at in range(seconds):
        bad = int(fault[0]) <= at <= fault[0] + 2
        timeline.append(
            Second(
                at=at,
                ok=chance.randrange(2, 9) if bad else chance.randrange(30, 42),
                refused=chance.randrange(0, 7) if bad else 0,
                broken=chance.randrange(0, 3) if bad else 0,
                accepted=chance.randrange(8, 12) if bad else chance.randrange(15, 20),
                deferred=chance.randrange(0, 4) if bad else 0,
            )
        )
    refused, accepted = sum(second.refused for second in timeline), sum(second.accepted for second in timeline)
    return Outcome(
        scenario=scenario,
        broken=SENTENCES.get(scenario, "Something breaks."),
        began="2026-11-24T19:12:54+00:00",
        seconds=seconds - 0.4,
        fault_from=fault[0],
        fault_to=fault[1],
        sessions_ok=sum(second.ok for second in timeline),
        sessions_refused=refused,
        sessions_broken=sum(second.broken for second in timeline),
        refusals={"[IN-USE]": refused - refused // 3, "[SYS/TEMP]": refused // 3} if refused else {},
        unreachable_seconds=1.37,
        takeover_seconds=(0.71, 0.98, 1.12),
        accepted=accepted,
        readable=accepted - 120,
        removed=120,
        lost=0,
        twice=0,
        not_asked=0,
        two_holders=0,
        violations=(),
        promises=(
            Promise(text="no accepted message is lost", kept=True, measured=f"0 of {accepted}"),
            Promise(text="nothing is removed that nobody asked to remove", kept=True, measured="0 of 120"),
            Promise(text="no mailbox has two holders", kept=True, measured="0"),
            Promise(text="a killed node's mailbox opens elsewhere", kept=True, measured="1.12 s (at most 2.0 s)"),
        ),
        timeline=tuple(timeline),
    )


def skipped(scenario: str, why: str) -> Outcome:
    """What could not be tried."""
    return Outcome(
        scenario=scenario,
        broken="The primary of the ledger is killed; a replica takes its place.",
        began="2026-11-24T19:12:54+00:00",
        seconds=0.0,
        fault_from=0.0,
        fault_to=0.0,
        sessions_ok=0,
        sessions_refused=0,
        sessions_broken=0,
        refusals={},
        unreachable_seconds=0.0,
        takeover_seconds=(),
        accepted=0,
        readable=0,
        removed=0,
        lost=0,
        twice=0,
        not_asked=0,
        two_holders=0,
        violations=(),
        promises=(),
        timeline=(),
        skipped=why,
    )


def good_report() -> Report:
    """Every promise kept; one scenario could not be tried."""
    outcomes = [outcome(scenario) for scenario in SENTENCES]
    outcomes.append(skipped("fail-over-sentinel", "the lab has one ledger; use --on compose with the profile sentinel"))
    return Report(
        place="lab",
        nodes=3,
        command="mailroot drill --on lab",
        version="0.1.0",
        machine="2 cores, Linux 6.1, Python 3.11",
        began="2026-11-24T19:12:54+00:00",
        outcomes=tuple(outcomes),
    )


def bad_report() -> Report:
    """The same, but a killed node lost a message and was slow about it."""
    report = good_report()
    killed = report.outcomes[0]
    promises = (
        evolve(killed.promises[0], kept=False, measured=f"1 of {killed.accepted}"),
        *killed.promises[1:3],
        evolve(killed.promises[3], kept=False, measured="4.31 s (at most 2.0 s)"),
    )
    killed = evolve(
        killed,
        lost=1,
        readable=killed.readable - 1,
        takeover_seconds=(0.71, 4.31),
        unreachable_seconds=4.4,
        promises=promises,
        violations=(
            "P3000000000017 was accepted for drill07@example.com at 9.12 s and nobody removed it; it is not there.",
        ),
    )
    return evolve(report, outcomes=(killed, *report.outcomes[1:]))
