"""
The NAS containers of the overlays: the nodes' account reads and writes, strangers do not.

With clients that need no kernel, so wherever there is an engine. Where the kernel has no client of its own, the overlay refuses.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from lab import ComposedLab, docker
from shares import NODE_ACCOUNT, NfsUser, Refused, ShareUser, SmbUser
from support import wait_until

pytestmark = pytest.mark.docker

NOBODY = 65534
PASSWORD = secrets.token_hex(16)
CONTENT = b"Subject: Over the wire\r\n\r\n" + bytes(range(256)) * 8  # nfs-cp of libnfs 4.0 fails above some 3 KB.
FILESYSTEMS = {"nfs": "nfs4", "smb": "cifs"}


def composed(kind: str, purpose: str, *services: str) -> ComposedLab:
    """A lab with one overlay, in a network of its own: the default may be in use by a lab that somebody runs here."""
    net = f"198.18.{os.getpid() % 64 * 4 + (kind == 'smb') * 2 + (purpose == 'refused')}"
    return ComposedLab(
        f"mailroot-test-{purpose}-{kind}-{os.getpid()}",
        files=(f"deploy/compose.{kind}.yml",),
        services=services,
        environment={"MAILROOT_NAS_NET": net, "MAILROOT_SMB_PASSWORD": PASSWORD},
    )


@frozen(kw_only=True)
class Nas:
    kind: str
    lab: ComposedLab

    @property
    def address(self) -> str:
        return f"{self.lab.environment['MAILROOT_NAS_NET']}.2"

    @property
    def node(self) -> ShareUser:
        """The nodes' account, as it comes from this machine's kernel: with a port that only root can open."""
        if self.kind == "nfs":
            return NfsUser(address=self.address)
        return SmbUser(address=self.address, password=PASSWORD)

    def inside(self, *words: str, user: int = NODE_ACCOUNT) -> str:
        return docker("exec", "--user", str(user), self.lab.container("nas"), *words).strip()

    def wait_until_healthy(self) -> None:
        wait_until(
            lambda: self.lab.inspect("nas")["State"]["Health"]["Status"] == "healthy",
            or_fail=f"the NAS never became healthy:\n{self.lab.logs('nas')}",
            seconds=60,
        )


@pytest.fixture(scope="module", params=["nfs", "smb"])
def nas(request: pytest.FixtureRequest, engine: None) -> Iterator[Nas]:
    program, package = {"nfs": ("nfs-ls", "libnfs-utils"), "smb": ("smbclient", "smbclient")}[request.param]
    missing = "" if shutil.which(program) else f"no {program} here: install {package}"
    if request.param == "nfs" and os.geteuid():
        missing = "an NFS client comes from a port below 1024: this needs root"
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    with composed(request.param, "nas", "--no-deps", "nas") as lab:
        made = Nas(kind=request.param, lab=lab)
        made.wait_until_healthy()
        made.node.write("kept.eml", CONTENT)
        yield made


over_nfs = pytest.mark.parametrize("nas", ["nfs"], indirect=True, scope="module")
over_smb = pytest.mark.parametrize("nas", ["smb"], indirect=True, scope="module")


# The nodes' account


def test_the_node_account_writes_reads_renames_and_removes(nas: Nas) -> None:
    nas.node.write("draft", CONTENT)
    assert nas.node.read("draft") == CONTENT
    nas.node.rename("draft", "message.eml")
    assert nas.node.names() == {"kept.eml", "message.eml"}
    assert nas.node.read("message.eml") == CONTENT
    nas.node.remove("message.eml")
    assert nas.node.names() == {"kept.eml"}


def test_what_is_written_is_the_accounts_and_closed_to_others(nas: Nas) -> None:
    assert nas.inside("stat", "--format", "%u %g %a", "/srv/nas/store") == f"{NODE_ACCOUNT} {NODE_ACCOUNT} 700"
    owner, group, mode = nas.inside("stat", "--format", "%u %g %a", "/srv/nas/store/kept.eml").split()
    assert (int(owner), int(group)) == (NODE_ACCOUNT, NODE_ACCOUNT)
    assert int(mode, 8) & 0o007 == 0
    assert nas.kind == "nfs" or mode == "600"  # On NFS the client gives the mode, on SMB the server does.


def test_what_is_written_survives_the_nas(nas: Nas) -> None:
    nas.node.write("acknowledged.eml", CONTENT)
    docker("restart", nas.lab.container("nas"))
    nas.wait_until_healthy()

    def read() -> bool:
        try:
            return nas.node.read("acknowledged.eml") == CONTENT
        except Refused as error:
            if "GRACE" in str(error):  # For 12 s an NFS server lets those in who were there before.
                return False
            raise

    wait_until(read, or_fail="the NAS never gave the message back", seconds=60)
    nas.node.remove("acknowledged.eml")


# Strangers


def refuses(stranger: ShareUser, reason: str) -> None:
    """Neither list, nor read, nor write; and not for any other reason than that he is one."""
    with pytest.raises(Refused, match=reason):
        stranger.names()
    with pytest.raises(Refused, match=reason):
        stranger.read("kept.eml")
    with pytest.raises(Refused, match=reason):
        stranger.write("stranger.eml", b"from a stranger")


def untouched(nas: Nas) -> bool:
    return nas.node.names() == {"kept.eml"} and nas.node.read("kept.eml") == CONTENT


@over_nfs
@pytest.mark.parametrize(("uid", "gid"), [(10002, 10002), (10002, NODE_ACCOUNT), (NOBODY, NOBODY), (0, 0)])
def test_another_account_of_this_machine_is_refused_root_too(nas: Nas, uid: int, gid: int) -> None:
    stranger = NfsUser(address=nas.address, uid=uid, gid=gid)
    refuses(stranger, "NFS4ERR_ACCESS")
    with pytest.raises(Refused, match="NFS4ERR_ACCESS"):
        stranger.rename("kept.eml", "taken.eml")
    with pytest.raises(Refused, match="NFS4ERR_ACCESS"):
        stranger.remove("kept.eml")
    assert untouched(nas)


@over_nfs
def test_who_is_not_root_here_may_say_what_he_wants(nas: Nas) -> None:
    """Any program can claim to be the nodes' account; only root can do it from a port below 1024, as the kernel does."""
    refuses(NfsUser(address=nas.address, account=NOBODY), "NFS4ERR_NOENT")  # For him there is no such share.
    assert untouched(nas)


