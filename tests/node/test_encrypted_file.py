"""Passwords: yes, no, could not tell; a no costs what a yes costs; what is remembered never outlives the credential."""

import uuid
from collections.abc import Iterator

import pytest
from dialogs.memory import Clock, House

from node.auth import encrypted_file
from node.auth.encrypted_file import REMEMBER_SECONDS, EncryptedFile
from node.auth.outcome import No, Yes
from store import credential
from store.errors import Unavailable
from store.identity import derived_key
from store.mailbox import newest

ADA = "ada@example.org"


class Derivations:
    """Counts the key derivations that verifications cost."""

    def __init__(self) -> None:
        self.count = 0


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> Derivations:
    counted = Derivations()
    derive = credential.pbkdf2_hmac

    def count(digest: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        counted.count += 1
        assert iterations == credential.ITERATIONS
        return derive(digest, password, salt, 1)

    monkeypatch.setattr(credential, "pbkdf2_hmac", count)
    return counted


@pytest.fixture
def house(tmp_path, derivations: Derivations) -> Iterator[House]:
    found = House.build(str(tmp_path))
    found.mailbox(ADA, "lovelace")
    derivations.count = 0
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def method(house: House, clock: Clock) -> EncryptedFile:
    return EncryptedFile(house.store, house.key, clock=clock)


def test_the_right_password_opens_the_mailbox(method: EncryptedFile, house: House) -> None:
    verdict = method.verify(ADA, "lovelace")
    assert isinstance(verdict, Yes)
    assert verdict.mailbox == house.find(ADA)
    assert sorted(verdict.listing) == sorted(house.find(ADA).listing())


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (ADA, "Lovelace"),
        (ADA, ""),
        (ADA, "lovelace "),
        ("nobody@example.org", "lovelace"),
        ("ada@elsewhere.org", "lovelace"),
        ("ada", "lovelace"),
        ("", "lovelace"),
        ("../../etc@example.org", "lovelace"),
        ("a\udcffb@example.org", "love\udcfflace"),
        ("bare@example.org", "lovelace"),
    ],
)
def test_every_no_costs_one_derivation(
    method: EncryptedFile, house: House, derivations: Derivations, user: str, password: str
) -> None:
    from store.address import Address

    house.store.add_mailbox(Address.parse("bare@example.org"))  # Never got a password.
    assert isinstance(method.verify(user, password), No)
    assert derivations.count == 1


def test_a_yes_costs_one_derivation_and_then_none(
    method: EncryptedFile, derivations: Derivations, clock: Clock
) -> None:
    for _ in range(3):
        assert isinstance(method.verify(ADA, "lovelace"), Yes)
    assert derivations.count == 1
    clock.now += REMEMBER_SECONDS
    assert isinstance(method.verify(ADA, "lovelace"), Yes)
    assert derivations.count == 2


def test_a_wrong_password_costs_one_while_the_right_one_is_remembered(
    method: EncryptedFile, derivations: Derivations
) -> None:
    method.verify(ADA, "lovelace")
    for attempt in ("wrong", "wrong"):
        assert isinstance(method.verify(ADA, attempt), No)
    assert derivations.count == 3


def test_a_changed_password_is_in_force_at_once(method: EncryptedFile, house: House) -> None:
    assert isinstance(method.verify(ADA, "lovelace"), Yes)
    house.password(ADA, "byron")
    assert isinstance(method.verify(ADA, "lovelace"), No)
    assert isinstance(method.verify(ADA, "byron"), Yes)


def test_a_remembered_password_does_not_open_a_mailbox_made_anew(method: EncryptedFile, house: House) -> None:
    from store.address import Address

    assert isinstance(method.verify(ADA, "lovelace"), Yes)
    house.store.delete_mailbox(Address.parse(ADA))
    assert isinstance(method.verify(ADA, "lovelace"), No)
    house.mailbox(ADA, "byron")
    assert isinstance(method.verify(ADA, "lovelace"), No)


def test_an_alias_that_moves_takes_no_remembered_password_along(method: EncryptedFile, house: House) -> None:
    from store.address import Address

    house.mailbox("grace@example.org", "hopper")
    house.alias("post@example.org", ADA)
    assert method.verify("post@example.org", "lovelace").mailbox.key == "example.org/ada"
    house.store.delete_alias(Address.parse("post@example.org"))
    house.alias("post@example.org", "grace@example.org")
    assert isinstance(method.verify("post@example.org", "lovelace"), No)
    assert method.verify("post@example.org", "hopper").mailbox.key == "example.org/grace"


def test_recall_knows_only_what_was_verified(method: EncryptedFile, house: House, clock: Clock) -> None:
    assert method.recall(ADA, "lovelace") is None
    method.verify(ADA, "wrong")
    assert method.recall(ADA, "wrong") is None
    method.verify(ADA, "lovelace")
    assert method.recall(ADA, "lovelace") == house.find(ADA)
    assert method.recall(ADA, "lovelace ") is None
    clock.now += REMEMBER_SECONDS
    assert method.recall(ADA, "lovelace") is None


def test_what_is_remembered_is_bounded_and_the_oldest_goes(
    method: EncryptedFile, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encrypted_file, "REMEMBERED_MAX", 2)
    for name in ("ada", "alan", "grace"):
        if name != "ada":
            house.mailbox(f"{name}@example.org", "lovelace")
        method.verify(f"{name}@example.org", "lovelace")
    assert method.recall(ADA, "lovelace") is None
    assert method.recall("grace@example.org", "lovelace") is not None


def test_a_password_of_any_length_costs_a_bounded_hash(method: EncryptedFile) -> None:
    assert isinstance(method.verify(ADA, "x" * 5000), No)


@pytest.mark.invariant("I9")
def test_a_store_that_is_not_mounted_is_no_wrong_password(method: EncryptedFile, house: House, tmp_path) -> None:
    method.verify(ADA, "lovelace")
    tmp_path.rename(tmp_path.with_name("away"))
    tmp_path.mkdir()
    with pytest.raises(Unavailable):
        method.verify(ADA, "lovelace")
    with pytest.raises(Unavailable):
        method.verify(ADA, "wrong")


def test_a_damaged_credential_or_another_guid_is_no_wrong_password(method: EncryptedFile, house: House) -> None:
    other = derived_key(uuid.uuid4(), house.store.store_id, "credentials")
    with pytest.raises(Unavailable):
        EncryptedFile(house.store, other).verify(ADA, "lovelace")
    mailbox = house.find(ADA)
    setting = newest(mailbox.listing(), "auth")
    with open(f"{mailbox.path}/{setting.name}", "r+b") as file:
        file.truncate(20)
    with pytest.raises(Unavailable):
        method.verify(ADA, "lovelace")


@pytest.mark.invariant("I10")
def test_nothing_of_the_method_shows_a_password(method: EncryptedFile) -> None:
    method.verify(ADA, "lovelace")
    assert "lovelace" not in repr(vars(method))
