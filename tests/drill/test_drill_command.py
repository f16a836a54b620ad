"""`mailroot drill`: its words, its exit status, and that it never leaves a place running."""

import json
import signal
import sys

import pytest
from pretend import PretendedPlace, Store

from node import cli
from node.drill import command
from node.drill.outcome import Report
from node.drill.place import Unready
from node.drill.scenarios import SCENARIOS


class Kind:
    """The kind of place that the command makes; remembers each."""

    def __init__(self) -> None:
        self.made: list[PretendedPlace] = []
        self.sentinels: list[bool] = []
        self.pretence = {}

    def __call__(self, sentinel: bool) -> PretendedPlace:
        self.sentinels.append(sentinel)
        self.made.append(PretendedPlace(**self.pretence))
        return self.made[-1]


@pytest.fixture
def kind(monkeypatch) -> Kind:
    made = Kind()
    monkeypatch.setattr(command, "_kind", lambda _on: made)
    yield made
    assert not any(place.is_running for place in made.made), "a place was left running"


def exit_status(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["drill", "--seconds", "0.2", *words])
    return int(ended.value.code or 0)


def lose_everything(store: Store) -> None:
    for mailbox, messages in store.messages.items():
        if mailbox not in store.claims:
            messages.clear()


def test_every_promise_kept_exits_0(kind, capsys):
    assert exit_status("kill-node", "wipe-ledger") == 0
    assert "Everything as promised." in capsys.readouterr().out
    assert len(kind.made) == 1, "one place serves scenarios one after the other"


def test_a_lost_message_exits_1_and_json_says_which(kind, tmp_path, capsys):
    kind.pretence = {"misbehave": lose_everything}
    found = tmp_path / "report.json"
    assert exit_status("kill-node", "--json", str(found)) == 1
    report = Report.from_json(found.read_text())
    assert not report.kept
    assert report.outcomes[0].lost > 0
    assert any("is gone and nobody asked for its removal" in sentence for sentence in report.outcomes[0].violations)
    assert report.command == f"mailroot drill --seconds 0.2 kill-node --json {found}"
    assert "no accepted message is lost" in capsys.readouterr().out


def test_a_broken_promise_gives_the_next_scenario_a_new_place(kind):
    kind.pretence = {"misbehave": lose_everything}
    assert exit_status("kill-node", "stop-node") == 1
    assert len(kind.made) == 2


def test_json_on_standard_output_is_nothing_but_json(kind, capsys):
    assert exit_status("wipe-ledger", "--json", "-") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["kept"] is True
    assert "wipe-ledger" in said.err


def test_a_page_is_written(kind, tmp_path):
    page = tmp_path / "drill.html"
    assert exit_status("wipe-ledger", "--page", str(page)) == 0
    assert "<svg" in page.read_text()


@pytest.mark.parametrize("option", ["--json", "--page"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_broken(kind, option, tmp_path, capsys):
    assert exit_status("kill-node", option, str(tmp_path / "nowhere" / "report")) == 1
    assert "can't be written" in capsys.readouterr().err
    assert not kind.made


def test_an_unknown_scenario_is_told_what_it_may_mean(capsys):
    assert exit_status("kil-node") == 2
    assert "there is no scenario 'kil-node'; did you mean kill-node?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--seconds", "-1"), ("--seconds", "soon"), ("--on", "moon"), ("--jso",)])
def test_words_that_nobody_understands_exit_2(words):
    assert exit_status(*words) == 2


@pytest.mark.parametrize("word", ["--help", "--list"])
def test_help_and_list_tell_every_scenario_with_a_sentence(word, capsys):
    assert exit_status(word) == 0
    said = capsys.readouterr().out
    for scenario in SCENARIOS:
        assert f"  {scenario.name} " in said
    assert "A node gets SIGKILL" in said


def test_a_missing_extra_is_told_as_one_sentence(kind, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "node.drill.table", None)
    monkeypatch.delattr("node.drill.table", raising=False)
    assert exit_status("kill-node") == 1
    said = capsys.readouterr().err
    assert said.startswith("mailroot: the drill needs ")
    assert "pip install 'mailroot[lab]'" in said


def test_a_place_that_does_not_start_is_told_as_one_sentence(kind, monkeypatch, capsys):
    def fail(_place: PretendedPlace) -> None:
        raise Unready("node1 does not run; its last words: port 1110 is taken")

    monkeypatch.setattr(PretendedPlace, "start", fail)
    assert exit_status("kill-node") == 1
    assert "mailroot drill: node1 does not run" in capsys.readouterr().err


def test_a_place_that_is_not_whole_before_the_fault_breaks_a_promise(kind, capsys):
    def take_no_mail(place: PretendedPlace, _passwords: dict[str, str]) -> None:
        raise Unready("the nodes never learned the domain")

    real, PretendedPlace.add_mailboxes = PretendedPlace.add_mailboxes, take_no_mail
    try:
        assert exit_status("kill-node") == 1
    finally:
        PretendedPlace.add_mailboxes = real
    assert "the nodes never learned the domain" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything(kind, number, capsys):
    kind.pretence = {"misbehave": lambda _store: signal.raise_signal(number)}
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    # The fault is begun by the main thread, which gets the signal, while the load runs and others knock.
    assert exit_status("kill-node") == 130
    assert "Stopped; nothing is left running." in capsys.readouterr().err
    assert {each: signal.getsignal(each) for each in handlers} == handlers


def test_only_the_fail_over_gets_a_ledger_with_sentinels(kind, monkeypatch):
    monkeypatch.setattr(PretendedPlace, "cannot", lambda _place, _fault: "not today")
    assert exit_status() == 0
    order = [scenario.sentinel for scenario in SCENARIOS]
    assert kind.sentinels == [False, True, False]
    assert order.count(True) == 1
