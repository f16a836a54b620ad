"""What an operator does on a running cluster: domains, claims, status, deliveries from scripts, metrics."""

import base64
import json
import os
import signal
import smtplib
import urllib.request

import pytest
from commands import mailroot, winpop
from journals import judge_logs
from scene import Scene

from node.drill.pop import Client
from node.lab import DOMAIN, LabNode, wait_until
from node.status import look

pytestmark = pytest.mark.cluster

BROKEN = "-ERR [SYS/TEMP] session expired, nothing was removed"


def reply(_scene: Scene, node: LabNode, recipient: str) -> str:
    """Return the first word that a delivery gets at a node; outside the history, because the domain may go."""
    with smtplib.LMTP("127.0.0.1", node.ports.lmtp, local_hostname="scene", timeout=5) as client:
        client.ehlo_or_helo_if_needed()
        client.mail("sender@example.net")
        code, text = client.rcpt(recipient)
        if code == 250:
            code, text = client.data(b"Subject: s\r\n\r\nb\r\n")
        return text.split()[0].decode() if code == 250 else str(code)


@pytest.mark.invariant("I8")
def test_a_domain_is_made_and_deleted_once_for_all_and_repeating_is_harmless(scene: Scene):
    first, second, third = scene.lab.nodes
    added = winpop("add", "once.example", config=first.config_path)
    assert (added.returncode, added.stdout) == (
        0,
        b"Domain once.example added. Every node receives its mail from now on.\n",
    )
    again = winpop("add", "once.example", config=second.config_path)
    assert (again.returncode, again.stdout) == (0, b"Domain once.example exists already; nothing to do.\n")
    password = scene.password("someone@once.example").encode()
    made = winpop("add", "someone@once.example", "/createuser", "-", config=third.config_path, stdin=password + b"\n")
    assert made.returncode == 0, made.stderr
    seconds = wait_until(
        lambda: all(reply(scene, node, "someone@once.example") == "2.0.0" for node in scene.lab.nodes),
        "a node never heard of the domain",
        5.0,
    )
    scene.figure("a new domain: every node receives its mail", seconds)
    gone = winpop("delete", "once.example", "/y", config=second.config_path)
    assert gone.returncode == 0, gone.stderr
    assert b"Domain once.example deleted, with " in gone.stdout
    again = winpop("delete", "once.example", "/y", config=third.config_path)
    assert (again.returncode, again.stdout) == (0, b"Domain once.example was deleted already; nothing to do.\n")
    wait_until(
        lambda: all(reply(scene, node, "someone@once.example") == "550" for node in scene.lab.nodes),
        "a node still receives its mail",
        5.0,
    )
    back = winpop("add", "once.example", config=third.config_path)
    assert back.returncode == 0
    assert not list((scene.lab.store / "once.example").iterdir()), "mail of the deleted domain came back"


@pytest.mark.invariant("I8")
def test_a_node_that_joins_late_knows_every_domain_and_shows_its_drift(scene: Scene):
    admin = scene.lab.admin()
    for domain in ("late.example", "never.example"):
        admin.add_domain(domain)
        admin.add_mailbox(f"someone@{domain}", "quite-secret")
    admin.delete_domain("never.example", lambda _: True, lambda _: None)
    late = scene.lab._node(4, fixed_ports=False)
    scene.lab.configure(late, pop3={"listen": [f"127.0.0.1:{late.ports.pop3}"], "greeting": "another greeting"})
    late.start()
    try:
        wait_until(lambda: not late.readiness(), "the late node was never ready")
        assert reply(scene, late, "someone@late.example") == "2.0.0"
        assert reply(scene, late, "someone@never.example") == "550"
        assert reply(scene, late, "someone@unheard.example") == "550"
        status = mailroot("cluster", "status", config=scene.lab.config_path)
        assert status.returncode == 1
        assert b"DRIFT greeting: POP3 service ready on node1, node2, node3; another greeting on node4" in status.stdout
        drift = json.loads(mailroot("cluster", "status", "--json", config=scene.lab.config_path).stdout)["drift"]
        assert drift == {"greeting": {"POP3 service ready": ["node1", "node2", "node3"], "another greeting": ["node4"]}}
    finally:
        late.signal(signal.SIGTERM)
        assert late.wait() == 0


