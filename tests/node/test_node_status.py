"""The cluster at one look: who is gone, who is behind, whose settings differ; for a person and for a script."""

import json
import re

import pytest
from attrs import evolve

from node import cli
from node.admin import Admin
from node.config import load
from node.status import CLAIMS_SHOWN_MAX, Status, _age, as_json, as_text, look
from store.claim import ClaimRequest, HeldClaim, NodeFacts

NOW = 1_772_366_400.0
SETTINGS = {"mail_store": "/srv/mail", "method": "encrypted_file", "greeting": "hello", "plain_without_tls": True}


def facts(name: str, *, alive: bool = True, **said: object) -> NodeFacts:
    told = {"lease": f"{name}~a.1", "host": "h1", "pid": 7, "started": NOW - 90, "sessions": 2, "claims": 1}
    told |= {"registrations": 5, "trouble": "", **SETTINGS}
    return NodeFacts(node=name, alive=alive, facts=told | said)


class Cluster:
    """What an administrator would find, said by the test."""

    def __init__(self, *nodes: NodeFacts, version: int = 5, claims: int = 0) -> None:
        self._nodes, self._version = list(nodes), version
        self._claims = [
            HeldClaim(mailbox=f"example.com/u{number}", node="n1", lease="n1~a.1", age_seconds=100 - number)
            for number in range(claims)
        ]

    def nodes(self) -> list[NodeFacts]:
        return self._nodes

    def claims(self) -> list[HeldClaim]:
        return self._claims

    def registrations_version(self) -> int:
        return self._version

    def look(self) -> Status:
        return look(self)


def remarks(status: Status) -> list[str]:
    return [str(node["remark"]) for node in as_json(status)["nodes"]]


def test_nodes_of_one_mind_are_healthy() -> None:
    status = Cluster(facts("n1"), facts("n2", host="h2", pid=9)).look()
    assert status.healthy
    assert status.drift == {}
    assert remarks(status) == ["", ""]
    assert "DRIFT" not in as_text(status)


def test_no_node_is_not_healthy_and_says_what_to_do() -> None:
    status = Cluster().look()
    assert not status.healthy
    assert "no node has joined; start one with: mailroot node" in as_text(status)


def test_a_gone_node_is_told_and_its_settings_do_not_count() -> None:
    status = Cluster(facts("n1"), facts("n2", alive=False, greeting="old")).look()
    assert not status.healthy
    assert status.drift == {}
    assert remarks(status) == ["", "its lease ended; its claims are free"]
    (line,) = [line for line in as_text(status).splitlines() if line.startswith("n2")]
    assert " GONE " in line


@pytest.mark.invariant("I8")
def test_a_node_that_is_behind_says_by_how_much() -> None:
    status = Cluster(facts("n1"), facts("n2", registrations=2)).look()
    assert not status.healthy
    assert remarks(status) == ["", "3 changes of domains behind"]
    (line,) = [line for line in as_text(status).splitlines() if line.startswith("n2")]
    assert " v2/v5 " in line


def test_what_troubles_a_node_comes_before_how_far_it_is_behind() -> None:
    status = Cluster(facts("n1", registrations=0, trouble="the share is not mounted")).look()
    assert not status.healthy
    assert remarks(status) == ["the share is not mounted"]


def test_a_domain_without_its_directory_is_told() -> None:
    status = Cluster(facts("n1", missing_directories="a.example, b.example")).look()
    assert not status.healthy
    assert remarks(status) == ["registered without a directory: a.example, b.example (winpop add, or winpop delete)"]


@pytest.mark.parametrize(
    ("setting", "other"),
    [("mail_store", "/mnt"), ("method", "x"), ("greeting", "hi"), ("plain_without_tls", False)],
)
def test_a_setting_that_differs_is_drift(setting: str, other: object) -> None:
    status = Cluster(facts("n1"), facts("n2", **{setting: other}), facts("n3")).look()
    assert not status.healthy
    assert remarks(status) == ["", "", ""]
    assert status.drift == {setting: {str(SETTINGS[setting]): ["n1", "n3"], str(other): ["n2"]}}
    assert as_text(status).splitlines()[-1] == f"DRIFT {setting}: {SETTINGS[setting]} on n1, n3; {other} on n2"


