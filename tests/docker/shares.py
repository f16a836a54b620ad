"""
Users of an NFS and of an SMB share, without a kernel's client: libnfs and smbclient. Both can do the same, so one test serves both.

Fails with  Refused, with what the client program said.
"""

import ctypes
import ctypes.util
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

from attrs import frozen

COMMAND_SECONDS_MAX = 60
NODE_ACCOUNT = 10001
NFS_VERSION = 4  # libnfs speaks 4.0; a kernel that mounts the share, 4.1.


class Refused(Exception):
    """The server said no."""


class ShareUser(Protocol):
    def names(self) -> set[str]: ...
    def write(self, name: str, content: bytes) -> None: ...
    def read(self, name: str) -> bytes: ...
    def rename(self, name: str, new: str) -> None: ...
    def remove(self, name: str) -> None: ...


def run(words: list[str], **options: object) -> bytes:
    done = subprocess.run(words, capture_output=True, check=False, timeout=COMMAND_SECONDS_MAX, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise Refused((done.stdout + done.stderr).decode(errors="replace"))
    return bytes(done.stdout)


@frozen(kw_only=True)
class NfsUser:
    """Who says he is ``uid``. ``words`` run his programs elsewhere, ``account`` is the one he really has here."""

    address: str
    uid: int = NODE_ACCOUNT
    gid: int = NODE_ACCOUNT
    words: tuple[str, ...] = ()
    account: int = 0

    def names(self) -> set[str]:
        return {line.split()[-1] for line in self._run("nfs-ls", self._url()).decode().splitlines()}

    def write(self, name: str, content: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            os.chmod(file.name, 0o644)  # The account may be another.
            self._run("nfs-cp", file.name, self._url(name))

    def read(self, name: str) -> bytes:
        return self._run("nfs-cat", self._url(name))

    def rename(self, name: str, new: str) -> None:
        self._call("nfs_rename", f"/{name}", f"/{new}")

    def remove(self, name: str) -> None:
        self._call("nfs_unlink", f"/{name}")

    def _url(self, name: str = "") -> str:
        return f"nfs://{self.address}/mailroot/{name}?version={NFS_VERSION}&uid={self.uid}&gid={self.gid}"

    def _run(self, *words: str) -> bytes:
        return run([*self.words, *words], user=self.account, group=self.account, extra_groups=[])

    def _call(self, function: str, *paths: str) -> None:
        """Call a function of libnfs: Debian's programs can list, copy and show, no more."""
        library = ctypes.CDLL(ctypes.util.find_library("nfs"))
        library.nfs_init_context.restype = ctypes.c_void_p
        library.nfs_get_error.restype = ctypes.c_char_p
        nfs = ctypes.c_void_p(library.nfs_init_context())
        try:
            library.nfs_set_version(nfs, NFS_VERSION)
            library.nfs_set_uid(nfs, self.uid)
            library.nfs_set_gid(nfs, self.gid)
            if (
                library.nfs_mount(nfs, self.address.encode(), b"/mailroot")
                or getattr(library, function)(nfs, *(path.encode() for path in paths))
            ):  # fmt: skip
                raise Refused(library.nfs_get_error(nfs).decode())
        finally:
            library.nfs_destroy_context(nfs)


@frozen(kw_only=True)
class SmbUser:
    """Who logs in with a password; ``options`` are smbclient's."""

    address: str
    password: str
    user: str = "mailroot"
    options: tuple[str, ...] = ()

    def names(self) -> set[str]:
        lines = self.do("ls").decode().splitlines()
        return {line.split()[0] for line in lines if line.startswith("  ")} - {".", ".."}

    def write(self, name: str, content: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self.do(f"put {file.name} {name}")

    def read(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as directory:
            self.do(f"get {name} {directory}/content")
            return (Path(directory) / "content").read_bytes()

    def rename(self, name: str, new: str) -> None:
        self.do(f"rename {name} {new}")

    def remove(self, name: str) -> None:
        self.do(f"del {name}")

    def do(self, command: str, typed: str = "") -> bytes:
        """Run smbclient with one command, or with what somebody types."""
        words = ["smbclient", f"//{self.address}/mailroot", "--user", self.user, *self.options]
        words += ["--command", command] if command else []
        return run(
            words, input=typed.encode(), env=os.environ | {"PASSWD": self.password}
        )  # Not in the list of processes.
