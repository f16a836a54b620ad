"""
Several node processes on one host: the parent that starts them, restarts those that die, and stops them together.

Knows       processes and signals. The parent opens no port and touches no mail.
"""

import os
import signal
import subprocess
import sys
from types import FrameType

from node import journal

RESTART_SECONDS = 1.0  # A worker that dies at once is not started faster than this.


def run(config_path: str, count: int) -> int:
    """Run the workers until SIGTERM or SIGINT; return the exit status: EX_CONFIG where a worker refused."""
    stopping = False
    refusal = 0

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for child in children.values():
            child.terminate()

    def start(worker: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-m", "node.cli", "node", "--config", config_path, "--worker", str(worker)]
        )

    children: dict[int, subprocess.Popen[bytes]] = {}
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for worker in range(1, count + 1):
        children[worker] = start(worker)
    while children:
        for worker, child in list(children.items()):
            try:
                status = child.wait(timeout=RESTART_SECONDS / count)
            except subprocess.TimeoutExpired:
                continue
            del children[worker]
            if not stopping and status == os.EX_CONFIG:
                # It refused its configuration: so will the others, and for ever.
                refusal = status
                stop(signal.SIGTERM, None)
            elif not stopping:
                journal.warning("worker_died", worker=worker, status=status)
                children[worker] = start(worker)
    return refusal
