"""
The lab of docker-compose.yml for a test: a project of its own on free ports, and nothing left of it afterwards.

Guarantees  down() removes every container, network and volume of the project, and fails the test where one is left.
Knows       Compose 1.29 and 2, through testcontainers' DockerCompose; the Docker command line for what Compose can't do.
"""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Self

from support import wait_until
from testcontainers.compose import DockerCompose

from node.lab import free_port

ROOT = Path(__file__).parents[2]
COMMAND_SECONDS_MAX = 540.0  # The first start builds the node's image.
PORTS = ("pop3", "lmtp", "smtp", "node1", "node2", "node3", "stats", "edge", "prometheus", "grafana")

_built: set[tuple[str, ...]] = set()


@cache
def compose_command() -> tuple[str, ...]:
    """Return the words that call Compose on this machine, or () where there is none."""
    for words in (("docker-compose",), ("docker", "compose")):
        if (
            shutil.which(words[0])
            and not subprocess.run([*words, "version"], capture_output=True, check=False).returncode
        ):
            return words
    return ()


def docker(*words: str, check: bool = True) -> str:
    """Run a Docker command; return what it printed."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS_MAX)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout


class ComposedLab(DockerCompose):
    """One project. ``files`` are overlays below the repository's top; ``services`` limit what is started."""

    def __init__(
        self,
        project: str,
        files: tuple[str, ...] = (),
        profiles: tuple[str, ...] = (),
        services: tuple[str, ...] = (),
        *,
        command: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(context=ROOT, compose_file_name=["docker-compose.yml", *files], profiles=list(profiles))
        self.project = project
        self.wanted = services
        self.command = command or compose_command()
        self._ports = {key: free_port() for key in PORTS}
        self.environment = environment or {}

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException as error:
            error.add_note(self.compose("logs", "--no-color", "--tail", "20"))
            self.down(look=False)
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.down(look=kind is None)

    # How testcontainers runs Compose: its own words are those of version 2 only, and it passes no environment.

    @property
    def compose_command_property(self) -> list[str]:  # type: ignore[override]
        words = [*self.command, "--project-name", self.project]
        for file in self.compose_file_name or ():
            words += ["-f", file]
        for profile in self.profiles or ():
            words += ["--profile", profile]
        return words

    def _run_command(self, cmd: str | list[str], context: str | None = None) -> subprocess.CompletedProcess[bytes]:
        ports = {_variable(key): str(port) for key, port in self._ports.items()}
        done = subprocess.run(
            cmd,
            cwd=context or self.context,
            env=os.environ | ports | self.environment,
            capture_output=True,
            check=False,
            timeout=COMMAND_SECONDS_MAX,
        )
        text = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
        assert done.returncode == 0, f"{cmd}: status {done.returncode}\n{text}"
        return done

    def compose(self, *words: str) -> str:
        """Run a Compose command; return everything that it printed."""
        done = self._run_command([*self.compose_command_property, *words])
        return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")

    def up(self, *services: str) -> str:
        """Start the lab, or what is missing of it; return what Compose said. The first one of a run builds the image."""
        key = (*self.command, *(self.compose_file_name or ()))
        build = () if key in _built else ("--build",)
        said = self.compose("up", "--detach", *build, *(services or self.wanted))
        _built.add(key)
        return said

    def down(self, *, look: bool = True) -> None:
        """Remove everything; with ``look``, fail where something is left."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        assert not look or not self.left(), f"left behind: {self.left()}"

    def left(self) -> list[str]:
        """Return the containers, networks and volumes of the project that exist."""
        label = f"label=com.docker.compose.project={self.project}"
        found = docker("ps", "--all", "--filter", label, "--format", "container {{.Names}}")
        found += docker("network", "ls", "--filter", label, "--format", "network {{.Name}}")
        found += docker("volume", "ls", "--filter", label, "--format", "volume {{.Name}}")
        return found.splitlines()

    # Looking, and touching

    def port(self, key: str) -> int:
        """Return the port on 127.0.0.1 of one of PORTS."""
        return self._ports[key]

    def exec(self, service: str, *words: str) -> str:
        """Run a command in a service's container; return its standard output."""
        return self.exec_in_container(list(words), service)[0]

    def logs(self, service: str) -> str:
        """Return everything that a service's containers wrote."""
        return self.compose("logs", "--no-color", "--no-log-prefix", service)

    def container(self, service: str) -> str:
        """Return the id of a service's container, running or not."""
        labels = (f"label=com.docker.compose.{key}={value}" for key, value in
                  (("project", self.project), ("service", service)))  # fmt: skip
        found = docker("ps", "--all", "--quiet", "--no-trunc", *(f"--filter={label}" for label in labels)).split()
        assert len(found) == 1, f"{service} has {len(found)} containers"
        return found[0]

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of a service's container."""
        found: dict[str, Any] = json.loads(docker("inspect", self.container(service)))[0]
        return found

    def status(self) -> dict[str, Any]:
        """Return `mailroot cluster status --json`, asked in a node that runs."""
        node = next(node for node in ("node1", "node2", "node3") if self.inspect(node)["State"]["Running"])
        words = ["docker", "exec", self.container(node), "mailroot", "cluster", "status", "--json"]
        done = subprocess.run(words, capture_output=True, check=False, timeout=COMMAND_SECONDS_MAX)
        found: dict[str, Any] = json.loads(done.stdout)  # The exit status is 1 where a node is missing.
        return found

    def wait_until_placed_on(self, *nodes: str) -> None:
        """Wait until the balancer places POP3 sessions on exactly these nodes."""

        def is_so() -> bool:
            try:
                rows = placing(self, "pop3_ready")
            except OSError:  # It has been started this instant.
                return False
            return {row["svname"] for row in rows if row["status"] == "UP"} == set(nodes)

        wait_until(is_so, or_fail=f"the balancer never came to place on {nodes}", seconds=60)


def placing(lab: ComposedLab, backend: str) -> list[dict[str, str]]:
    """Return what the balancer's statistics say of each server of a backend."""
    import csv
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{lab.port('stats')}/;csv", timeout=30) as answer:
        rows = csv.DictReader(answer.read().decode().removeprefix("# ").splitlines())
        return [row for row in rows if row["pxname"] == backend and row["svname"].startswith("node")]


def _variable(key: str) -> str:
    return f"MAILROOT_{key.upper()}_{'HTTP_' if key.startswith('node') else ''}PORT"
