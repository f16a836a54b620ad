"""Every system call that changes the store, with each of the lies that shares tell."""

import errno
import os
from pathlib import Path

import pytest
from failing_disk import FailingDisk, fails, lies, works

from store import files
from store.errors import Full, StoreError, Unavailable

MEANINGS = [
    (errno.EIO, Unavailable),
    (errno.ETIMEDOUT, Unavailable),
    (errno.EACCES, Unavailable),
    (errno.EROFS, Unavailable),
    (errno.ENOSPC, Full),
    (errno.EDQUOT, Full),
    (errno.EFBIG, Full),
    (errno.ESTALE, FileNotFoundError),
    (errno.ENOENT, FileNotFoundError),
    (errno.EEXIST, FileExistsError),
    (errno.ENOTDIR, NotADirectoryError),
]


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path)


@pytest.fixture
def disk_is(monkeypatch):
    def replace(**answers):
        disk = FailingDisk(**answers)
        monkeypatch.setattr(files, "os", disk)
        return disk

    return replace


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


CALLS = {
    "listdir": files.list_names,
    "open": lambda directory: files.read_whole(f"{directory}/there"),
    "read": lambda directory: files.read_whole(f"{directory}/there"),
    "write": lambda directory: files.write_new(directory, "draft", "final", b"content"),
    "fsync": lambda directory: files.write_new(directory, "draft", "final", b"content"),
    "rename": lambda directory: files.write_new(directory, "draft", "final", b"content"),
    "close": lambda directory: files.write_new(directory, "draft", "final", b"content"),
    "mkdir": lambda directory: files.make_directory(f"{directory}/new"),
    "symlink": lambda directory: files.make_link("there", f"{directory}/link"),
    "scandir": files.scan,
    "stat": lambda directory: files.modified_seconds(f"{directory}/there"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("number", "meaning"), MEANINGS)
def test_an_error_of_the_share_is_told_in_our_words(directory, disk_is, call, number, meaning):
    Path(directory, "there").write_bytes(b"content")
    before = open_descriptors()
    disk_is(**{call: fails(number)})

    with pytest.raises(meaning) as told:
        CALLS[call](directory)

    assert type(told.value) is meaning
    if call != "close":  # a double that does not close leaks by itself
        assert open_descriptors() == before


def test_the_operator_reads_the_name_of_the_error_and_strangers_do_not():
    told = files.failure(OSError(errno.EIO, "Input/output error", "/mail/example.com"))
    assert told.detail == "Input/output error (EIO) at /mail/example.com"
    assert "example.com" not in told.public
    assert "no error number at the mail store" in files.failure(OSError("odd")).detail.replace(")", "")


DELIVERY = ["open", "write", "fsync", "rename", "fsync", "open", "fsync", "close", "close"]


@pytest.mark.invariant("I2")
def test_the_order_of_effects_is_the_one_the_code_promises(directory, disk_is):
    disk = disk_is()
    files.write_new(directory, "draft", "final", b"content")
    assert disk.calls == DELIVERY
    assert Path(directory, "final").read_bytes() == b"content"
    assert os.listdir(directory) == ["final"]


@pytest.mark.invariant("I2")
@pytest.mark.parametrize("step", range(len(DELIVERY)))
def test_no_step_of_a_delivery_may_fail_unnoticed(directory, disk_is, step):
    name = DELIVERY[step]
    turn = DELIVERY[: step + 1].count(name)
    disk_is(**{name: [*[works] * (turn - 1), lies(errno.EIO) if name == "close" else fails(errno.EIO)]})
    before = open_descriptors()

    with pytest.raises(Unavailable):
        files.write_new(directory, "draft", "final", b"content")

    renamed = step > DELIVERY.index("rename")
    assert os.listdir(directory) == (["final"] if renamed else [])
    assert open_descriptors() == before


def test_a_share_that_writes_one_byte_at_a_time_gets_them_all(directory, disk_is):
    disk_is(write=lambda real, descriptor, view: real(descriptor, view[:1]))
    draft = files.Draft(directory, "draft")
    draft.write(b"content")
    draft.publish("final")
    assert draft.octets == 7
    assert Path(directory, "final").read_bytes() == b"content"


def test_a_rename_that_happened_but_says_no_such_file_is_believed(directory, disk_is):
    disk_is(rename=lies(errno.ENOENT))
    files.write_new(directory, "draft", "final", b"content")
    assert os.listdir(directory) == ["final"]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE])
