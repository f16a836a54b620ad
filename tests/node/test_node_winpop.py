"""Any sequence of winpop commands, held against a model of a few lines; and any words at all."""

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

import pytest
from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import GUID

from node import winpop
from store import credential, identity
from store.files import list_names

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAME = tuple[str, str]  # (domain, local)


@define
class Box:
    """A mailbox, or with a target an alias."""

    target: NAME | None = None
    locked: bool = False


@define
class Model:
    """What an administrator believes that there is; each method returns the exit code."""

    boxes: dict[NAME, Box] = field(factory=dict)
    locked: dict[str, bool] = field(factory=dict)  # The domains, each with its lock.
    deleted: set[str] = field(factory=set)

    def resolved(self, name: NAME) -> NAME | None:
        box = self.boxes.get(name)
        return None if box is None else box.target or name

    def aliases(self, name: NAME) -> list[NAME]:
        return [alias for alias, box in self.boxes.items() if box.target == name]

    def add_domain(self, domain: str) -> int:
        self.locked.setdefault(domain, False)
        return 0

    def add(self, name: NAME, target: NAME | None = None) -> int:
        resolved = self.resolved(target) if target else None
        if name[0] not in self.locked or name in self.boxes or (target and not resolved):
            return 1
        self.boxes[name] = Box(resolved)
        return 0

    def delete_domain(self, domain: str) -> int:
        if domain not in self.locked:
            return 0 if domain in self.deleted else 1
        mine = [name for name in self.boxes if name[0] == domain]
        if any(alias[0] != domain for name in mine for alias in self.aliases(name)):
            return 1
        del self.locked[domain]
        self.deleted.add(domain)
        for name in mine:
            del self.boxes[name]
        return 0

    def delete(self, name: NAME) -> int:
        if name not in self.boxes or self.aliases(name):
            return 1
        del self.boxes[name]
        return 0

    def lock_domain(self, domain: str, *, locked: bool) -> int:
        if domain not in self.locked:
            return 1
        self.locked[domain] = locked
        return 0

    def lock(self, name: NAME, *, locked: bool) -> int:
        resolved = self.resolved(name)
        if resolved is None or (not locked and self.locked[resolved[0]]):
            return 1
        self.boxes[resolved].locked = locked
        return 0


class Typist:
    """Types winpop commands and keeps the model in step."""

    def __init__(self, directory: Path, ledger_url: str) -> None:
        self.root = directory / "mailroot"
        self.root.mkdir()
        identity.found(str(self.root), GUID, "encrypted_file")
        config = directory / "node.yaml"
        config.write_text(
            f'guid: {GUID}\nmail_store: {self.root}\nredis: {ledger_url}\nlmtp: {{listen: ["127.0.0.1:24"]}}\n'
        )
        self._config = str(config)
        self.model = Model()

    def type(self, *words: str) -> tuple[int, str, str]:
        out, err, stdin = io.StringIO(), io.StringIO(), sys.stdin
        sys.stdin = io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = winpop.run(["--config", self._config, *words])
        finally:
            sys.stdin = stdin
        assert bool(err.getvalue()) == (code != 0) or out.getvalue() == winpop.HELP
        return code, out.getvalue(), err.getvalue()

    def json(self, *words: str) -> dict:
        code, out, err = self.type(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    def expect(self, code: int, *words: str) -> None:
        found = self.type(*words)
        assert found[0] == code, (words, found, self.model)

    def do(self, step: tuple) -> None:
        model, (verb, name, other, locked) = self.model, step
        written, target = (f"{local}@{domain}" for domain, local in (name, other))
        if verb == "add domain":
            self.expect(model.add_domain(name[0]), "add", name[0])
        elif verb == "add":
            self.expect(model.add(name), "add", written, "/createuser", "secret")
        elif verb == "alias":
            self.expect(model.add(name, other), "add", written, "/alias", target)
        elif verb == "delete domain":
            self.expect(model.delete_domain(name[0]), "delete", name[0], "/y")
        elif verb == "delete":
            self.expect(model.delete(name), "delete", written, "/y")
        elif verb == "lock domain":
            self.expect(model.lock_domain(name[0], locked=locked), "lock" if locked else "unlock", name[0])
        elif verb == "lock":
            self.expect(model.lock(name, locked=locked), "lock" if locked else "unlock", written)
        else:
            self.expect(0 if model.resolved(name) else 1, "changepwd", written, "other")

    def compare(self) -> None:
        """What winpop lists, and what lies on the disk, is what the model says."""
        domains = {row["domain"]: row for row in self.json("list")["domains"]}
        assert {domain: row["locked"] for domain, row in domains.items()} == self.model.locked
        assert all(row["registered"] and not row["problem"] for row in domains.values())
        assert set(list_names(str(self.root))) == {identity.MARKER, *domains}
        for domain in domains:
            rows = {row["address"]: (row["alias_of"], row["locked"]) for row in self.json("list", domain)["mailboxes"]}
            assert rows == {
                f"{name[1]}@{domain}": (f"{box.target[1]}@{box.target[0]}" if box.target else None, box.locked)
                for name, box in self.model.boxes.items()
                if name[0] == domain
            }


NAMES = st.tuples(st.sampled_from(["a.example", "b.example"]), st.sampled_from(["x", "y", "z"]))
STEPS = ("add domain", "add", "add", "alias", "alias", "delete domain", "delete", "lock domain", "lock", "changepwd")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost nothing."""
    monkeypatch.setattr(credential, "ITERATIONS", 1)


@FEW
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), NAMES, NAMES, st.booleans()), min_size=5, max_size=25))
def test_any_sequence_of_commands_does_what_the_model_says(quick: None, ledger_url: str, steps: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        typist = Typist(Path(directory), ledger_url)
        typist.do(("add domain", ("a.example", "x"), ("a.example", "x"), False))
        for step in steps:
            typist.do(step)
        typist.compare()


WORDS = st.one_of(
    st.sampled_from([*winpop.VERBS, "help", "/y", "--json", "/alias", "/createuser", "/createuser:", "-", "--config="]),
    st.sampled_from(["a.example", "x@a.example", "x@", "@", "/", "", "..", "../a.example", "x/../y@a.example"]),
    st.text(st.characters(min_codepoint=1, max_codepoint=0x10FFFF, categories=None), max_size=12),
)


@settings(FEW, max_examples=150)
@given(words=st.lists(WORDS, max_size=5))
def test_any_words_are_answered_with_a_sentence_and_an_exit_code(
    quick: None, ledger_url: str, words: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        typist = Typist(Path(directory), ledger_url)
        typist.type("add", "a.example")
        code, out, err = typist.type(*words)
        assert code in (0, 1, 2)
        assert all(line.startswith("winpop: ") for line in err.splitlines())
        (out + err).encode()
        assert sorted(list_names(directory)) == ["mailroot", "node.yaml"]
