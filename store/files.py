"""
Every system call that changes the mail store, and each lie that NFS and SMB tell about them.

Guarantees  a call that returns has happened on the server, as far as the server can be asked.
Fails with  Full, Unavailable. FileNotFoundError, FileExistsError and NotADirectoryError pass as they are:
            to the caller they are answers, not failures.
Knows       paths and descriptors. Nothing of mailboxes.

A listing is the one view that is right at once everywhere: a ``stat`` of a name can be 30 s old on NFS, and a
file renamed over another is never seen on SMB by a host that keeps opening it. So nothing here renames over a
name or rewrites in place, and callers decide on listings. docs/STORAGE.md has the table.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from store.errors import Full, StoreError, Unavailable

FILE_MODE = 0o640  # The nodes' account and its group; kept by NFS, decided by mount options on SMB.
DIRECTORY_MODE = 0o750

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# An answer about a name, not about the share. ESTALE is here for directories that another host removed.
_ANSWERS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


def failure(error: OSError) -> StoreError:
    """Return the StoreError that an operating system's error means."""
    kind = Full if error.errno in _FULL else Unavailable
    name = errno.errorcode.get(error.errno or 0, "no error number")
    return kind(f"{error.strerror} ({name}) at {error.filename or 'the mail store'}")


@contextmanager
def _told() -> Iterator[None]:
    """Turn the errors of a share into ours; let answers about names pass."""
    try:
        yield
    except _ANSWERS:
        raise
    except OSError as error:
        if error.errno == errno.ESTALE:
            # NFS says so of a directory that another host removed: for us it is simply not there.
            raise FileNotFoundError(error.errno, error.strerror, error.filename) from error
        raise failure(error) from error


def list_names(directory: str) -> list[str]:
    """Return the names in a directory, unsorted. The one view of the store that is right at once everywhere."""
    with _told():
        return os.listdir(directory)


def look_again(directory: str) -> None:
    """
    Make the next look at a name in this directory a true one.

    An NFS client may answer "no such name" from memory for 30 s. Opening the directory makes it ask the server.
    """
    with suppress(OSError):
        os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))


def read_whole(path: str) -> bytes:
    """Return the bytes of a small file."""
    with _told():
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)


class Draft:
    """
    A file on its way to its name. The order of effects, which publish() finishes:

    1. every byte is written under a name that no listing shows as mail   a crash here leaves litter
    2. fsync, checked                                                   the bytes are on the server, or we say so
    3. rename to the final name                                         AT THIS INSTANT the file is there, whole (I1)
    4. fsync of the still open file once more                           on SMB a power cut loses the name without it
    5. fsync of the directory, close                                    each checked
    6. return: only now may anyone say 250 (I2)
    """

    def __init__(self, directory: str, name: str) -> None:
        self._directory = directory
        self._path = f"{directory}/{name}"
        self.octets = 0
        with _told():
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)

    def write(self, chunk: bytes) -> None:
        """Append the whole chunk."""
        view = memoryview(chunk)
        with _told():
            while view:
                written = os.write(self._descriptor, view)
                self.octets += written
                view = view[written:]

    def publish(self, final_name: str) -> None:
        """Give the file its final name, durably. The final name must be unique: a rename replaces silently."""
        final = f"{self._directory}/{final_name}"
        with _told():
            os.fsync(self._descriptor)
            try:
                os.rename(self._path, final)
            except OSError:
                # A server that has forgotten that it did the work answers a repeated rename with ENOENT.
                # If the final name is our file, the first attempt succeeded.
                if not self._has_become(final):
                    raise
            os.fsync(self._descriptor)
            sync_directory(self._directory)
            # NFS reports a failed write as late as here; a descriptor that close() refused is gone all the same.
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def discard(self) -> None:
        """Take the draft back, where that is still possible: what stays is litter and swept later."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        with suppress(OSError):
            os.unlink(self._path)

    def _has_become(self, final: str) -> bool:
        try:
            ours, there = os.fstat(self._descriptor), os.stat(final)
        except OSError:
            return False
        return (ours.st_ino, ours.st_dev) == (there.st_ino, there.st_dev)


def sync_directory(directory: str) -> None:
    """Make the names in a directory durable."""
    with _told():
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_new(directory: str, draft_name: str, final_name: str, content: bytes) -> None:
    """Write a small file under a name that was never used before, durably."""
    draft = Draft(directory, draft_name)
    try:
        draft.write(content)
        draft.publish(final_name)
    except BaseException:
        draft.discard()
        raise


def unlink(path: str) -> bool:
    """
    Remove a file; return whether it was there.

    "Not there" may be the echo of our own first attempt that the network swallowed, so it is no failure.
    """
    with _told():
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True


def make_directory(path: str) -> None:
    """Make a directory, durably. FileExistsError where the name is taken."""
    with _told():
        os.mkdir(path, DIRECTORY_MODE)
        sync_directory(os.path.dirname(path))


def remove_directory(path: str) -> None:
    """Remove an empty directory; one that is gone already is no failure."""
    with _told(), suppress(FileNotFoundError):
        os.rmdir(path)


def move_directory(path: str, final: str) -> None:
    """Rename a directory to a name that was never used before, durably."""
    with _told():
        os.rename(path, final)
        sync_directory(os.path.dirname(final))


def make_link(target: str, path: str) -> None:
    """Make a symbolic link, durably. Hard links of directories, which the seed used, exist on no share."""
    with _told():
        os.symlink(target, path)
        sync_directory(os.path.dirname(path))


def kind(path: str) -> Literal["directory", "link", "other"]:
    """Return what has a name, links not followed. FileNotFoundError where nothing has it, or nothing yet (NFS)."""
    with _told():
        mode = os.lstat(path).st_mode
        return "directory" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "other"


def link_target(path: str) -> str | None:
    """Return where a link points, or None for what is no link."""
    if kind(path) != "link":  # First, because it costs no exception in the ordinary case.
        return None
    with _told():
        return os.readlink(path)


def exists(path: str) -> bool:
    """Tell whether a name is there, link or not. A "no" may be 30 s old on NFS: look_again() before you believe it."""
    with _told():
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def is_directory(path: str) -> bool:
    """Tell whether a directory has this name; a "no" is asked of the server once more."""
    if not _is_directory(path):
        look_again(os.path.dirname(path))
        return _is_directory(path)
    return True


def _is_directory(path: str) -> bool:
    # Not os.path.isdir(): it says "no" for every error, and a share that fails must not look like an empty one.
    with _told():
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def scan(directory: str) -> list[tuple[str, bool]]:
    """Return the names in a directory, each with whether it is a link, by name."""
    with _told(), os.scandir(directory) as entries:
        return sorted((entry.name, entry.is_symlink()) for entry in entries)


def modified_seconds(path: str) -> float:
    """Return the time of a file's last change, in seconds since 1970 on the server's clock."""
    with _told():
        return os.stat(path).st_mtime
