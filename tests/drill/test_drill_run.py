"""A whole scenario on a pretended cluster: what the drill notices of it, and that it notices nothing where nothing is."""

import contextlib

import pytest
from pretend import PretendedPlace, Silent, Store

from node.drill import held, run
from node.drill.scenarios import BY_NAME

STEADY_SECONDS = 0.3


@contextlib.contextmanager
def running(**pretence):
    place = PretendedPlace(**pretence)
    place.start()
    try:
        yield place
    finally:
        place.stop()


def drill(name: str, **pretence):
    with running(**pretence) as place:
        return run.run(BY_NAME[name], place, Silent(), steady_seconds=STEADY_SECONDS)


def broken(outcome) -> list[str]:
    return [promise.text for promise in outcome.promises if not promise.kept]


def untouched(store: Store) -> dict[str, bytes]:
    """The messages of a mailbox that was not opened before the fault."""
    return next(
        messages
        for mailbox, messages in reversed(store.messages.items())
        if "-held-" in mailbox and mailbox not in store.claims
    )


def lose_one(store: Store) -> None:
    messages = untouched(store)
    del messages[next(iter(messages))]


def double_one(store: Store) -> None:
    messages = untouched(store)
    messages["P3copy"] = next(iter(messages.values()))


def remove_unasked(store: Store) -> None:
    """What a held session has listed and not marked."""
    mailbox = next(mailbox for mailbox, node in store.claims.items() if "-held-" in mailbox and node == "node2")
    del store.messages[mailbox][list(store.messages[mailbox])[1]]


def remove_what_was_marked(store: Store) -> None:
    """At the end of a connection, although nobody said QUIT."""
    store.removes_without_quit = True


def refuse_mail_for_good(store: Store) -> None:
    store.answers_to_mail = "550"


def test_a_cluster_that_bears_it_keeps_every_promise():
    outcome = drill("kill-node")
    assert broken(outcome) == []
    assert outcome.violations == ()
    assert len(outcome.takeover_seconds) == held.HELD
    assert outcome.accepted == outcome.readable + outcome.removed
    assert outcome.removed >= held.HELD, "each successor removes what the one who died did not"
    assert outcome.sessions_broken >= held.HELD, "the sessions at the node that was killed"
    assert 0 < outcome.fault_from <= outcome.fault_to <= outcome.seconds
    assert sum(second.ok for second in outcome.timeline) == outcome.sessions_ok


@pytest.mark.parametrize(
    ("misbehave", "number", "text"),
    [
        (lose_one, "lost", "no accepted message is lost"),
        (remove_what_was_marked, "not_asked", "nothing is removed that nobody asked to remove"),
        (double_one, "twice", "no message is there twice"),
        (remove_unasked, "not_asked", "nothing is removed that nobody asked to remove"),
        (refuse_mail_for_good, "", "no mail is refused for good"),
    ],
)
def test_a_broken_promise_is_noticed(misbehave, number, text):
    outcome = drill("kill-node", misbehave=misbehave)
    assert text in broken(outcome)
    assert not outcome.kept
    assert outcome.violations
    if number:
        assert getattr(outcome, number) >= 1


def test_a_mailbox_that_never_opens_elsewhere_breaks_the_promise(monkeypatch):
    monkeypatch.setattr(held, "TAKEOVER_SECONDS_MAX", 3.0)
    real = PretendedPlace.kill_node

    def kill_and_hold_on(place, node):
        # Before it is killed: a claim that is gone for an instant would be taken by who knocks.
        place.store.claims |= {mailbox: "nobody" for mailbox in place.store.claims if "-held-" in mailbox}
        real(place, node)

    monkeypatch.setattr(PretendedPlace, "kill_node", kill_and_hold_on)
    monkeypatch.setattr(run, "READ_SECONDS_MAX", 1.0)
    outcome = drill("kill-node")
    assert outcome.takeover_seconds == (3.0,) * held.HELD
    assert "a mailbox that a killed node held opens elsewhere within 2 s (p99)" in broken(outcome)
    assert "what clients saw fits together, and every mailbox can be read at the end" in broken(outcome)
    assert outcome.unreachable_seconds >= 3.0


def test_a_node_that_does_not_come_back_breaks_a_promise_and_the_drill_goes_on(monkeypatch):
    monkeypatch.setattr(PretendedPlace, "start_node", lambda _place, _node: None)
    outcome = drill("kill-node")
    assert broken(outcome) == ["every node is ready again by itself"]


def test_sessions_at_a_node_that_is_stopped_come_to_their_end():
    with running() as place:
        outcome = run.run(BY_NAME["stop-node"], place, Silent(), steady_seconds=STEADY_SECONDS)
    assert broken(outcome) == []
    assert (outcome.sessions_broken, outcome.sessions_refused) == (0, 0)
    assert place.calls == ["stop node2", "start node2"]


def test_a_rolling_restart_that_refuses_somebody_breaks_its_promise():
    def refuse_one(store: Store) -> None:
        store.mute = True
        assert store.has_refused.wait(30)
        store.mute = False

    outcome = drill("rolling-restart", misbehave=refuse_one)
    assert broken(outcome) == ["no session is refused that the balancer could place"]
    assert outcome.refusals["[SYS/TEMP]"] == outcome.sessions_refused >= 1


@pytest.mark.parametrize("name", ["wipe-ledger", "rolling-restart"])
def test_the_steps_of_a_scenario_are_as_many_as_the_display_was_told(name):
    display = Silent()
    with running() as place:
        run.run(BY_NAME[name], place, display, steady_seconds=STEADY_SECONDS)
    assert display.steps_left == 0
    assert display.said[0] == f"begin {name}"
    assert display.said[-1] == f"end {name}"


def test_what_a_place_cannot_break_is_skipped_and_breaks_no_promise():
    outcome = drill("cut-node-from-clients")
    assert outcome.skipped == "there is no network to cut"
    assert outcome.kept
    assert outcome.seconds == 0
