"""
The command lines of the engine: `docker`, and `docker-compose` or `docker compose`, whichever is there.

Fails with  Unready, whose text has the command and what it said.
Knows       words, exit statuses and time limits. Nothing of what is in the containers.
"""

import json
import os
import select
import shutil
import subprocess
from typing import IO, cast

from node.drill.place import Unready

COMMAND_SECONDS_MAX = 90.0  # Above the drain of a node that is stopped, 30 s.


class Inside:
    """The process inside the lab that answers questions (inside.py)."""

    def __init__(self, container: str, nodes: tuple[str, ...]) -> None:
        command = ["docker", "exec", "--interactive", container, "python3", "-m", "node.drill.inside", *nodes]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 (docker)

    def ask(self, word: str, *arguments: object) -> object:
        """Ask; return the answer. :raises Unready: it failed, or there is none in time."""
        questions, answers = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        try:
            questions.write(json.dumps([word, *arguments]).encode() + b"\n")
            questions.flush()
            # One question at a time and one line for each: nothing can be left in the reader's own buffer.
            ready, _, _ = select.select([answers], [], [], COMMAND_SECONDS_MAX)
            line = answers.readline() if ready else b""
        except OSError as error:
            raise Unready(f"the lab's inside is gone: {error}") from error
        if not line:
            raise Unready(f"the lab's inside has no answer to {word!r}; its exit status is {self._process.poll()}")
        outcome, value = json.loads(line)
        if outcome != "ok":
            raise Unready(value)
        return cast("object", value)

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.kill()
        self._process.wait()


def compose_command() -> list[str]:
    """Return the words that call Compose here, version 1 or 2. :raises Unready: there is none."""
    for command in (["docker-compose"], ["docker", "compose"]):
        if shutil.which(command[0]):
            try:
                run([*command, "version"], COMMAND_SECONDS_MAX)
            except Unready:
                continue
            return command
    raise Unready("no Compose here: install Docker and docker-compose (or the plugin `docker compose`)")


def docker(*words: str) -> str:
    """Run a command of Docker; return what it printed. :raises Unready: with what it said."""
    return run(["docker", *words], COMMAND_SECONDS_MAX)


def run(command: list[str], seconds: float, environment: dict[str, str] | None = None) -> str:
    """Run a command; return what it printed. :raises Unready: with what it said."""
    try:
        done = subprocess.run(  # noqa: S603 (docker and docker-compose, with words of this file)
            command, env=os.environ | (environment or {}), capture_output=True, check=False, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unready(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
        raise Unready(f"{' '.join(command)}: status {done.returncode}: {said[-2000:]}")
    return done.stdout.decode(errors="replace")