def test_the_status_shows_nodes_claims_and_what_is_wrong(scene: Scene):
    mailbox = scene.mailbox("status")
    session = scene.open(scene.node(2), mailbox)
    admin = scene.lab.admin()
    wait_until(lambda: look(admin).healthy, "the cluster never was of one mind")
    answer = mailroot("cluster", "status", "--json", config=scene.lab.config_path)
    assert answer.returncode == 0
    status = json.loads(answer.stdout)
    assert [(node["node"], node["alive"], node["remark"]) for node in status["nodes"]] == [
        (f"node{number}", True, "") for number in (1, 2, 3)
    ]
    assert [node["pid"] for node in status["nodes"]] == [node.process.pid for node in scene.lab.nodes]
    assert {node["registrations"] for node in status["nodes"]} == {status["registrations_version"]}
    assert [(claim["mailbox"], claim["node"]) for claim in status["claims"]] == [(f"{DOMAIN}/status", "node2")]
    text = mailroot("cluster", "status", config=scene.lab.config_path).stdout.decode()
    assert f"{DOMAIN}/status" in text
    assert "held by node2 for" in text
    scene.node(3).kill()
    wait_until(lambda: not look(admin).healthy, "nobody saw that a node is dead", 5.0)
    text = mailroot("cluster", "status", config=scene.lab.config_path)
    assert text.returncode == 1
    assert "its lease ended; its claims are free" in text.stdout.decode()
    session.quit()
    scene.node(3).start()
    scene.lab.wait_until_ready()
    wait_until(lambda: look(admin).healthy, "the cluster did not recover")


@pytest.mark.invariant("I5")
def test_a_broken_claim_removes_nothing(scene: Scene):
    mailboxes = [scene.mailbox(f"broken-{number}") for number in (1, 2)]
    uids = [[scene.deliver(scene.node(1), mailbox) for _ in range(2)] for mailbox in mailboxes]
    with scene.judged():
        at_once, later = (scene.open(scene.node(1), mailbox) for mailbox in mailboxes)
        at_once.mark(uids[0][0])
        later.mark(uids[1][0])
        for mailbox in mailboxes:
            broken = mailroot("cluster", "break", mailbox, config=scene.lab.config_path)
            assert broken.returncode == 0
            assert b"Claim of node node1 on " in broken.stdout
            successor = scene.open(scene.node(2), mailbox)
            assert len(successor.list()) == 2
            if mailbox == mailboxes[0]:
                assert at_once.quit().startswith(BROKEN)
            successor.quit()
        assert later.fetch(uids[1][1])
        assert later.quit().startswith(BROKEN)
        nobody = mailroot("cluster", "break", mailboxes[0], config=scene.lab.config_path)
        assert (nobody.returncode, nobody.stdout.decode()) == (0, f"Nobody holds a claim on {mailboxes[0]}.\n")
    assert [list(scene.history.readable[mailbox]) for mailbox in mailboxes] == uids


@pytest.mark.invariant("I5")
def test_a_claim_that_was_broken_a_moment_ago_removes_nothing(scene: Scene):
    """Before the holder's next beat brings it word: QUIT asks the ledger itself."""
    admin, mailbox = scene.lab.admin(), scene.mailbox("broken-now")
    uid = scene.deliver(scene.node(1), mailbox)
    with scene.judged():
        session = scene.open(scene.node(1), mailbox)
        session.mark(uid)
        assert admin.break_claim(mailbox).facts == {"broken": True, "node": "node1"}
        assert session.quit().startswith(BROKEN)
    assert list(scene.history.readable[mailbox]) == [uid]


def test_a_script_delivers_the_same_bytes_as_lmtp(scene: Scene):
    mailbox, other = scene.mailbox("piped"), scene.mailbox("posted")
    node = scene.node(1)
    piped = mailroot(
        "deliver", mailbox, "--sender", "a@example.net", config=node.config_path, stdin=b"Subject: s\n\nb\n.\n"
    )
    assert piped.returncode == 0, piped.stderr
    uid = piped.stdout.decode().strip()
    scene.post(node, other, b"Subject: s\r\n\r\nb\r\n.\r\n")
    session = scene.open(scene.node(3), mailbox)
    assert session.list() == (uid,)
    session.quit()
    messages = [next((scene.lab.store / DOMAIN / f"P3_{name}.mbx").glob("*.eml")) for name in ("piped", "posted")]
    headings, bodies = zip(*(path.read_bytes().split(b"Subject: ", 1) for path in messages), strict=True)
    assert bodies == (b"s\r\n\r\nb\r\n.\r\n",) * 2
    assert [line.partition(b":")[0] for line in headings[0].splitlines() if not line.startswith(b"\t")] == [
        line.partition(b":")[0] for line in headings[1].splitlines() if not line.startswith(b"\t")
    ]


