"""The alert rules and the dashboard, as files: promtool's word on them, and that they fit what a node tells."""

import os
import re
import shutil
import subprocess
from itertools import product

import pytest
import yaml
from watched import DASHBOARD, RULES, WATCH, panel_queries, rule_queries

from node import health
from node.pop3 import asks

# Of others: Prometheus itself, and the gauges that service.py brings, which the live test asks (tests/docker/test_watch_live.py).
NOT_COUNTED_BY_HEALTH = {
    "up",
    "mailroot_ready",
    "mailroot_sessions_open",
    "mailroot_claims_held",
    "mailroot_lease_seconds_left",
    "mailroot_registrations_behind",
    "mailroot_disk_calls_open",
    "mailroot_ledger_calls_open",
}


@pytest.fixture(scope="module")
def promtool() -> str:
    """Skip where promtool is missing; in CI that is a failure."""
    found = shutil.which("promtool")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("no promtool here: apt-get install prometheus")
    if found is None:
        pytest.skip("no promtool here: apt-get install prometheus")
    return found


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_configuration_and_the_rules(promtool: str) -> None:
    said = run(promtool, "check", "config", str(WATCH / "prometheus.yml"))
    assert f"{len(RULES)} rules found" in said


def test_every_alert_fires_when_it_should_and_none_in_a_cluster_that_is_well(promtool: str) -> None:
    run(promtool, "test", "rules", str(WATCH / "rules_test.yml"))


def test_every_alert_has_a_test() -> None:
    tested = {test["name"] for test in yaml.safe_load((WATCH / "rules_test.yml").read_text())["tests"]}
    assert {rule["alert"] for rule in RULES} <= tested


def test_every_alert_says_what_to_do() -> None:
    documented = (WATCH.parents[1] / "docs/WATCHING.md").read_text()
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].rstrip().endswith(".")
        assert f"`{rule['alert']}`" in documented


def test_a_rule_is_a_query_a_comparison_and_a_number() -> None:
    for rule in RULES:
        assert re.search(r" [<>] \d+$", rule["expr"]), rule["alert"]


def test_what_is_asked_is_what_a_node_tells() -> None:
    metrics = health.Metrics()
    told = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    for title, query in (panel_queries() | rule_queries()).items():
        asked = set(re.findall(r"\b(mailroot_\w+|up)\b", query.replace('job="mailroot"', "")))
        assert asked, title
        assert asked <= told | NOT_COUNTED_BY_HEALTH, title


def test_every_label_shows_from_the_start_with_zero() -> None:
    """A rate needs two looks: a counter that appears with its first failure would never have risen."""
    value = health.Metrics().registry.get_sample_value
    for end in health.SESSION_ENDS:
        assert value("mailroot_sessions_total", {"end": end}) == 0
    for answer in health.LOGIN_ANSWERS:
        assert value("mailroot_logins_total", {"answer": answer}) == 0
    for protocol, outcome in product(health.DELIVERY_PROTOCOLS, health.DELIVERY_OUTCOMES):
        assert value("mailroot_deliveries_total", {"protocol": protocol, "outcome": outcome}) == 0


def test_the_labels_are_those_of_the_code() -> None:
    """Every way for a session to end, and every code of a refused login, is in the tuples that the metrics start with."""
    node = WATCH.parents[1] / "node"
    server = (node / "pop3/server.py").read_text() + (node / "service.py").read_text()
    ends = set(re.findall(r'(?:abort|_end)\("(\w+)"|_ended = "(\w+)"', server))
    assert {end for pair in ends for end in pair if end} | {"quit", "refused"} == set(health.SESSION_ENDS)
    codes = set(re.findall(r'"((?:AUTH|IN-USE|SYS)[/A-Z-]*)"', (node / "pop3/asks.py").read_text()))
    assert codes | {"ok"} == set(health.LOGIN_ANSWERS)
    assert asks.WRONG.code in health.LOGIN_ANSWERS


def test_every_panel_can_be_read_without_asking_somebody() -> None:
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_no_panel_lies_on_another() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))


def test_the_dashboard_and_its_data_source_find_each_other() -> None:
    provisioning = WATCH / "grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"][0]
    used = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]}
    used |= {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    assert used == {"${datasource}"}
    choice = DASHBOARD["templating"]["list"][0]
    assert (choice["name"], choice["type"], choice["query"]) == ("datasource", "datasource", source["type"])
    assert choice["current"]["value"] == source["uid"]
    provider = yaml.safe_load((provisioning / "dashboards/mailroot.yml").read_text())["providers"][0]
    services = yaml.safe_load((WATCH.parents[1] / "docker-compose.yml").read_text())["services"]
    assert f"./deploy/watch/grafana/dashboards:{provider['options']['path']}:ro" in services["grafana"]["volumes"]
    assert source["url"].startswith("http://prometheus:") and "prometheus" in services  # noqa: PT018
