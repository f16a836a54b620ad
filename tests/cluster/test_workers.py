"""Several processes of one node: each is a node of its own, and one that dies is started again."""

import os
import signal
from pathlib import Path

import pytest
from commands import mailroot
from journals import judge_logs
from scene import Scene

from node.lab import Lab, wait_until

pytestmark = pytest.mark.cluster


def test_a_worker_that_dies_is_started_again(tmp_path: Path):
    lab = Lab(tmp_path, nodes=1)
    node = lab.nodes[0]
    lab.store.mkdir()
    lab.configure(node, workers=2, http={"listen": []})
    assert mailroot("store", "init", config=lab.config_path).returncode == 0
    lab.start_ledger()
    node.start()

    admin = lab.admin()

    def workers() -> dict[str, int]:
        return {node.node: int(node.facts["pid"]) for node in admin.nodes() if node.alive}

    try:
        wait_until(lambda: sorted(workers()) == ["node1-1", "node1-2"], node.log_path.read_text())
        scene = Scene(lab, {})
        admin.add_domain("example.com")
        mailbox = scene.mailbox("worker")
        wait_until(lambda: scene.try_to_deliver(node, mailbox)[0] is not None, "no worker heard of the domain")
        wait_until(lambda: scene.refusal(node, mailbox) == "", "no worker let anybody in")
        before = workers()
        os.kill(before["node1-1"], signal.SIGKILL)
        wait_until(lambda: workers().get("node1-1", before["node1-1"]) != before["node1-1"], "it was not started again")
        after = workers()
        assert after["node1-2"] == before["node1-2"]
        assert scene.open(node, mailbox).quit() == "+OK bye"
        node.signal(signal.SIGTERM)
        assert node.wait() == 0
        assert "worker_died worker=1 status=-9" in node.log_path.read_text()
        assert not any(map(is_alive, after.values()))
        judge_logs(scene)
    finally:
        lab.stop()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_worker_that_refuses_its_configuration_ends_them_all(tmp_path: Path):
    lab = Lab(tmp_path, nodes=1)
    lab.store.mkdir()
    lab.configure(lab.nodes[0], workers=2)
    refused = mailroot("node", config=lab.config_path)
    assert refused.returncode == 78
    assert b"has no marker" in refused.stderr
