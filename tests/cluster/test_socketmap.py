"""Postfix's own look-up client asks live nodes: who exists, and "try later" where nobody can tell."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from running import running
from scene import Scene

from node.lab import DOMAIN, Lab, LabNode, free_port, wait_until

pytestmark = pytest.mark.cluster

EX_OK, EX_NOT_FOUND = 0, 1


class AskedLab(Lab):
    """A lab whose nodes each answer Postfix; ``socketmap_ports`` by the node's name."""

    def configure(self, node: LabNode, **changes: object) -> None:
        port = self.__dict__.setdefault("socketmap_ports", {}).setdefault(node.name, free_port())
        super().configure(node, socketmap={"listen": [f"127.0.0.1:{port}"]}, **changes)


@frozen(kw_only=True)
class Told:
    """What ``postmap -q`` said."""

    status: int
    value: str
    warnings: str

    @property
    def temporary(self) -> bool:
        return (
            self.status == EX_NOT_FOUND and "temporary error: mail store unavailable, try again later" in self.warnings
        )

    @property
    def missing(self) -> bool:
        return (self.status, self.value, self.warnings) == (EX_NOT_FOUND, "", "")


@pytest.fixture(scope="module")
def postmap(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Postfix's look-up client, which Debian keeps in /usr/sbin."""
    path = shutil.which("postmap", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        reason = "postmap is not installed; .ci/run installs Debian's package postfix"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with running(AskedLab(tmp_path_factory.mktemp("lab"), nodes=2)) as made:
        yield made


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of Postfix with nothing in it."""
    directory = tmp_path_factory.mktemp("postfix")
    (directory / "main.cf").write_text("compatibility_level = 3.6\n")
    return directory


class Asker:
    """Asks a node as Postfix does."""

    def __init__(self, postmap: str, settings: Path, scene: Scene) -> None:
        self._postmap, self._settings, self._scene = postmap, settings, scene

    def __call__(self, number: int, table: str, key: str) -> Told:
        port = self._scene.lab.socketmap_ports[self._scene.node(number).name]
        done = subprocess.run(
            [self._postmap, "-c", self._settings, "-q", key, f"socketmap:inet:127.0.0.1:{port}:{table}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Told(status=done.returncode, value=done.stdout.strip(), warnings=done.stderr)


@pytest.fixture
def ask(postmap: str, settings: Path, scene: Scene) -> Asker:
    return Asker(postmap, settings, scene)


@contextlib.contextmanager
def unmounted(scene: Scene) -> Iterator[None]:
    """An empty directory shows where the share was."""
    os.rename(scene.lab.store, f"{scene.lab.store}.away")
    os.mkdir(scene.lab.store)
    try:
        yield
    finally:
        os.rmdir(scene.lab.store)
        os.rename(f"{scene.lab.store}.away", scene.lab.store)


def test_postfix_finds_domains_mailboxes_and_aliases(ask: Asker):
    assert ask(1, "domains", DOMAIN) == Told(status=EX_OK, value=DOMAIN, warnings="")
    assert ask(2, "mailboxes", f"ada@{DOMAIN}").value == f"ada@{DOMAIN}"
    assert ask(1, "mailboxes", f"Postmaster@{DOMAIN.upper()}").status == EX_OK
    assert ask(1, "domains", "unknown.example").missing
    assert ask(1, "domains", f"sub.{DOMAIN}").missing
    assert ask(2, "mailboxes", f"nobody@{DOMAIN}").missing
    assert ask(2, "mailboxes", f"@{DOMAIN}").missing


def test_a_wrong_name_of_a_map_is_told(ask: Asker):
    told = ask(1, "users", f"ada@{DOMAIN}")
    assert told.status == EX_NOT_FOUND
    assert "permanent error: no such map; there are: domains, mailboxes" in told.warnings


@pytest.mark.invariant("I8")
def test_what_is_made_at_one_node_is_found_at_the_other(ask: Asker, scene: Scene):
    scene.lab.admin().add_domain("new.example")
    scene.mailbox("eve", "new.example")
    for number in (1, 2):
        wait_until(lambda n=number: ask(n, "domains", "new.example").status == EX_OK, f"node{number} never learned it")
        assert ask(number, "mailboxes", "eve@new.example").status == EX_OK


def test_locked_ones_receive(ask: Asker, scene: Scene):
    mailbox = scene.mailbox("locked")
    scene.lab.admin().set_lock(mailbox, locked=True)
    assert ask(1, "mailboxes", mailbox).status == EX_OK


@pytest.mark.invariant("I9")
def test_without_the_store_nobody_is_denied(ask: Asker, scene: Scene):
    assert ask(1, "mailboxes", f"nobody@{DOMAIN}").missing
    with unmounted(scene):
        for number in (1, 2):
            # At once, long before the nodes look at the marker by themselves.
            assert ask(number, "mailboxes", f"ada@{DOMAIN}").temporary
            assert ask(number, "mailboxes", f"nobody@{DOMAIN}").temporary
            scene.wait_for_trouble(scene.node(number), "store", "has no marker")
            assert ask(number, "mailboxes", f"nobody@{DOMAIN}").temporary
            assert ask(number, "domains", DOMAIN).status == EX_OK
    scene.lab.wait_until_ready()
    assert ask(1, "mailboxes", f"ada@{DOMAIN}").status == EX_OK


def test_a_stopped_node_is_no_reason_to_deny(ask: Asker, scene: Scene):
    second = scene.node(2)
    second.process.terminate()
    assert second.wait() == 0
    told = ask(2, "mailboxes", f"ada@{DOMAIN}")
    assert (told.status, told.value) == (EX_NOT_FOUND, "")
    assert "Connection refused" in told.warnings
    second.start()
    scene.lab.wait_until_ready()
    assert ask(2, "mailboxes", f"ada@{DOMAIN}").status == EX_OK
