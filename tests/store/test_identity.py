"""The marker of a store: which GUID, which method, which layout; and that without it there is no store (I9)."""

import json
import os
import uuid
from pathlib import Path

import pytest
from failing_disk import FailingDisk, fails
from support import GUID

from store import files, identity
from store.errors import Exists, Misconfigured, Missing, Unavailable


@pytest.fixture
def root(tmp_path):
    return str(tmp_path)


def rewrite(root, **changes):
    marker = Path(root, identity.MARKER)
    marker.write_text(json.dumps(json.loads(marker.read_text()) | changes))


def test_a_founded_store_is_verified_by_every_node_with_its_guid(root):
    made = identity.found(root, GUID, "encrypted_file")
    assert identity.load(root) == made
    assert identity.verify(root, GUID, "encrypted_file") == made
    assert os.listdir(root) == [identity.MARKER]


@pytest.mark.invariant("I10")
def test_the_marker_does_not_hold_the_guid(root):
    identity.found(root, GUID, "encrypted_file")
    text = Path(root, identity.MARKER).read_text()
    assert str(GUID) not in text
    assert GUID.hex not in text


def test_a_store_is_founded_once(root):
    made = identity.found(root, GUID, "encrypted_file")
    with pytest.raises(Exists):
        identity.found(root, uuid.uuid4(), "encrypted_file")
    assert identity.load(root) == made


def test_two_administrators_at_one_instant_believe_what_is_there(root, monkeypatch):
    first = identity.found(root, GUID, "encrypted_file")
    text = Path(root, identity.MARKER).read_bytes()
    os.unlink(f"{root}/{identity.MARKER}")
    real = files.write_new

    def write_new(*arguments):
        real(*arguments)
        Path(root, identity.MARKER).write_bytes(text)  # the other one was later

    monkeypatch.setattr(files, "write_new", write_new)
    assert identity.found(root, GUID, "encrypted_file") == first


def test_an_adopted_mailroot_directory_may_become_a_store(root):
    os.makedirs(f"{root}/EXAMPLE.COM/P3_bob.mbx")
    os.mkdir(f"{root}/lost+found")
    assert identity.found(root, GUID, "encrypted_file")


def test_something_else_does_not_become_a_store(root):
    os.mkdir(f"{root}/Photos")
    with pytest.raises(Misconfigured, match="Photos"):
        identity.found(root, GUID, "encrypted_file")
    assert os.listdir(root) == ["Photos"]


@pytest.mark.parametrize("what", ["missing", "file"])
def test_a_place_that_is_no_directory_is_told_with_the_fix(root, what):
    Path(root, "file").touch()
    with pytest.raises(Missing, match="mount"):
        identity.found(f"{root}/{what}", GUID, "encrypted_file")
    with pytest.raises(Misconfigured, match="not mounted"):
        identity.load(f"{root}/{what}")


def test_a_method_that_is_not_built_is_refused(root):
    with pytest.raises(Misconfigured, match="encrypted_file"):
        identity.found(root, GUID, "local_accounts")


@pytest.mark.invariant("I9")
def test_no_marker_no_service(root):
    with pytest.raises(Misconfigured, match="no marker"):
        identity.verify(root, GUID, "encrypted_file")


def test_another_guid_is_refused_with_the_fix(root):
    identity.found(root, GUID, "encrypted_file")
    other = uuid.uuid4()
    with pytest.raises(Misconfigured, match="share one GUID") as refused:
        identity.verify(root, other, "encrypted_file")
    assert str(other) not in refused.value.detail
    assert str(GUID) not in refused.value.detail


def test_another_method_is_refused_with_the_fix(root):
    identity.found(root, GUID, "encrypted_file")
    with pytest.raises(Misconfigured, match=r"Set auth\.method: encrypted_file"):
        identity.verify(root, GUID, "active_directory")


def test_another_layout_is_refused(root):
    identity.found(root, GUID, "encrypted_file")
    rewrite(root, layout=2)
    with pytest.raises(Misconfigured, match="layout 2"):
        identity.load(root)


@pytest.mark.parametrize(
    "content", ["", "not json", "[]", "{}", "null", '{"layout": "one"}', '{"layout": 1, "store_id": "x"}', "\udc80"]
)
def test_a_damaged_marker_is_told_and_never_taken_for_a_missing_one(root, content):
    Path(root, identity.MARKER).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(Misconfigured, match="damaged"):
        identity.load(root)
    assert isinstance(identity.believe_missing(root, "", "mailbox"), Unavailable)


@pytest.mark.invariant("I9")
def test_a_miss_is_believed_only_with_the_right_marker_in_sight(root, monkeypatch):
    store_id = identity.found(root, GUID, "encrypted_file").store_id
    assert isinstance(identity.believe_missing(root, store_id, "mailbox"), Missing)
    assert isinstance(identity.believe_missing(root, str(uuid.uuid4()), "mailbox"), Unavailable)
    monkeypatch.setattr(files, "os", FailingDisk(open=fails(5)))
    assert isinstance(identity.believe_missing(root, store_id, "mailbox"), Unavailable)


def test_keys_differ_by_guid_store_and_purpose():
    base = (GUID, "store", "credentials")
    others = [(uuid.uuid4(), "store", "credentials"), (GUID, "other", "credentials"), (GUID, "store", "guid proof")]
    keys = {identity.derived_key(*arguments) for arguments in [base, base, *others]}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {identity.KEY_OCTETS}


def test_no_store_is_made_with_the_guid_of_the_example(tmp_path):
    with pytest.raises(Misconfigured, match="uuidgen"):
        identity.found(str(tmp_path), identity.EXAMPLE_GUID, "encrypted_file")
    assert str(identity.EXAMPLE_GUID) in (Path(__file__).parents[2] / "deploy/node.yaml").read_text()
