"""The table at the end of a drill: it fits, it tells what was broken, and its last line is the verdict."""

import io

from attrs import evolve
from drill_reports import bad_report, good_report, outcome, skipped

from node.drill import figures, table
from node.drill.outcome import Report


def shown(report: Report) -> list[str]:
    stream = io.StringIO()
    table.show(report, stream)
    return stream.getvalue().splitlines()


def test_a_good_day_ends_with_one_sentence():
    lines = shown(good_report())
    assert lines[-1] == "Everything as promised."
    assert lines[-2] == "9 scenarios, 36 promises, all kept; 1 skipped."
    assert not [line for line in lines if "✗" in line]


def test_each_scenario_has_its_line_and_no_line_is_wider_than_100_columns():
    lines = shown(good_report())
    for scenario in good_report().outcomes:
        assert len([line for line in lines if scenario.scenario in line]) == 1
    assert max(map(len, lines)) <= 100
    killed = next(line for line in lines if "kill-node" in line)
    it = good_report().outcomes[0]
    assert killed.split() == [
        "✓", "kill-node", str(it.sessions_ok), str(it.sessions_refused), str(it.sessions_broken), "1.37", "1.12",
        str(it.accepted), str(it.readable), "0", "0", "0", "0",
    ]  # fmt: skip


def test_a_broken_promise_is_told_as_a_sentence_and_so_is_what_the_history_shows():
    lines = shown(bad_report())
    assert lines[-1] == "2 promises broken: look at kill-node."
    assert (
        "✗ kill-node: the promise “a killed node's mailbox opens elsewhere” was broken: 4.31 s (at most 2.0 s)" in lines
    )
    assert any("P3000000000017 was accepted for drill07@example.com" in line for line in lines)


def test_several_broken_scenarios_are_all_named():
    killed = bad_report().outcomes[0]
    report = evolve(bad_report(), outcomes=(killed, evolve(killed, scenario="wipe-ledger"), outcome("stop-node")))
    assert figures.verdict(report).headline == "4 promises broken: look at kill-node and wipe-ledger."


def test_a_thousand_violations_leave_the_verdict_in_sight():
    killed = evolve(bad_report().outcomes[0], violations=tuple(f"message {number} is gone" for number in range(1000)))
    lines = shown(evolve(bad_report(), outcomes=(killed,)))
    assert len(lines) < 40
    assert any("… and 990 more; --json shows all" in line for line in lines)


def test_what_was_skipped_is_told_with_its_reason():
    assert (
        "- fail-over-sentinel was skipped: the lab has one ledger; use --on compose with the profile sentinel"
        in shown(good_report())
    )


def test_where_nothing_could_be_tried_nobody_says_that_all_is_well():
    report = evolve(good_report(), outcomes=(skipped("kill-node", "there is one node only"),))
    assert shown(report)[-1] == "Nothing was tried."
    assert not figures.verdict(report).kept
    assert shown(evolve(report, outcomes=()))[-1] == "Nothing was tried."


def test_numbers_too_wide_for_their_column_are_told_in_thousands():
    busy = evolve(outcome("kill-node"), sessions_ok=1_234_567, unreachable_seconds=86_400.0, lost=123_456)
    lines = shown(evolve(good_report(), outcomes=(busy,)))
    assert "1234k" in " ".join(lines)
    assert "123k" in " ".join(lines)
    assert "86,400" in " ".join(lines)
    assert max(map(len, lines)) <= 100


def test_a_narrow_terminal_gets_a_line_for_each_scenario_rather_than_folded_numbers(monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = shown(good_report())
    it = good_report().outcomes[0]
    assert any(f"sessions {it.sessions_ok} ok, {it.sessions_refused} refused" in line for line in lines)
    assert not any("two" in line for line in lines)


def test_what_a_server_said_does_not_move_the_cursor():
    killed = evolve(bad_report().outcomes[0], violations=("node2 said \x1b[2J\r\n[bold]gone[/bold]",))
    text = "\n".join(shown(evolve(bad_report(), outcomes=(killed,))))
    assert "\x1b" not in text
    assert "node2 said ?[2J??[bold]gone[/bold]" in text


def test_a_stream_that_knows_no_check_marks_still_gets_its_table():
    octets = io.BytesIO()
    stream = io.TextIOWrapper(octets, encoding="latin-1", write_through=True)
    table.show(good_report(), stream)
    assert octets.getvalue().endswith(b"Everything as promised.\n")


def test_markdown_has_a_row_for_each_tried_scenario_and_the_command():
    text = table.markdown(bad_report())
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == 9
    assert rows[0].startswith("| `kill-node` | node2, which holds the mailbox, gets SIGKILL; it is started again. |")
    assert rows[0].endswith("| 1 | 0 | 0 | 0 | 2 of 4 kept |")
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    assert "Made by `mailroot drill --on lab` (Mailroot 0.1.0, 3 nodes of mailroot lab," in text
    assert "`fail-over-sentinel` was skipped: the lab has one ledger" in text


def test_markdown_is_not_torn_by_what_stands_in_a_cell():
    torn = evolve(outcome("kill-node"), broken="a | b\nc <script>")
    row = table.markdown(evolve(good_report(), outcomes=(torn,))).splitlines()[2]
    assert "| a \\| b c &lt;script> |" in row