def test_a_rename_that_did_not_happen_is_not_believed(directory, disk_is, number):
    disk_is(rename=fails(number))
    with pytest.raises(FileNotFoundError):
        files.write_new(directory, "draft", "final", b"content")
    assert os.listdir(directory) == []


def test_a_strangers_file_under_the_final_name_is_no_proof(directory, disk_is):
    Path(directory, "final").write_bytes(b"a stranger's")
    disk_is(rename=fails(errno.ENOENT))
    with pytest.raises(FileNotFoundError):
        files.write_new(directory, "draft", "final", b"content")
    assert Path(directory, "final").read_bytes() == b"a stranger's"


def test_a_draft_never_takes_a_name_that_is_there(directory):
    Path(directory, "draft").write_bytes(b"somebody else's delivery")
    with pytest.raises(FileExistsError):
        files.Draft(directory, "draft")
    assert Path(directory, "draft").read_bytes() == b"somebody else's delivery"


def test_a_draft_may_be_discarded_twice_and_on_a_disk_that_fails(directory, disk_is):
    disk_is(close=lies(errno.EIO), unlink=fails(errno.EIO))
    draft = files.Draft(directory, "draft")
    draft.discard()
    draft.discard()
    assert os.listdir(directory) == ["draft"]  # litter, for a sweep


def test_an_unlink_that_finds_nothing_is_an_echo_and_no_failure(directory, disk_is):
    Path(directory, "message").touch()
    assert files.unlink(f"{directory}/message")
    assert not files.unlink(f"{directory}/message")
    Path(directory, "message").touch()
    disk_is(unlink=lies(errno.ENOENT))
    assert not files.unlink(f"{directory}/message")
    assert os.listdir(directory) == []


def test_an_unlink_that_the_share_refuses_is_a_failure(directory, disk_is):
    disk_is(unlink=fails(errno.EIO))
    with pytest.raises(Unavailable):
        files.unlink(f"{directory}/message")


def test_directories_are_made_moved_and_removed(directory):
    files.make_directory(f"{directory}/old")
    with pytest.raises(FileExistsError):
        files.make_directory(f"{directory}/old")
    files.move_directory(f"{directory}/old", f"{directory}/new")
    assert files.scan(directory) == [("new", False)]
    Path(directory, "new", "mail").touch()
    with pytest.raises(StoreError, match="ENOTEMPTY"):
        files.remove_directory(f"{directory}/new")
    files.unlink(f"{directory}/new/mail")
    files.remove_directory(f"{directory}/new")
    files.remove_directory(f"{directory}/new")
    assert files.list_names(directory) == []


def test_links_say_where_they_point_and_other_things_that_they_are_none(directory, disk_is):
    files.make_link("nowhere", f"{directory}/link")
    assert files.link_target(f"{directory}/link") == "nowhere"
    assert files.link_target(directory) is None
    assert files.scan(directory) == [("link", True)]
    with pytest.raises(FileNotFoundError):
        files.link_target(f"{directory}/missing")
    disk_is(readlink=fails(errno.EIO))
    with pytest.raises(Unavailable):
        files.link_target(f"{directory}/link")


def test_a_directory_that_another_node_just_made_is_found_at_the_second_look(directory, disk_is):
    disk = disk_is(stat=[fails(errno.ENOENT)])
    assert files.is_directory(directory)
    assert disk.calls == ["stat", "open", "close", "stat"]


def test_a_file_is_no_directory_and_a_dangling_link_exists(directory):
    Path(directory, "file").touch()
    os.symlink("nowhere", f"{directory}/link")
    assert not files.is_directory(f"{directory}/file")
    assert not files.is_directory(f"{directory}/link")
    assert files.exists(f"{directory}/link")
    assert not files.exists(f"{directory}/missing")
    assert not files.exists(f"{directory}/file/below")
    files.look_again(f"{directory}/missing")  # never fails: the look after it does


@pytest.mark.invariant("I9")
def test_a_share_that_fails_does_not_look_like_an_empty_one(directory, disk_is):
    disk_is(stat=fails(errno.EIO), lstat=fails(errno.EIO))
    with pytest.raises(Unavailable):
        files.is_directory(directory)
    with pytest.raises(Unavailable):
        files.exists(directory)
