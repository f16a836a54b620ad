"""The profile `watch`: Prometheus sees the whole lab, and no panel and no rule asks for something that is not there."""

import json
import os
import smtplib
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from lab import ComposedLab, docker
from support import wait_until
from watched import RULES, panel_queries, rule_queries

from node.lab import login

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def watched(engine: None) -> Iterator[ComposedLab]:
    with ComposedLab(f"mailroot-watch-{os.getpid()}", profiles=("watch",)) as lab:
        lab.wait_until_placed_on("node1", "node2", "node3")
        yield lab


def ask(lab: ComposedLab, page: str, **parameters: str) -> Any:
    url = f"http://127.0.0.1:{lab.port('prometheus')}/api/v1/{page}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)["data"]


def use(lab: ComposedLab) -> None:
    """A delivery and a session, for figures that are not all 0."""
    with smtplib.LMTP("127.0.0.1", lab.port("lmtp"), local_hostname="test", timeout=60) as mta:
        mta.sendmail("sender@example.net", ["alan@example.com"], b"Subject: watched\r\n\r\n.\r\n")
    client = login(lab.port("pop3"), "alan@example.com", "turing")
    client.retr(1)
    client.quit()


def test_prometheus_sees_every_node_and_the_balancer(watched: ComposedLab) -> None:
    def is_up() -> bool:
        try:
            targets = ask(watched, "targets")["activeTargets"]
        except OSError:  # It is just starting.
            return False
        return [target["health"] for target in targets] == ["up"] * 4

    wait_until(is_up, or_fail="not all of three nodes and a balancer are up in Prometheus", seconds=90)
    assert {rule["name"] for group in ask(watched, "rules")["groups"] for rule in group["rules"]} == {
        rule["alert"] for rule in RULES
    }


def test_no_panel_and_no_rule_comes_back_empty(watched: ComposedLab) -> None:
    use(watched)

    def empty() -> list[str]:
        queries = panel_queries() | rule_queries()
        return [title for title, query in queries.items() if not ask(watched, "query", query=query)["result"]]

    wait_until(lambda: not empty(), or_fail="some queries stay empty", seconds=90)

    def deliveries() -> float:
        (sample,) = ask(watched, "query", query='sum(mailroot_deliveries_total{outcome="ok"})')["result"]
        return float(sample["value"][1])

    wait_until(lambda: deliveries() >= 1, or_fail="the delivery does not show", seconds=90)


def test_a_node_that_is_killed_shows(watched: ComposedLab) -> None:
    docker("kill", watched.container("node3"))

    def pending() -> set[str]:
        return {alert["labels"]["alertname"] for alert in ask(watched, "alerts")["alerts"]}

    wait_until(lambda: "MailrootNodeDown" in pending(), or_fail="no alert knows of the dead node", seconds=90)


def test_where_grafana_could_not_be_had_its_stand_in_says_so(watched: ComposedLab) -> None:
    """deploy/offline-images.sh makes the stand-in; the real one serves the dashboard."""
    stand_in = "This is not Grafana"
    if stand_in in json.dumps(watched.inspect("grafana")["Config"]["Cmd"]):
        wait_until(lambda: stand_in in watched.logs("grafana"), or_fail="it said nothing", seconds=60)
        assert watched.inspect("grafana")["State"]["ExitCode"] == 0
        return

    def serves() -> bool:
        try:
            url = f"http://127.0.0.1:{watched.port('grafana')}/api/dashboards/uid/mailroot"
            with urllib.request.urlopen(url, timeout=30) as answer:
                return bool(json.load(answer)["dashboard"]["title"] == "Mailroot")
        except OSError:
            return False

    wait_until(serves, or_fail="Grafana does not serve the dashboard", seconds=120)
