"""The overlays that put the lab's store on a real share: what Compose makes of them, and who may do what. No engine needed."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PASSWORD = "a-password-of-this-test"
NODES = ("node1", "node2", "node3")
FILESYSTEMS = {"nfs": "nfs4", "smb": "cifs"}


def compose(overlay: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = next((found for found in (["docker-compose"], ["docker", "compose"]) if shutil.which(found[0])), [])
    if command[:1] == ["docker"] and subprocess.run([*command, "version"], capture_output=True, check=False).returncode:
        command = []
    if not command and os.environ.get("CI") == "true":
        pytest.fail("no Compose here: install docker-compose")
    if not command:
        pytest.skip("no Compose here: install docker-compose")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAILROOT_")}
    return subprocess.run(
        [*command, "-f", "docker-compose.yml", "-f", f"deploy/compose.{overlay}.yml", *words],
        cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.fixture(params=["nfs", "smb"])
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def merged(overlay: str) -> dict[str, Any]:
    done = compose(overlay, "config", MAILROOT_SMB_PASSWORD=PASSWORD, MAILROOT_NAS_NET="192.0.2")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def needs(services: dict[str, Any], service: str) -> set[str]:
    """Everything that Compose starts before a service."""
    direct = set(services[service].get("depends_on") or {})
    return direct.union(*(needs(services, other) for other in direct)) if direct else direct


# Compose's view


def test_everything_waits_for_the_look_at_the_kernel(merged: dict[str, Any]) -> None:
    services = merged["services"]
    for name in ("nas", "redis", "setup", *NODES, "balancer"):
        assert "kernel-check" in needs(services, name), name
    for name in ("nas", "redis"):
        assert services[name]["depends_on"]["kernel-check"]["condition"] == "service_completed_successfully"


def test_the_share_is_mounted_when_the_nas_is_there_and_never_to_copy(merged: dict[str, Any], overlay: str) -> None:
    for name in ("setup", *NODES):
        service = merged["services"][name]
        assert service["depends_on"]["nas"]["condition"] == "service_healthy"
        at_the_store = [mount for mount in service["volumes"] if "/srv/mailroot" in str(mount)]
        assert len(at_the_store) == 1
        assert at_the_store[0]["source"] == f"store-{overlay}"
        assert at_the_store[0]["volume"]["nocopy"] is True


def test_the_volume_is_what_is_promised(merged: dict[str, Any], overlay: str) -> None:
    volume = merged["volumes"][f"store-{overlay}"]
    kind, device, promised = {
        "nfs": ("nfs", ":/mailroot", {"addr=192.0.2.2", "vers=4.1", "hard"}),
        "smb": ("cifs", "//192.0.2.2/mailroot", {"addr=192.0.2.2", "vers=3.1.1", "seal", "hard", "mfsymlinks",
                                                  "uid=10001", "gid=10001", "file_mode=0600", "dir_mode=0700"}),
    }[overlay]  # fmt: skip
    options = volume["driver_opts"]
    assert volume["driver"] == "local"
    assert (options["type"], options["device"]) == (kind, device)
    assert promised <= set(options["o"].split(","))
    assert not any(character.isspace() for character in options["o"])


def test_the_nas_may_do_little_and_this_machine_alone_reaches_it(merged: dict[str, Any]) -> None:
    nas = merged["services"]["nas"]
    assert nas["read_only"] is True
    assert nas["cap_drop"] == ["ALL"]
    assert not {"SYS_ADMIN", "DAC_OVERRIDE", "NET_ADMIN", "ALL"} & set(nas["cap_add"])
    assert not nas.get("privileged")
    assert not nas.get("ports")
    assert list(nas["networks"]) == ["nas"]
    assert merged["networks"]["nas"]["internal"] is True
    others = (name for name, service in merged["services"].items() if "nas" in (service.get("networks") or {}))
    assert list(others) == ["nas"]


@pytest.mark.invariant("I10")
def test_without_a_password_compose_says_where_to_find_one(tmp_path: Path) -> None:
    nothing = tmp_path / "env"
    nothing.touch()  # The checkout may have an .env.
    done = compose("smb", "--env-file", str(nothing), "config", "--quiet")
    assert done.returncode != 0
    assert "deploy/compose.smb.yml has the line that makes one" in done.stderr


@pytest.mark.invariant("I10")
def test_no_container_but_the_nas_has_the_password() -> None:
    done = compose("smb", "config", MAILROOT_SMB_PASSWORD=PASSWORD)
    services = yaml.safe_load(done.stdout)["services"]
    assert {name for name, service in services.items() if PASSWORD in str(service)} == {"nas"}


# The look at the kernel


def look(filesystem: str, listed: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    list_of_filesystems = tmp_path / "filesystems"
    list_of_filesystems.write_text(listed)
    command = ["sh", "deploy/nas/kernel-check.sh", filesystem, "module", str(list_of_filesystems)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_kernel_with_the_client_passes(overlay: str, tmp_path: Path) -> None:
    done = look(FILESYSTEMS[overlay], "nodev\tproc\n\text4\nnodev\tnfs\nnodev\tnfs4\nnodev\tcifs\n", tmp_path)
    assert done.returncode == 0
    assert "can mount" in done.stdout


@pytest.mark.parametrize("listed", ["", "nodev\tproc\n\text4\n", "nodev\tnfs\nnodev\tnfsd\nnodev\tsmb3\n"])
def test_a_kernel_without_it_fails_and_is_told_what_to_do(overlay: str, listed: str, tmp_path: Path) -> None:
    done = look(FILESYSTEMS[overlay], listed, tmp_path)
    assert done.returncode == 1
    assert f"{FILESYSTEMS[overlay]} is not loaded in this machine's kernel" in done.stderr
    assert "sudo modprobe module" in done.stderr


# What the NFS server may ask of the kernel


def test_the_profile_of_system_calls_gives_handles_and_withholds_what_changes_the_machine() -> None:
    profile = json.loads((ROOT / "deploy/nas/nfs/seccomp.json").read_text())
    withheld = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}
    assert {rule["action"] for rule in profile["syscalls"]} == {"SCMP_ACT_ERRNO"}
    assert not {"name_to_handle_at", "open_by_handle_at"} & withheld
    assert {"mount", "umount2", "unshare", "setns", "clone3", "ptrace", "bpf", "init_module", "kexec_load"} <= withheld
