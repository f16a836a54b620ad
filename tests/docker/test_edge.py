"""The profile `edge`: a Postfix that knows what the nodes know, and loses nothing while they are away."""

import contextlib
import itertools
import os
import poplib
import smtplib
from collections.abc import Iterator

import pytest
from lab import ComposedLab, docker
from support import wait_until

from node.lab import Pop3Client

pytestmark = pytest.mark.docker

NODES = ("node1", "node2", "node3")
DOMAIN = "example.com"
PASSWORD = "a-password-of-the-edge"
SECONDS_MAX = 120.0  # A busy machine, a lease of 10 s, and Postfix's next try after at most 5 s.

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def lab(engine: None) -> Iterator[ComposedLab]:
    """The whole lab with its edge."""
    made = ComposedLab(f"mailroot-edge-{os.getpid()}", profiles=("edge",))
    made.compose("build", "edge")
    with made:
        # It takes mail when it listens, and when the balancer has a node to ask.
        wait_until(
            lambda: code(made, f"ada@{DOMAIN}") == 250,
            or_fail=f"the edge never took mail\n{made.logs('edge')[-3000:]}",
            seconds=SECONDS_MAX,
        )
        yield made


@pytest.fixture
def mailbox(lab: ComposedLab) -> str:
    """A mailbox of one test."""
    address = f"edge{next(_numbers)}@{DOMAIN}"
    lab.exec("node1", "winpop", "add", address, "/createuser", PASSWORD)
    return address


def client_of(lab: ComposedLab) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", lab.port("edge"), local_hostname="client.example.net", timeout=120)
    client.ehlo()
    return client


@contextlib.contextmanager
def conversation(lab: ComposedLab) -> Iterator[smtplib.SMTP]:
    """A connection to the edge that has said EHLO and MAIL."""
    with client_of(lab) as client:
        assert client.mail("sender@example.net")[0] == 250
        yield client


def reply(lab: ComposedLab, recipient: str) -> tuple[int, str]:
    """Return what the edge says to RCPT."""
    with conversation(lab) as client:
        status, text = client.rcpt(recipient)
        return status, text.decode()