def test_a_node_of_another_release_that_says_less_is_shown_all_the_same() -> None:
    status = Cluster(NodeFacts(node="old", alive=True, facts={"lease": "old~a.1"})).look()
    assert remarks(status) == ["5 changes of domains behind"]
    assert as_text(status).splitlines()[1].split()[:4] == ["old", "up", "?", "?"]


def test_the_oldest_claims_are_shown_and_json_has_them_all() -> None:
    status = Cluster(facts("n1"), claims=CLAIMS_SHOWN_MAX + 3).look()
    text = as_text(status)
    assert f"{CLAIMS_SHOWN_MAX + 3} claims, oldest first:" in text
    assert re.search(r"example\.com/u0 +held by n1 for 1 min", text)
    assert text.count("held by") == CLAIMS_SHOWN_MAX
    assert text.endswith("… and 3 more (--json shows all)")
    assert len(as_json(status)["claims"]) == CLAIMS_SHOWN_MAX + 3
    assert "0 claims" in as_text(Cluster(facts("n1")).look()).splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5.0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (90 * 3600 + 61, "90 h 1 min"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert _age(seconds) == text


@pytest.mark.parametrize("up", [0, 59 * 60, 100 * 86_400 + 59 * 60])
def test_every_column_stands_under_its_heading(up: int) -> None:
    status = evolve(Cluster(facts("n1")).look(), seen_at=NOW - 90 + up)
    head, line = as_text(status).splitlines()[:2]
    for title, value in (("STATE", "up"), ("HOST", "h1")):
        assert head.index(title) == line.index(value)
    assert head.index("PID") + 3 == line.index("7 ") + 1
    assert head.index("DOMAINS") + 7 == line.index("v5/v5") + 5


@pytest.fixture
def config(tmp_path, store_root: str, ledger_url: str) -> str:
    path = tmp_path / "node.yaml"
    guid = "5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b"
    path.write_text(
        f'guid: {guid}\nmail_store: {store_root}\nredis: {ledger_url}\nlmtp: {{listen: ["127.0.0.1:24"]}}\n'
    )
    return str(path)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    return ended.value.code or 0


def test_the_command_on_a_real_ledger(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    admin = Admin(load(config))
    admin.add_domain("example.com")
    admin.add_mailbox("ada@example.com", "lovelace")
    assert run("cluster", "status", "--config", config) == 1
    assert "no node has joined" in capsys.readouterr().out
    # n1 takes a claim; n2 leaves without a word; n3 is behind.
    for name, registrations in (("n1", 1), ("n2", 1), ("n3", 0)):
        told = facts(name, registrations=registrations).facts
        assert admin._claims.beat(f"{name}~a.1", "join", name, json.dumps(told), "e").state == "ok"
    admin._claims.end_lease("n2~a.1")
    redis, key = admin._ledger._redis, admin._claims._keys.epoch
    redis.set(key, redis.get(key).rpartition(" ")[0] + " 0")  # The grace of a new ledger is over.
    assert admin._claims.exchange("n1~a.1", [ClaimRequest("take", "example.com/ada", 1)]) == ["ok"]
    assert run("cluster", "status", "--json", "--config", config) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["healthy"], found["registrations_version"], found["drift"]) == (False, 1, {})
    assert [(node["node"], node["alive"], node["remark"]) for node in found["nodes"]] == [
        ("n1", True, ""),
        ("n2", False, "its lease ended; its claims are free"),
        ("n3", True, "1 changes of domains behind"),
    ]
    assert [(claim["mailbox"], claim["node"]) for claim in found["claims"]] == [("example.com/ada", "n1")]
    for name in ("n2", "n3"):
        admin._claims.end_lease(f"{name}~a.1", leaving_node=name)
    assert run("cluster", "status", "--config", config) == 0
    assert "example.com/ada" in capsys.readouterr().out
    assert run("cluster", "break", "ada@example.com", "--config", config) == 0
    assert "Claim of node n1 on ada@example.com" in capsys.readouterr().out
    assert run("cluster", "break", "ada@example.com", "--config", config) == 0
    assert capsys.readouterr().out == "Nobody holds a claim on ada@example.com.\n"


def test_without_a_ledger_the_command_says_so(config: str, ledger_url: str, capsys, tmp_path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(path.read_text().replace(ledger_url, "redis://u:hunter2@127.0.0.1:1/0"))
    assert run("cluster", "status", "--config", config) == 75
    said = capsys.readouterr()
    assert "does not answer" in said.err
    assert "hunter2" not in said.err + said.out
