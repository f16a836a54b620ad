"""A node of the lab dies, or stops: the balancer has another, and nothing of the mail is gone."""

import contextlib
import poplib
from collections.abc import Iterator

import pytest
from lab import ComposedLab, docker
from support import wait_until

from node.lab import Pop3Client, login

pytestmark = pytest.mark.docker

NODES = ("node1", "node2", "node3")
ADA = "ada@example.com"


@pytest.fixture
def whole(lab: ComposedLab) -> Iterator[ComposedLab]:
    """The lab with all its nodes, before and after."""
    lab.wait_until_placed_on(*NODES)
    yield lab
    docker("start", *map(lab.container, NODES))
    lab.wait_until_placed_on(*NODES)


@contextlib.contextmanager
def session(lab: ComposedLab) -> Iterator[poplib.POP3]:
    """A session of ada's through the balancer; waits for the mailbox if another has it still."""
    opened: list[poplib.POP3] = []

    def opens() -> bool:
        try:
            opened.append(login(lab.port("pop3"), ADA, "lovelace"))
        except (OSError, poplib.error_proto):
            return False
        return True

    wait_until(opens, or_fail="ada's mailbox never opened", seconds=60)
    try:
        yield opened[0]
    finally:
        with contextlib.suppress(OSError):
            opened[0].close()


def uids(client: poplib.POP3) -> list[bytes]:
    return [line.split()[1] for line in client.uidl()[1]]


def holder(lab: ComposedLab) -> str:
    claims = lab.status()["claims"]
    return next(str(claim["node"]) for claim in claims if claim["mailbox"] == "example.com/ada")


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I7")
def test_the_mailbox_of_a_killed_node_opens_elsewhere_with_all_its_mail(whole: ComposedLab) -> None:
    with session(whole) as first:
        before = uids(first)
        first.dele(1)
        dead = holder(whole)
        docker("kill", whole.container(dead))
        with session(whole) as second:
            assert uids(second) == before
            assert holder(whole) != dead
            second.quit()
    assert not whole.inspect(dead)["State"]["Running"]
    whole.wait_until_placed_on(*(node for node in NODES if node != dead))
    whole.compose("start", dead)  # What the README says.
    whole.wait_until_placed_on(*NODES)


def test_a_stopped_node_lets_its_session_finish(whole: ComposedLab) -> None:
    with session(whole) as client:
        leaving = holder(whole)
        docker("kill", "--signal", "TERM", whole.container(leaving))
        whole.wait_until_placed_on(*(node for node in NODES if node != leaving))
        assert uids(client)
        assert client.quit().startswith(b"+OK")
    wait_until(lambda: not whole.inspect(leaving)["State"]["Running"], or_fail=f"{leaving} never ended", seconds=60)
    assert whole.inspect(leaving)["State"]["ExitCode"] == 0


def test_with_no_ledger_clients_hear_why_and_mail_comes_in(whole: ComposedLab) -> None:
    docker("stop", whole.container("redis"))
    try:
        whole.wait_until_placed_on()
        client = Pop3Client(whole.port("pop3"))
        client.user(ADA)
        with pytest.raises(poplib.error_proto, match=r"SYS/TEMP"):
            client.pass_("lovelace")
        client.quit()
    finally:
        docker("start", whole.container("redis"))
    with session(whole) as client:
        client.quit()
