"""The values and the counting: reports as JSON, the tally's time line, promises at their limits."""

import json
import time

import pytest
from drill_reports import bad_report, good_report

from node.drill import promises, scenarios, tally
from node.drill.outcome import Outcome, Report
from node.drill.promises import Measured, percentile
from node.drill.scenarios import BY_NAME
from node.drill.tally import Tally


def measured(**numbers) -> Measured:
    own = {name: numbers.pop(name) for name in list(numbers) if name in Outcome.__annotations__}
    outcome = Outcome(scenario="x", broken="x", began="x", seconds=1.0, refusals={}, **own)
    return Measured(outcome=outcome, **numbers)


@pytest.mark.parametrize("report", [good_report(), bad_report()])
def test_a_report_survives_json(report):
    text = report.as_json()
    assert Report.from_json(text) == report
    assert json.loads(text)["kept"] == report.kept


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"format": 2}', good_report().as_json().replace('"lost"', '"found"')]
)
def test_what_is_no_report_is_refused(text):
    with pytest.raises(ValueError, match=r"no report|format|Expecting"):
        Report.from_json(text)


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(tally, "time", made)
    return made


def test_unreachable_is_from_the_first_failed_attempt_to_the_next_success(clock):
    found = Tally()
    clock.now = 101.0
    found.tried("ada", 100.5, opened=False)  # It took half a second to fail.
    clock.now = 102.0
    found.tried("ada", 101.9, opened=False)
    found.tried("grace", 101.9, opened=True)
    clock.now = 103.0
    found.tried("ada", 102.0, opened=True)
    assert found.unreachable_seconds() == 2.5
    clock.now = 104.0
    found.tried("ada", 103.5, opened=False)
    found.tried("ada", 104.0, opened=True)
    assert found.unreachable_seconds() == 2.5, "the longest counts"


def test_a_mailbox_that_never_opens_again_is_unreachable_until_now(clock):
    found = Tally()
    found.tried("ada", 100.0, opened=False)
    clock.now = 107.0
    assert found.unreachable_seconds() == 7.0


def test_the_time_line_has_every_second_the_empty_ones_too(clock):
    found = Tally()
    found.ok()
    found.accepted()
    clock.now = 102.9
    found.refused("[SYS/TEMP]")
    found.refused("no connection")
    found.refused("[SYS/TEMP]")
    found.broken("the connection ended", at=101.5)  # It was told later.
    found.deferred()
    line = found.timeline()
    assert [(second.at, second.ok, second.refused) for second in line] == [(0, 1, 0), (1, 0, 0), (2, 0, 3)]
    assert [second.broken for second in line] == [0, 1, 0]
    counts = found.counts()
    assert counts.refusals == {"[SYS/TEMP]": 2, "no connection": 1}
    assert counts.breaks == {"the connection ended": 1}


def test_a_refusal_for_good_is_kept_as_a_sentence():
    found = Tally()
    for _ in range(tally.LINES_MAX + 5):
        found.refused_for_good("550 no such user")
    assert found.counts().refused_for_good == tally.LINES_MAX + 5
    assert len(found.surprises) == tally.LINES_MAX


def test_percentile_is_the_nearest_rank():
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile(list(map(float, range(1, 201))), 99) == 198.0


@pytest.mark.parametrize(
    ("judge", "kept", "broken"),
    [
        (promises.nothing_lost, {}, {"lost": 1}),
        (promises.nothing_twice, {}, {"twice": 1}),
        (promises.nothing_unasked, {}, {"not_asked": 1}),
        (promises.one_holder, {}, {"two_holders": 1}),
        (promises.it_fits_together, {}, {"contradictions": 1}),
        (promises.no_mail_refused_for_good, {}, {"refused_for_good": 1}),
        (promises.ready_again, {"ready_seconds": 3.0}, {"trouble": ("node2 does not run",)}),
        (promises.no_session_broken, {"sessions_refused": 1}, {"sessions_broken": 1}),
        (promises.no_session_refused, {"sessions_broken": 1}, {"sessions_refused": 1}),
        (promises.held_sessions_go_on, {"held": 4}, {"held": 4, "held_broken": 1}),
        (promises.held_sessions_go_on, {"held": 4}, {"held": 0}),
        (promises.stops_with_zero, {"exit_statuses": (0, 0)}, {"exit_statuses": (0, 1)}),
        (promises.stops_with_zero, {"exit_statuses": (0,)}, {"exit_statuses": ()}),
        (promises.opens_within(2.0, "x"), {"takeover_seconds": (0.1, 2.0)}, {"takeover_seconds": (0.1, 2.01)}),
        (promises.opens_within(2.0, "x"), {"takeover_seconds": (0.1,)}, {"takeover_seconds": ()}),
    ],
)
def test_each_promise_is_kept_by_one_figure_and_broken_by_another(judge, kept, broken):
    assert judge(measured(**kept)).kept
    assert not judge(measured(**broken)).kept
    assert judge(measured(**broken)).measured


def test_every_scenario_makes_the_promises_of_safety():
    for scenario in BY_NAME.values():
        assert scenario.promises[: len(promises.ALWAYS)] == promises.ALWAYS
        assert scenario.sentence.format(victim="node2").endswith(".")
        if scenario.is_taken_over:
            assert len(scenario.promises) > len(promises.ALWAYS), f"{scenario.name}: nobody judges the take-over"
    assert scenarios.BEYOND_LEASE_SECONDS > promises.LAPSE_SECONDS_MAX


def test_times_are_of_one_clock():
    assert Tally().began <= time.monotonic()