@pytest.mark.invariant("I9")
def test_a_scripts_exit_code_tells_the_mta_whether_to_try_again(scene: Scene):
    node, store = scene.node(1), scene.lab.store
    assert mailroot("deliver", f"nobody@{DOMAIN}", config=node.config_path, stdin=b"x").returncode == 67
    (store / DOMAIN / "P3_loop.mbx").symlink_to("P3_loop.mbx")
    assert mailroot("deliver", f"loop@{DOMAIN}", config=node.config_path, stdin=b"x").returncode == 75
    (store / DOMAIN / "P3_loop.mbx").unlink()
    marker = (store / ".mailroot").rename(store / ".mailroot.away")
    unmounted = mailroot("deliver", f"nobody@{DOMAIN}", config=node.config_path, stdin=b"x")
    os.rename(marker, store / ".mailroot")
    scene.lab.wait_until_ready()  # A node may have looked for the marker just then; it looks again in five seconds.
    assert unmounted.returncode == 75, "an MTA returns mail to its sender for every other code"
    assert b"has no marker" in unmounted.stderr
    assert mailroot("deliver", f"ada@{DOMAIN}", config=store / "no-such.yaml", stdin=b"x").returncode == 75


@pytest.mark.invariant("I10")
def test_the_metrics_are_there_and_name_nobody(scene: Scene):
    node, mailbox = scene.node(2), scene.mailbox("measured")
    uid = scene.deliver(node, mailbox)
    session = scene.open(node, mailbox)
    session.fetch(uid)
    session.quit()
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports.http}/metrics", timeout=5) as page:
        text = page.read().decode()
    for series in (
        'mailroot_sessions_total{end="quit"}',
        'mailroot_logins_total{answer="ok"}',
        "mailroot_commands_total",
        'mailroot_deliveries_total{outcome="ok",protocol="LMTP"}',
        'mailroot_ask_seconds_bucket{ask="open",le="0.001"}',
        'mailroot_ask_seconds_count{ask="fetch"}',
        'mailroot_ask_seconds_count{ask="remove"}',
        'mailroot_ask_seconds_count{ask="deliver"}',
        "mailroot_sessions_open 0.0",
        "mailroot_claims_held 0.0",
        "mailroot_registrations_version",
        "mailroot_ready 1.0",
        "mailroot_disk_calls_open 0.0",
        "mailroot_ledger_calls_open",
    ):
        assert f"\n{series}" in text, series
    assert "measured" not in text
    assert not any(secret in text for secret in scene.secrets())


@pytest.mark.invariant("I10")
def test_no_log_holds_a_secret(scene: Scene):
    """By every way in, right and wrong; each module's labs are judged so at their end, too."""
    node, mailbox = scene.node(1), scene.mailbox("discreet")
    password, wrong = scene.password(mailbox), "wrong-guess-Plugh"
    initial = [base64.b64encode(f"\0{mailbox}\0{secret}".encode()).decode() for secret in (password, wrong)]
    for lines, begins in (
        ((f"USER {mailbox}", f"PASS {password}", "QUIT"), "+OK"),
        ((f"USER {mailbox}", f"PASS {wrong}"), "-ERR [AUTH]"),
        ((f"AUTH PLAIN {initial[0]}", "QUIT"), "+OK"),
        ((f"AUTH PLAIN {initial[1]}",), "-ERR [AUTH]"),
        ((f"PASS {password}",), "-ERR"),
        ((f"APOP {mailbox} {wrong}",), "-ERR"),
        ((f"{password} {wrong}",), "-ERR"),
    ):
        client = Client(("127.0.0.1", node.ports.pop3))
        replies = [client.say(line) for line in lines]
        client.end()
        assert replies[-1].startswith(begins), replies
    scene.deliver(node, mailbox)
    judge_logs(scene, *initial)
