"""A node that must not start says why in one sentence, and what to do; `mailroot store init` makes what it needs."""

import json
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import mailroot

from node.lab import Lab, LabNode, wait_until

pytestmark = pytest.mark.cluster


def prepared(directory: Path) -> Lab:
    """A lab that was never started: a store, and a configuration for one node. Nobody listens at its ledger's port."""
    made = Lab(directory, nodes=1)
    made.store.mkdir()
    made.configure(made.nodes[0])
    assert mailroot("store", "init", config=made.config_path).returncode == 0
    return made


@pytest.fixture(scope="module", autouse=True)
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, LabNode, Lab]]:
    """Two labs in which somebody has to wait for a lease to lapse, while the quick tests go on."""
    of_twins, of_one = (prepared(tmp_path_factory.mktemp(name)) for name in ("twins", "alone"))
    for lab in (of_twins, of_one):
        lab.start_ledger()
        lab.nodes[0].start()
    for lab in (of_twins, of_one):
        lab.wait_until_ready()
    of_one.nodes[0].kill()
    of_one.nodes[0].start()
    twin = of_twins._node(2, fixed_ports=False)
    twin.name = of_twins.nodes[0].name
    of_twins.configure(twin, pop3={"listen": [f"127.0.0.1:{twin.ports.pop3}"]})
    twin.start()
    wait_until(lambda: "a live node is named node1 already" in twin.readiness(), "the twin did not notice")
    yield of_twins, twin, of_one
    for lab in (of_twins, of_one):
        lab.stop()
    twin.kill()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = prepared(tmp_path)
    yield made
    made.stop()


def start(lab: Lab) -> tuple[int, str]:
    """Start its node, which must refuse; return the exit code and what it said."""
    refused = mailroot("node", config=lab.config_path)
    return refused.returncode, refused.stderr.decode()


def mark(lab: Lab, **changes: object) -> None:
    path = lab.store / ".mailroot"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def another_guid(lab: Lab) -> None:
    lab.configure(lab.nodes[0], guid=str(uuid.uuid4()))


def no_marker(lab: Lab) -> None:
    (lab.store / ".mailroot").unlink()


def no_directory(lab: Lab) -> None:
    lab.configure(lab.nodes[0], mail_store=str(lab.store / "not-there"))


def another_layout(lab: Lab) -> None:
    mark(lab, layout=2)


def damaged_marker(lab: Lab) -> None:
    (lab.store / ".mailroot").write_text("{")


def another_method(lab: Lab) -> None:
    mark(lab, method="active_directory")


def no_redis_url(lab: Lab) -> None:
    lab.configure(lab.nodes[0], redis="http://127.0.0.1/")


def several_mistakes(lab: Lab) -> None:
    lab.configure(lab.nodes[0], workers=0, lmtp={"listen": ["nowhere"]})


def no_configuration(lab: Lab) -> None:
    lab.config_path.unlink()


@pytest.mark.invariant("I9")
@pytest.mark.parametrize(
    ("spoil", "sentences"),
    [
        (another_guid, ("the GUID of this node is not the one of the mail store", "copy guid (or the file guid_file)")),
        (no_marker, ("has no marker (.mailroot): the share is not mounted there", "mailroot store init")),
        (no_directory, ("has no marker (.mailroot)",)),
        (another_layout, ("has layout 2; this release knows layout 1",)),
        (damaged_marker, ("is damaged", "Restore it from a backup")),
        (another_method, ("auth.method is encrypted_file, but the mail store", "was made for active_directory")),
        (no_redis_url, ("node1.yaml:4: redis needs a URL like redis://127.0.0.1:6379/0",)),
        (several_mistakes, ("node1.yaml:11: lmtp.listen 'nowhere'", "node1.yaml:22: workers needs a whole number")),
        (no_configuration, ("No such file or directory", "--config FILE or MAILROOT_CONFIG")),
    ],
)
def test_a_node_refuses_what_it_can_not_serve(lab: Lab, spoil: Callable[[Lab], None], sentences: tuple[str, ...]):
    spoil(lab)
    code, said = start(lab)
    assert code == 78, said
    assert all(sentence in said for sentence in sentences), said
    assert "Traceback" not in said
    assert str(lab.guid) not in said


@pytest.mark.parametrize("which", ["pop3", "lmtp", "smtp", "http"])
def test_a_port_that_is_taken(lab: Lab, which: str):
    port = getattr(lab.nodes[0].ports, which)
    with socket.create_server(("127.0.0.1", port)):
        code, said = start(lab)
    assert code == 78, said
    assert f"{which}.listen: can't listen at 127.0.0.1:{port}: Address already in use" in said
    assert "Traceback" not in said


def test_a_store_that_can_not_be_written(lab: Lab):
    command = [sys.executable, "-m", "node.cli", "node", "--config", str(lab.config_path)]
    if os.geteuid() == 0:
        # Root without the capability that lets it write anywhere.
        command = ["setpriv", "--bounding-set=-dac_override", *command]
        if shutil.which("setpriv") is None:
            pytest.skip("root can write anywhere, and there is no setpriv (util-linux) to take that away")
    lab.store.chmod(0o555)
    refused = subprocess.run(command, capture_output=True, check=False, timeout=40)
    lab.store.chmod(0o755)
    assert b"can't be written by user id" in refused.stderr
    assert b"Give the nodes' account write access" in refused.stderr
    assert b"Traceback" not in refused.stderr
    assert refused.returncode == 78


def test_a_store_is_made_once(lab: Lab):
    marker = (lab.store / ".mailroot").read_bytes()
    again = mailroot("store", "init", config=lab.config_path)
    assert again.returncode == 1
    assert b"has a marker already" in again.stderr
    assert (lab.store / ".mailroot").read_bytes() == marker
    assert str(lab.guid).encode() not in marker
    no_marker(lab)
    (lab.store / "letters").mkdir()
    strange = mailroot("store", "init", config=lab.config_path)
    assert strange.returncode == 78
    assert b"'letters', which is no domain directory" in strange.stderr


def test_a_node_starts_without_a_ledger_and_says_so(lab: Lab):
    node = lab.nodes[0]
    node.start()
    wait_until(lambda: "does not answer" in node.readiness(), node.readiness())
    assert '"ready": false' in node.readiness()
    lab.start_ledger()
    lab.wait_until_ready()


def test_two_nodes_of_one_name(slow: tuple[Lab, LabNode, Lab]):
    lab, twin, _ = slow
    assert twin.wait() == 78
    said = twin.log_path.read_text()
    assert "a live node is named node1 already; give each node of the store its own name (node:)" in said
    assert "Traceback" not in said
    assert not lab.nodes[0].readiness(), "the first of the name was disturbed"


def test_a_node_that_was_killed_alone_gets_its_name_back(slow: tuple[Lab, LabNode, Lab]):
    """Nobody else could see that it died: its name is free when its lease lapses."""
    *_, alone = slow
    alone.wait_until_ready()
    assert "a live node is named node1" not in alone.nodes[0].log_path.read_text(), "it gave up once"
