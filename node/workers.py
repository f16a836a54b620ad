"""
Several node processes on one host: the parent that starts them, restarts those that die, and stops them together.

Knows       processes and signals. The parent opens no port and touches no mail.
"""

import signal
import subprocess
import sys
import time
from types import FrameType

from node import journal

RESTART_SECONDS = 1.0  # A worker that dies at once is not started faster than this.


def run(config_path: str, count: int) -> int:
    """Run the workers until SIGTERM or SIGINT; return the exit status: that of the first worker that refused to start."""
    stopping = False

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
    started = time.monotonic()
    for worker in range(1, count + 1):
        children[worker] = start(worker)
    while children:
        for worker, child in list(children.items()):
            try:
                status = child.wait(timeout=RESTART_SECONDS / count)
            except subprocess.TimeoutExpired:
                continue
            del children[worker]
            if not stopping and status > 0 and time.monotonic() - started < RESTART_SECONDS:
                stop(signal.SIGTERM, None)  # It refused its configuration: so will the others, and for ever.
                return status
            if not stopping:
                journal.warning("worker_died", worker=worker, status=status)
                children[worker] = start(worker)
    return 0
