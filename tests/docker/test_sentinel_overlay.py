"""The lab with Sentinel: its ledger's primary is killed, and nobody who is logged in notices."""

import os
import poplib
from collections.abc import Iterator

import pytest
import yaml
from lab import ROOT, ComposedLab, docker
from support import wait_until

from node.lab import ACCOUNTS, DOMAIN, login

pytestmark = pytest.mark.docker

BACK_SECONDS_MAX = 120.0  # Ends a wait that is lost; it takes about six seconds.
ADA = f"ada@{DOMAIN}"


@pytest.fixture(scope="module")
def watched(engine: None) -> Iterator[ComposedLab]:
    with ComposedLab(
        f"mailroot-sentinel-{os.getpid()}",
        files=("deploy/compose.sentinel.yml",),
        environment={"MAILROOT_LEDGER_NET": f"10.214.{os.getpid() % 256}"},
    ) as made:
        yield made


def knock(lab: ComposedLab) -> str:
    """Log in as Ada through the balancer; return "" or why not."""
    try:
        login(lab.port("pop3"), ADA, ACCOUNTS["ada"]).quit()
    except (poplib.error_proto, OSError, EOFError) as error:
        return str(error)
    return ""


def role(lab: ComposedLab, service: str) -> str:
    return lab.exec(service, "redis-cli", "role").split()[0]


def test_the_nodes_configurations_differ_in_the_ledger_only():
    plain, watched = (
        yaml.safe_load((ROOT / "deploy" / "lab" / name).read_text()) for name in ("node.yaml", "node.sentinel.yaml")
    )
    assert plain.pop("redis") != watched.pop("redis")
    assert plain == watched


@pytest.mark.invariant("I5")
def test_the_primary_is_killed_and_sessions_go_on(watched: ComposedLab, request: pytest.FixtureRequest):
    wait_until(lambda: not knock(watched), or_fail="the lab never let anybody in", seconds=BACK_SECONDS_MAX)
    session = login(watched.port("pop3"), ADA, ACCOUNTS["ada"])
    request.addfinalizer(session.close)
    count = session.stat()[0]
    session.dele(1)
    docker("kill", watched.container("redis"))
    wait_until(
        lambda: "IN-USE" in knock(watched), or_fail="the claim was never asserted again", seconds=BACK_SECONDS_MAX
    )
    assert sorted(role(watched, f"redis-replica{number}") for number in (1, 2)) == ["master", "slave"]
    assert session.quit().startswith(b"+OK")
    again = login(watched.port("pop3"), ADA, ACCOUNTS["ada"])
    assert again.stat()[0] == count - 1, "what was marked is removed, and nothing else"
    again.quit()


def test_a_lab_that_was_stopped_after_a_fail_over_finds_its_primary_again(watched: ComposedLab):
    """Every container is new; who follows whom is in the volumes."""
    watched.compose("down", "--timeout", "5")
    watched.up()
    wait_until(lambda: not knock(watched), or_fail="the lab never let anybody in", seconds=BACK_SECONDS_MAX)
    wait_until(
        lambda: role(watched, "redis") == "slave", or_fail="it takes itself for a primary", seconds=BACK_SECONDS_MAX
    )


def test_the_next_primary_may_die_too_and_comes_back_as_a_replica(watched: ComposedLab):
    names = ("redis", "redis-replica1", "redis-replica2")
    primary = next(name for name in names if role(watched, name) == "master")
    docker("kill", watched.container(primary))
    wait_until(
        lambda: any(role(watched, name) == "master" for name in names if name != primary),
        or_fail="no replica was promoted",
        seconds=BACK_SECONDS_MAX,
    )
    wait_until(lambda: not knock(watched), or_fail="nobody is let in any more", seconds=BACK_SECONDS_MAX)
    watched.compose("start", primary)
    wait_until(
        lambda: role(watched, primary) == "slave",
        or_fail="it still takes itself for a primary",
        seconds=BACK_SECONDS_MAX,
    )
