"""The Compose lab as a place to drill: every part can be broken and comes back, and nothing is left of it."""

import os
from collections.abc import Iterator

import pytest
from lab import docker
from support import wait_until

from node.drill.on_compose import OnCompose
from node.drill.place import Unready

pytestmark = pytest.mark.docker

PROJECT = f"mailroot-test-drill-{os.getpid()}"
LABEL = f"label=com.docker.compose.project={PROJECT}"
BOXES = {"one@drill.example.com": "secret one", "two@example.com": "secret two"}


@pytest.fixture(scope="module")
def place(engine: None) -> Iterator[OnCompose]:
    made = OnCompose(project=PROJECT)
    try:
        made.start()
        made.add_mailboxes(BOXES)
        yield made
    finally:
        made.stop()
    assert docker("ps", "--all", "--quiet", "--filter", LABEL) == ""
    assert docker("network", "ls", "--quiet", "--filter", LABEL) == ""
    assert docker("volume", "ls", "--quiet", "--filter", LABEL) == ""


@pytest.fixture
def whole(place: OnCompose) -> Iterator[OnCompose]:
    place.wait_until_ready()
    yield place
    place.wait_until_ready()


def unready(place: OnCompose) -> set[str]:
    return set(place._ask("unready"))


def falls_out(place: OnCompose, node: str) -> bool:
    return place._placing().get(("pop3_ready", node), "").startswith(("DOWN", "MAINT"))


def test_mailboxes_can_be_made_again(whole: OnCompose) -> None:
    whole.add_mailboxes(BOXES)
    assert whole.holder("one@drill.example.com") == ""


def test_a_question_that_fails_says_why(whole: OnCompose) -> None:
    with pytest.raises(Unready, match=r"no mailbox nobody@example\.com"):
        whole.holder("nobody@example.com")


@pytest.mark.parametrize(
    ("breaks", "mends"),
    [
        ("kill_node", "start_node"),
        ("stop_node", "start_node"),
        ("pause_node", "resume_node"),
        ("cut_from_clients", "mend_client_cut"),
        ("cut_from_ledger", "mend_ledger_cut"),
    ],
)
def test_a_node_breaks_and_comes_back(whole: OnCompose, breaks: str, mends: str) -> None:
    assert getattr(whole, breaks)("node2") in (None, 0)
    wait_until(lambda: falls_out(whole, "node2"), or_fail=f"after {breaks} the balancer still has node2", seconds=60)
    assert not falls_out(whole, "node1")
    getattr(whole, mends)("node2")


def test_the_ledger_comes_back_with_its_memory(whole: OnCompose) -> None:
    before = whole._ask("unready"), whole.holder("two@example.com")
    whole.restart_ledger()
    whole.wait_until_ready()
    assert (whole._ask("unready"), whole.holder("two@example.com")) == before


def test_a_wiped_ledger_is_filled_again(whole: OnCompose) -> None:
    whole.wipe_ledger()
    wait_until(lambda: unready(whole), or_fail="no node ever noticed", seconds=60)


def test_without_its_store_no_node_is_ready(whole: OnCompose) -> None:
    whole.unmount_store()
    wait_until(lambda: unready(whole) == set(whole.nodes), or_fail="a node is ready without its store", seconds=60)
    whole.mount_store()


def test_what_needs_sentinels_says_so(place: OnCompose) -> None:
    assert "compose.sentinel.yml" in place.cannot("fail-over-sentinel")
    assert place.cannot("kill-node") == ""
