"""The three command lines as subprocesses, with a limit."""

import subprocess
import sys
from pathlib import Path

COMMAND_SECONDS_MAX = 40.0


def mailroot(*words: str, config: Path | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return _run("node.cli", words, config, stdin)


def winpop(*words: str, config: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return _run("node.winpop", words, config, stdin)


def _run(module: str, words: tuple[str, ...], config: Path | None, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", module, *words, *(["--config", str(config)] if config else [])]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=COMMAND_SECONDS_MAX)
