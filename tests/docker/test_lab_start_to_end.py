"""From nothing to nothing, with each version of Compose that can be had."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from lab import ComposedLab, compose_command, docker

from node.lab import login

pytestmark = pytest.mark.docker

# Debian 13's package of Compose 2, for a machine that has version 1 alone: one program, which runs anywhere.
PACKAGE = """
FROM debian:trixie-slim
RUN apt-get update && apt-get download docker-compose && dpkg-deb -x docker-compose_*.deb / && rm -rf *.deb /var/lib/apt/lists/*
"""
PROGRAM = "/usr/libexec/docker/cli-plugins/docker-compose"


def version_of(words: tuple[str, ...]) -> str:
    if not shutil.which(words[0]):
        return ""
    done = subprocess.run([*words, "version", "--short"], capture_output=True, text=True, check=False)
    return done.stdout.strip().removeprefix("v") if done.returncode == 0 else ""


def compose_of_debian_13(directory: Path) -> tuple[str, ...]:
    image = "mailroot-test-compose2"
    built = subprocess.run(
        ["docker", "build", "--quiet", "--tag", image, "-"], input=PACKAGE, text=True, capture_output=True, check=False
    )
    if built.returncode:
        return ()
    container = docker("create", image).strip()
    try:
        docker("cp", f"{container}:{PROGRAM}", str(directory / "docker-compose"))
    finally:
        docker("rm", container)
    return (str(directory / "docker-compose"),)


@pytest.fixture(params=["1", "2"])
def command(request: pytest.FixtureRequest, engine: None, tmp_path: Path) -> tuple[str, ...]:
    for words in (("docker-compose",), ("docker", "compose")):
        if version_of(words).startswith(f"{request.param}."):
            return words
    found = compose_of_debian_13(tmp_path) if request.param == "2" else ()
    if not version_of(found or ("",)).startswith(f"{request.param}."):
        pytest.skip(f"no Compose {request.param} here: this machine has {compose_command()}")
    return found


def test_the_lab_comes_up_from_nothing_and_leaves_nothing(command: tuple[str, ...]) -> None:
    lab = ComposedLab(f"mailroot-test-whole-{os.getpid()}", command=command)
    try:
        lab.compose("build")  # What a program has to say while it is installed is no warning of Compose.
        said = lab.up()
        assert "WARN" not in said.upper()
        assert f"127.0.0.1:{lab.port('pop3')}" in lab.logs("setup")
        lab.wait_until_placed_on("node1", "node2", "node3")
        client = login(lab.port("pop3"), "ada@example.com", "lovelace")
        assert client.stat()[0] == 3
        client.quit()
        docker("kill", lab.container("node2"))
        lab.wait_until_placed_on("node1", "node3")
        lab.compose("start", "node2")
        lab.wait_until_placed_on("node1", "node2", "node3")
        kinds = {line.partition(" ")[0] for line in lab.left()}
        assert kinds == {"container", "network", "volume"}
    finally:
        lab.down(look=False)
    assert lab.left() == []