@over_nfs
def test_another_address_is_refused(nas: Nas) -> None:
    network = f"{nas.lab.project}_nas"
    container = docker("run", "--detach", "--rm", "--network", network, "debian:trixie-slim", "sleep", "600").strip()
    try:
        process = docker("inspect", "--format", "{{.State.Pid}}", container).strip()
        there = ("nsenter", "--net", "--target", process, "--")
        refuses(NfsUser(address=nas.address, words=there), "NFS4ERR_NOENT")
    finally:
        docker("rm", "--force", container)
    assert untouched(nas)


@over_smb
@pytest.mark.parametrize(
    ("user", "password", "options", "reason"),
    [
        ("mailroot", "wrong", (), "LOGON_FAILURE"),
        ("mailroot", "", ("--no-pass",), "LOGON_FAILURE|ACCESS_DENIED"),
        ("root", "right", (), "LOGON_FAILURE"),
        ("guest", "", ("--no-pass",), "LOGON_FAILURE|ACCESS_DENIED"),
        ("%", "", ("--no-pass",), "ACCESS_DENIED"),  # Anonymous.
        ("mailroot", "right", ("--max-protocol", "SMB2"), "protocol negotiation failed"),
        ("mailroot", "right", ("--max-protocol", "SMB3_02"), "protocol negotiation failed"),
    ],
)
def test_who_has_no_password_or_an_older_protocol_is_refused(
    nas: Nas, user: str, password: str, options: tuple[str, ...], reason: str
) -> None:
    given = PASSWORD if password == "right" else password
    refuses(SmbUser(address=nas.address, user=user, password=given, options=options), reason)
    assert untouched(nas)


@over_smb
def test_the_wire_is_encrypted_though_the_client_asked_for_clear(nas: Nas) -> None:
    """The server tells, while the client is there: a line that begins with ! is a command of this machine."""
    user = SmbUser(address=nas.address, password=PASSWORD, options=("--option", "client smb encrypt=off"))
    said = user.do("", f"!docker exec {nas.lab.container('nas')} smbstatus --processes\n").decode()
    assert re.search(r"\bSMB3_11\s+AES-", said), said


# The container


@over_smb
@pytest.mark.invariant("I10")
def test_the_password_is_in_no_list_of_processes_and_in_no_log(nas: Nas) -> None:
    assert "smbd" in docker("top", nas.lab.container("nas"), "-eo", "pid,args")
    assert PASSWORD not in docker("top", nas.lab.container("nas"), "-eo", "pid,args")
    assert PASSWORD not in nas.lab.logs("nas")


def test_the_container_can_not_touch_the_machine(nas: Nas) -> None:
    known = nas.lab.inspect("nas")["HostConfig"]
    assert not known["Privileged"]
    assert not known["PortBindings"]
    assert known["ReadonlyRootfs"]
    assert known["Memory"] > 0
    assert known["PidsLimit"] > 0
    tries = "for try in 'mount -t tmpfs none /mnt' 'unshare --user true' 'unshare --mount true' 'touch /x'; do $try 2>/dev/null && echo $try; done; true"
    assert nas.inside("sh", "-c", tries, user=0) == ""
    held = int(re.findall(r"^CapBnd:\s+(\w+)", nas.inside("cat", "/proc/1/status", user=0), re.MULTILINE)[0], 16)
    assert held.bit_count() <= 5


# A kernel without a client


@pytest.mark.parametrize("kind", ["nfs", "smb"])
def test_a_kernel_without_the_client_is_told_before_anything_starts(engine: None, kind: str) -> None:
    if re.search(rf"\b{FILESYSTEMS[kind]}\b", Path("/proc/filesystems").read_text()):
        pytest.skip("this machine's kernel has the client")
    lab = composed(kind, "refused")
    try:
        with pytest.raises(AssertionError, match=r"status \d"):
            lab.up()
        said = lab.logs("kernel-check")
        assert f"{FILESYSTEMS[kind]} is not loaded in this machine's kernel" in said
        assert "sudo modprobe" in said
        label = f"label=com.docker.compose.project={lab.project}"
        format_ = '{{.State}} {{.Label "com.docker.compose.service"}}'
        containers = docker("ps", "--all", "--filter", label, "--format", format_).splitlines()
        assert [line for line in containers if not line.startswith("created ")] == ["exited kernel-check"]
    finally:
        lab.down(look=False)
    assert lab.left() == []