def code(lab: ComposedLab, recipient: str) -> int:
    """Return the status of RCPT, or 0 where the edge does not listen (yet)."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        return reply(lab, recipient)[0]
    return 0


def send(lab: ComposedLab, recipient: str, token: str) -> None:
    with client_of(lab) as client:
        client.sendmail("sender@example.net", [recipient], content(token))


def content(token: str) -> str:
    return f"Subject: {token}\r\n\r\nThe message {token}.\r\n"


def tokens(lab: ComposedLab, mailbox: str) -> list[str]:
    """Return the subjects of a mailbox, read by POP3 through the balancer; nothing where it does not open just now."""
    try:
        client = Pop3Client(lab.port("pop3"))
    except (OSError, poplib.error_proto):
        return []
    try:
        client.user(mailbox)
        client.pass_(PASSWORD)
        lines = [line for number in range(1, client.stat()[0] + 1) for line in client.retr(number)[1]]
        client.quit()
    except (OSError, poplib.error_proto):
        return []
    finally:
        client.close()
    return [line.decode().removeprefix("Subject: ") for line in lines if line.startswith(b"Subject: ")]


def wait_for_mail(lab: ComposedLab, mailbox: str, wanted: set[str]) -> None:
    wait_until(
        lambda: set(tokens(lab, mailbox)) == wanted,
        or_fail=f"{mailbox} never had exactly {wanted}; the edge:\n{lab.logs('edge')[-3000:]}",
        seconds=SECONDS_MAX,
    )


def wait_until_all_is_well(lab: ComposedLab) -> None:
    lab.wait_until_placed_on(*NODES)
    wait_until(lambda: code(lab, f"ada@{DOMAIN}") == 250, or_fail="the edge did not recover", seconds=SECONDS_MAX)


def test_a_message_goes_in_at_the_edge_and_out_by_pop3(lab: ComposedLab, mailbox: str) -> None:
    send(lab, mailbox, "through the edge")
    wait_for_mail(lab, mailbox, {"through the edge"})


@pytest.mark.invariant("I8")
def test_a_domain_that_was_just_registered_is_received(lab: ComposedLab) -> None:
    """Asked before it exists, too, at every process that the edge has for that: it must not remember its own "no"."""
    address = "eve@just-now.example"
    with contextlib.ExitStack() as stack:
        for client in [stack.enter_context(conversation(lab)) for _ in range(4)]:
            assert client.rcpt(address)[0] == 554
    lab.exec("node2", "winpop", "add", "just-now.example")
    lab.exec("node3", "winpop", "add", address, "/createuser", PASSWORD)
    wait_until(lambda: lab.status()["healthy"], or_fail="the nodes never learned the domain", seconds=SECONDS_MAX)
    assert reply(lab, address)[0] == 250
    send(lab, address, "the first of its domain")
    wait_for_mail(lab, address, {"the first of its domain"})
    lab.exec("node1", "winpop", "delete", address, "/y")
    wait_until(lambda: code(lab, address) == 550, or_fail="a deleted mailbox still receives", seconds=SECONDS_MAX)


def test_who_is_unknown_is_refused_at_once(lab: ComposedLab, mailbox: str) -> None:
    assert reply(lab, f"nobody@{DOMAIN}") == (
        550,
        f"5.1.1 <nobody@{DOMAIN}>: Recipient address rejected: User unknown in virtual mailbox table",
    )
    assert reply(lab, "ada@unknown.example") == (554, "5.7.1 <ada@unknown.example>: Relay access denied")
    assert reply(lab, mailbox.upper())[0] == 250
    assert reply(lab, f"postmaster@{DOMAIN}")[0] == 250


@pytest.mark.parametrize(
    "recipient",
    [
        "x@elsewhere.example",
        f"x@sub.{DOMAIN}",
        f"x%elsewhere.example@{DOMAIN}",
        f"elsewhere.example!x@{DOMAIN}",
        f'"x@elsewhere.example"@{DOMAIN}',
        f"@{DOMAIN}:x@elsewhere.example",
        "x@[192.0.2.1]",
        "root@localhost",
        "root@edge.mailroot.invalid",
        "root",
    ],
)
def test_nothing_is_relayed(lab: ComposedLab, recipient: str) -> None:
    with conversation(lab) as client:
        status, text = client.docmd("RCPT", f"TO:<{recipient}>")
        assert 500 <= status < 600, text


def test_a_message_that_no_node_would_take_is_refused_at_the_edge(lab: ComposedLab) -> None:
    with client_of(lab) as client:
        assert client.docmd("MAIL", "FROM:<sender@example.net> SIZE=50000000")[0] == 552


@pytest.mark.invariant("I9")
def test_while_the_nodes_have_no_store_the_sender_is_told_to_come_back(lab: ComposedLab, mailbox: str) -> None:
    lab.exec("node1", "mv", "/srv/mailroot/.mailroot", "/srv/mailroot/.mailroot-away")
    try:
        # A miss is not believed from the first moment on; what is there is told until the nodes look at the marker.
        assert reply(lab, f"nobody@{DOMAIN}")[0] == 451
        wait_until(lambda: code(lab, mailbox) == 451, or_fail="the nodes never missed it", seconds=SECONDS_MAX)
        assert reply(lab, f"nobody@{DOMAIN}")[0] == 451
    finally:
        lab.exec("node1", "mv", "/srv/mailroot/.mailroot-away", "/srv/mailroot/.mailroot")
    wait_until_all_is_well(lab)
    assert reply(lab, f"nobody@{DOMAIN}")[0] == 550
    send(lab, mailbox, "after the store")
    wait_for_mail(lab, mailbox, {"after the store"})


@pytest.mark.invariant("I7")
def test_what_the_edge_accepted_survives_all_nodes_and_the_edge_itself(lab: ComposedLab, mailbox: str) -> None:
    with conversation(lab) as client:
        assert client.rcpt(mailbox)[0] == 250
        docker("kill", *map(lab.container, NODES))
        status, text = client.data(content("kept in the queue"))
        assert status == 250, text
    assert reply(lab, mailbox)[0] == 451, "nobody can tell"
    assert reply(lab, "ada@unknown.example")[0] == 451
    docker("kill", lab.container("edge"))
    docker("start", lab.container("edge"), *map(lab.container, NODES))
    wait_until_all_is_well(lab)
    wait_for_mail(lab, mailbox, {"kept in the queue"})


@pytest.mark.invariant("I2")
def test_a_node_that_dies_under_a_stream_of_mail_loses_none_of_it(lab: ComposedLab, mailbox: str) -> None:
    wanted = {f"stream {number}" for number in range(40)}
    with client_of(lab) as client:
        for number, token in enumerate(sorted(wanted)):
            if number == 15:
                docker("kill", lab.container("node2"))
            # A sender whose recipient was answered with 451 comes back, as any mail server does.
            wait_until(
                lambda token=token: accepted(client, mailbox, token), or_fail="never accepted", seconds=SECONDS_MAX
            )
    docker("start", lab.container("node2"))
    wait_until_all_is_well(lab)
    wait_for_mail(lab, mailbox, wanted)


def accepted(client: smtplib.SMTP, recipient: str, token: str) -> bool:
    """Send; return False where the edge says "later". :raises SMTPException: it says "never"."""
    try:
        client.sendmail("sender@example.net", [recipient], content(token))
    except smtplib.SMTPRecipientsRefused as error:
        (refusal,) = error.recipients.values()
        assert refusal[0] == 451, refusal
        return False
    return True


def test_the_edge_may_do_little(lab: ComposedLab) -> None:
    known = lab.inspect("edge")
    host = known["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert sorted(capability.removeprefix("CAP_") for capability in host["CapAdd"]) == [
        "DAC_OVERRIDE",
        "SETGID",
        "SETUID",
    ]
    assert not host["Privileged"]
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"]["max-size"]
    assert {binding["HostIp"] for bindings in host["PortBindings"].values() for binding in bindings} == {"127.0.0.1"}
    wait_until(
        lambda: lab.inspect("edge")["State"]["Health"]["Status"] == "healthy", or_fail="unhealthy", seconds=SECONDS_MAX
    )


def test_the_edges_log_has_nothing_to_complain_of(lab: ComposedLab) -> None:
    """Last: what Postfix says of look-ups and connections while nodes were away is all that it complains of."""
    expected = ("lookup error", "lookup problem", "lookup failure", "socketmap server temporary error")
    for line in lab.logs("edge").splitlines():
        if any(word in line for word in ("warning:", "error:", "fatal:", "panic:")):
            assert any(text in line for text in expected), line
