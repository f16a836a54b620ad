"""A real Prometheus looks at real nodes: every panel and every rule has an answer, and an outage is an alert."""

import contextlib
import json
import math
import os
import poplib
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from attrs import frozen
from support import wait_until
from watched import RULES, WATCH, panel_queries, rule_queries

from node.lab import ACCOUNTS, DOMAIN, Lab, deliver, free_port, login

pytestmark = pytest.mark.cluster

LOOK_SECONDS_MAX = 90.0  # Ends a wait that is lost; Prometheus looks every second here.


@frozen
class Watched:
    """A lab, and the Prometheus that looks at it."""

    lab: Lab
    port: int

    def ask(self, page: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{page}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[float]:
        """Return the numbers that answer a query."""
        found = self.ask("query", query=query)["result"]
        return [value for value in (float(sample["value"][1]) for sample in found) if not math.isnan(value)]

    def alerts(self) -> set[str]:
        """Return the alerts that are pending or firing, each with its node where it has one."""
        found = (alert["labels"] for alert in self.ask("alerts")["alerts"])
        return {f"{labels['alertname']} {labels.get('instance', '')}".strip() for labels in found}

    def health(self) -> list[str]:
        try:
            return [target["health"] for target in self.ask("targets")["activeTargets"]]
        except urllib.error.URLError:  # It is just starting.
            return []


def configured(directory: Path, lab: Lab) -> Path:
    """Write the lab's own configuration with these nodes for targets, and without a balancer; return its path."""
    shutil.copy(WATCH / "rules.yml", directory)
    settings = yaml.safe_load((WATCH / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    jobs = [job for job in settings["scrape_configs"] if job["job_name"] == "mailroot"]
    jobs[0]["static_configs"] = [{"targets": [f"127.0.0.1:{node.ports.http}" for node in lab.nodes]}]
    settings["scrape_configs"] = jobs
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(settings))
    return path


@contextlib.contextmanager
def looking(directory: Path, lab: Lab) -> Iterator[Watched]:
    program = shutil.which("prometheus")
    if program is None:
        missing = "no prometheus here: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    port = free_port()
    words = [f"--config.file={configured(directory, lab)}", f"--storage.tsdb.path={directory / 'tsdb'}"]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log, cwd=directory
        )
    try:
        yield Watched(lab, port)
    finally:
        process.terminate()
        process.wait(LOOK_SECONDS_MAX)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    lab = Lab(tmp_path_factory.mktemp("lab"), nodes=3)
    try:
        lab.start()
        lab.populate()
        with looking(tmp_path_factory.mktemp("prometheus"), lab) as found:
            wait_until(
                lambda: found.health() == ["up"] * 3,
                or_fail="Prometheus never read all three nodes",
                seconds=LOOK_SECONDS_MAX,
            )
            yield found
    finally:
        lab.stop()


def use(lab: Lab) -> None:
    """A delivery, and a session that reads and removes it, on each node: every kind of ask happens."""
    for node in lab.nodes:
        deliver(node, f"ada@{DOMAIN}", "Subject: watched\r\n\r\nHello.\r\n")
        client = login(node.ports.pop3, f"ada@{DOMAIN}", ACCOUNTS["ada"])
        client.retr(1)
        client.dele(1)
        client.quit()


def test_no_panel_and_no_rule_comes_back_without_a_number(watched: Watched) -> None:
    queries = panel_queries() | rule_queries()

    def unanswered() -> list[str]:
        use(watched.lab)  # Again and again: a rate shows what happened between two looks.
        return [title for title, query in queries.items() if not watched.values(query)]

    wait_until(lambda: not unanswered(), or_fail="some queries have no answer", seconds=LOOK_SECONDS_MAX)
    loaded = {rule["name"] for group in watched.ask("rules")["groups"] for rule in group["rules"]}
    assert loaded == {rule["alert"] for rule in RULES}
    # But for slowness: this machine may be as busy as it likes.
    wait_until(
        lambda: watched.alerts() <= {"MailrootStoreSlow"},
        or_fail="nothing is wrong in this lab, and an alert stays",
        seconds=LOOK_SECONDS_MAX,
    )


def test_the_very_first_refusal_of_its_kind_is_seen(watched: Watched) -> None:
    """A counter that began with its first event would show no rise."""
    query = 'sum(increase(mailroot_logins_total{answer="AUTH"}[5m]))'
    wait_until(lambda: watched.values(query) == [0], or_fail="there is no zero to rise from", seconds=LOOK_SECONDS_MAX)
    node = watched.lab.nodes[0]
    with pytest.raises(poplib.error_proto, match="AUTH"):
        login(node.ports.pop3, f"grace@{DOMAIN}", "wrong")
    wait_until(
        lambda: watched.values(query)[0] > 0, or_fail="one wrong password never showed", seconds=LOOK_SECONDS_MAX
    )


def test_a_node_that_is_killed_is_an_alert_of_its_own(watched: Watched) -> None:
    node = watched.lab.nodes[2]
    node.kill()
    down = f"MailrootNodeDown 127.0.0.1:{node.ports.http}"
    wait_until(lambda: down in watched.alerts(), or_fail="no alert knows of it", seconds=LOOK_SECONDS_MAX)
    assert not any(alert.startswith("MailrootNoNodeReady") for alert in watched.alerts())
    node.start()
    watched.lab.wait_until_ready()
    wait_until(lambda: down not in watched.alerts(), or_fail="the alert stays", seconds=LOOK_SECONDS_MAX)


def test_a_ledger_that_is_gone_is_an_alert(watched: Watched) -> None:
    """The leases run out at every node, nobody is ready, and users who try are told to try later."""
    lab = watched.lab
    assert lab.ledger is not None
    lab.ledger.terminate()
    try:
        short = {f"MailrootLeaseShort 127.0.0.1:{node.ports.http}" for node in lab.nodes}
        wait_until(
            lambda: short <= watched.alerts(), or_fail="no alert knows that leases end", seconds=LOOK_SECONDS_MAX
        )
        wait_until(
            lambda: "MailrootNoNodeReady" in watched.alerts(), or_fail="nobody is woken", seconds=LOOK_SECONDS_MAX
        )
        node = lab.nodes[0]
        with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            login(node.ports.pop3, f"ada@{DOMAIN}", ACCOUNTS["ada"])
        refused = f"MailrootLoginsFail 127.0.0.1:{node.ports.http}"
        wait_until(lambda: refused in watched.alerts(), or_fail="the refusal never shows", seconds=LOOK_SECONDS_MAX)
    finally:
        lab.start_ledger()
    lab.wait_until_ready()
    wait_until(
        lambda: not short & watched.alerts(),
        or_fail="the leases are renewed, the alert stays",
        seconds=LOOK_SECONDS_MAX,
    )
