"""The lab of docker-compose.yml keeps what it says: up from nothing, mail through the balancer, containers that may do little."""

import ipaddress
import poplib
import re
import smtplib
import subprocess

import pytest
from lab import ComposedLab, docker, placing
from support import wait_until

from node import lab as node_lab

pytestmark = pytest.mark.docker

ADA = ("ada@example.com", "lovelace")
NODES = ("node1", "node2", "node3")
SERVICES = ("redis", "setup", *NODES, "balancer")


def login(lab: ComposedLab, user: str = ADA[0], password: str = ADA[1]) -> poplib.POP3:
    return node_lab.login(lab.port("pop3"), user, password)


def uids(lab: ComposedLab, user: str, password: str) -> list[bytes]:
    client = login(lab, user, password)
    found = [line.split()[1] for line in client.uidl()[1]]
    client.quit()
    return found


def test_setup_says_where_everything_is(lab: ComposedLab) -> None:
    said = lab.logs("setup")
    for key in ("pop3", "lmtp", "smtp", "node1", "node2", "node3", "stats"):
        assert f"127.0.0.1:{lab.port(key)}" in said
    for word in ("ada@example.com", "lovelace", "hopper", "turing", "postmaster@example.com leads to ada@example.com"):
        assert word in said


def test_the_command_that_setup_prints_logs_in(lab: ComposedLab) -> None:
    line = next(line for line in lab.logs("setup").splitlines() if "curl" in line)
    done = subprocess.run(["curl", "--silent", "--show-error", *line.split()[3:]], capture_output=True, check=False)
    assert b"Subject: Welcome to the Mailroot lab" in done.stdout, done.stderr


def test_an_alias_has_its_targets_mail(lab: ComposedLab) -> None:
    assert uids(lab, *ADA) == uids(lab, "postmaster@example.com", ADA[1])
    assert len(uids(lab, *ADA)) >= 3


@pytest.mark.parametrize("protocol", ["lmtp", "smtp"])
def test_mail_comes_in_through_the_balancer(lab: ComposedLab, protocol: str) -> None:
    kind = smtplib.LMTP if protocol == "lmtp" else smtplib.SMTP
    with kind("127.0.0.1", lab.port(protocol), local_hostname="test.example.net", timeout=60) as client:
        client.sendmail("sender@example.net", ["alan@example.com"], f"Subject: By {protocol}\r\n\r\nHello.\r\n")
    client = login(lab, "alan@example.com", "turing")
    count = client.stat()[0]
    assert f"Subject: By {protocol}".encode() in client.retr(count)[1]
    client.quit()


def test_a_large_message_comes_in_though_the_nodes_disk_is_read_only(lab: ComposedLab) -> None:
    text = "Subject: Large\r\n\r\n" + ("x" * 998 + "\r\n") * 4000
    with smtplib.LMTP("127.0.0.1", lab.port("lmtp"), local_hostname="test.example.net", timeout=60) as client:
        client.sendmail("sender@example.net", ["alan@example.com"], text)


def test_a_second_up_changes_nothing(lab: ComposedLab) -> None:
    client = login(lab, "grace@example.com", "hopper")
    client.dele(1)
    client.quit()
    before = uids(lab, "grace@example.com", "hopper")
    said = lab.up()
    assert "WARN" not in said.upper()
    assert "Everything was there already; nothing was changed." in lab.logs("setup")
    assert uids(lab, "grace@example.com", "hopper") == before


def test_the_balancer_places_sessions_on_all_nodes(lab: ComposedLab) -> None:
    lab.wait_until_placed_on(*NODES)
    before = {row["svname"]: int(row["stot"]) for row in placing(lab, "pop3_ready")}
    clients = [node_lab.Pop3Client(lab.port("pop3")) for _ in range(9)]
    for client in clients:
        client.quit()
    after = {row["svname"]: int(row["stot"]) for row in placing(lab, "pop3_ready")}
    assert all(after[node] > before[node] for node in NODES)


