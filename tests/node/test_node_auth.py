"""Passwords in any order of changes and polls, and from many threads: the answer is always the present password's."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from dialogs.memory import Clock, House
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.auth.encrypted_file import REMEMBER_SECONDS, EncryptedFile
from node.auth.outcome import Yes
from store import credential
from store.address import Address

USERS = ("ada@example.org", "bob@example.org")
PASSWORDS = ("one", "two")
STEPS = st.one_of(
    st.tuples(st.just("verify"), st.sampled_from(USERS), st.sampled_from(PASSWORDS)),
    st.tuples(st.just("change"), st.sampled_from(USERS), st.sampled_from(PASSWORDS)),
    st.tuples(st.just("delete"), st.sampled_from(USERS), st.just("")),
    st.tuples(st.just("wait"), st.just(""), st.sampled_from([1.0, REMEMBER_SECONDS - 1, REMEMBER_SECONDS])),
)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Admissions:
    """Counts how often a credential was asked, which is what a login costs."""

    count = 0


@pytest.fixture
def admissions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Admissions]:
    counted = Admissions()
    admits = credential.Credential.admits

    def count(self: credential.Credential, password: str) -> bool:
        counted.count += 1
        return admits(self, password)

    monkeypatch.setattr(credential.Credential, "admits", count)
    monkeypatch.setattr(credential, "ITERATIONS", 1)
    return counted


@FEW
@given(steps=st.lists(STEPS, max_size=25), nodes=st.integers(1, 2))
def test_no_answer_is_ever_of_an_earlier_password(admissions: Admissions, steps: list[tuple], nodes: int) -> None:
    """Two nodes on one store: what one of them remembers is never in the way of what was changed at the other."""
    with tempfile.TemporaryDirectory() as root:
        house, clock = House.build(root), Clock()
        methods = [EncryptedFile(house.store, house.key, clock=clock) for _ in range(nodes)]
        present: dict[str, str] = {}
        confirmed: dict[tuple[str, str], float] = {}
        for number, (verb, user, value) in enumerate(steps):
            method = methods[number % nodes]
            if verb == "wait":
                clock.now += value
            elif verb == "delete" and present.pop(user, None):
                house.store.delete_mailbox(Address.parse(user))
            elif verb == "change":
                (house.password if user in present else house.mailbox)(user, value)
                present[user] = value
            elif verb == "verify":
                before = admissions.count
                verdict = method.verify(user, value)
                assert isinstance(verdict, Yes) == (present.get(user) == value)
                cost = admissions.count - before
                assert cost in ((0, 1) if isinstance(verdict, Yes) else (1,))
                if isinstance(verdict, Yes) and cost:
                    confirmed[user, value] = clock.now
            for key in ((user, password) for user in USERS for password in PASSWORDS):
                if any(method.recall(*key) for method in methods):
                    assert clock.now < confirmed[key] + REMEMBER_SECONDS


def test_many_threads_at_once(admissions: Admissions, tmp_path) -> None:
    house = House.build(str(tmp_path))
    for user in USERS:
        house.mailbox(user, "one")
    method = EncryptedFile(house.store, house.key)

    def poll(number: int) -> bool:
        user, password = USERS[number % 2], PASSWORDS[number // 2 % 2]
        assert isinstance(method.verify(user, password), Yes) == (password == "one")
        return method.recall(user, "one") is not None or password != "one"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(poll, range(400)))


def test_a_password_changed_between_the_listing_and_the_reading(admissions: Admissions, tmp_path, monkeypatch) -> None:
    """The credential that the listing named is gone: the present one is read, and remembered by its own name."""
    house = House.build(str(tmp_path))
    house.mailbox(USERS[0], "one")
    method = EncryptedFile(house.store, house.key)
    mailbox = type(house.find(USERS[0]))
    listing = mailbox.listing

    def change_meanwhile(self) -> list[str]:
        names = listing(self)
        monkeypatch.setattr(mailbox, "listing", listing)
        house.password(USERS[0], "two")
        return names

    monkeypatch.setattr(mailbox, "listing", change_meanwhile)
    assert isinstance(method.verify(USERS[0], "two"), Yes)
    before = admissions.count
    assert isinstance(method.verify(USERS[0], "two"), Yes)
    assert admissions.count == before
    assert not isinstance(method.verify(USERS[0], "one"), Yes)