# Containers


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_may_do_little(lab: ComposedLab, service: str) -> None:
    known = lab.inspect(service)
    host = known["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"]["max-size"]
    assert known["Config"]["User"] not in ("", "root", "0")
    published = [binding for bindings in host["PortBindings"].values() for binding in bindings]
    assert {binding["HostIp"] for binding in published} <= {"127.0.0.1"}


@pytest.mark.parametrize("node", NODES)
def test_a_node_is_nobody_and_writes_only_where_it_should(lab: ComposedLab, node: str) -> None:
    assert lab.exec(node, "id", "--user").strip() == "10001"
    assert lab.exec(node, "stat", "--format", "%a %u", "/run/mailroot/guid").split() == ["400", "10001"]
    refused = (
        "for place in / /opt/mailroot /etc/mailroot /run/mailroot; do touch $place/x 2>/dev/null && echo $place; done"
    )
    assert lab.exec(node, "sh", "-c", f"{refused}; true") == ""
    for line in lab.exec(node, "grep", "^Cap", "/proc/1/status").splitlines():
        assert int(line.split()[1], 16) == 0, line
    known = lab.inspect(node)
    assert known["HostConfig"]["Init"]
    assert known["Config"]["StopTimeout"] > 30  # A drain is 30 s.


def test_nodes_are_healthy_by_their_own_word(lab: ComposedLab) -> None:
    for node in NODES:
        assert lab.inspect(node)["State"]["Health"]["Status"] == "healthy"


def test_the_ledger_is_in_a_file_and_in_no_strangers_reach(lab: ComposedLab) -> None:
    assert lab.exec("redis", "redis-cli", "config", "get", "appendonly").split()[1] == "yes"
    assert lab.exec("redis", "redis-cli", "config", "get", "appendfsync").split()[1] == "everysec"
    assert not lab.inspect("redis")["HostConfig"]["PortBindings"]
    assert list(lab.inspect("redis")["NetworkSettings"]["Networks"]) == [f"{lab.project}_ledger"]
    assert "balancer" not in docker("network", "inspect", f"{lab.project}_ledger")


@pytest.mark.invariant("I10")
def test_the_guid_is_in_no_log_and_in_no_containers_description(lab: ComposedLab) -> None:
    guid = lab.exec("node1", "cat", "/run/mailroot/guid").strip()
    for service in SERVICES:
        assert guid not in lab.logs(service)
        assert guid not in str(lab.inspect(service))


# The balancer's header and its checks


def test_a_node_logs_the_clients_own_address(lab: ComposedLab) -> None:
    words = (
        "import poplib, socket; c = poplib.POP3('balancer', 110, timeout=60);"
        f"c.user('{ADA[0]}'); c.pass_('{ADA[1]}'); print(c.sock.getsockname()[0]); c.quit()"
    )
    address = docker(
        "run", "--rm", "--network", f"{lab.project}_front", "mailroot-node", "python3", "-c", words
    ).strip()
    assert ipaddress.ip_address(address)
    wait_until(
        lambda: any(f"peer={address} user={ADA[0]}" in lab.logs(node) for node in NODES),
        or_fail=f"no node ever named the client {address}",
        seconds=60,
    )


def test_health_checks_leave_no_line(lab: ComposedLab) -> None:
    """Five checks a second, from the first second on."""
    for node in NODES:
        assert not re.search("readyz|healthz|proxy", lab.logs(node)), node


def test_a_stranger_is_not_believed_who_he_says_he_is(lab: ComposedLab) -> None:
    """A client's own header, sent through the balancer, is a command that the node does not know."""
    client = node_lab.Pop3Client(lab.port("pop3"))
    with pytest.raises(poplib.error_proto, match="-ERR"):
        client._shortcmd("PROXY TCP4 192.0.2.99 192.0.2.1 1234 110")
    client.quit()
    assert not any("peer=192.0.2.99" in lab.logs(node) for node in NODES)
