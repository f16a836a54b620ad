"""A console at which winpop is typed: arguments and standard input in, exit code, output and errors out."""

import io
import json
import sys
from pathlib import Path

import pytest
from attrs import frozen

from node import winpop
from node.admin import Admin
from node.config import load

GUID = "5f1c2f5e-8a3a-4c52-9d3e-0b3f6a1d2c4b"


@frozen
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


class Terminal(io.StringIO):
    """A standard input at which somebody sits."""

    def isatty(self) -> bool:
        return True


class Console:
    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = config
        self._capsys, self._monkeypatch = capsys, monkeypatch

    @classmethod
    def build(
        cls,
        directory: Path,
        store_root: str,
        ledger_url: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> "Console":
        config = directory / "node.yaml"
        config.write_text(
            f'guid: {GUID}\nmail_store: {store_root}\nredis: {ledger_url}\nlmtp: {{listen: ["127.0.0.1:24"]}}\n'
        )
        return cls(config, capsys, monkeypatch)

    def admin(self) -> Admin:
        return Admin(load(str(self.config)))

    def type(self, *words: str, stdin: str = "", terminal: bool = False) -> Outcome:
        self._monkeypatch.setattr(sys, "stdin", (Terminal if terminal else io.StringIO)(stdin))
        self._capsys.readouterr()
        code = winpop.run(["--config", str(self.config), *words])
        return Outcome(code, *self._capsys.readouterr())

    def done(self, *words: str, **how: object) -> Outcome:
        """Type a command that has to succeed."""
        outcome = self.type(*words, **how)
        assert outcome.code == 0, outcome.err
        assert outcome.err == ""
        return outcome

    def refused(self, *words: str, code: int = 1, says: str, **how: object) -> Outcome:
        """Type a command that has to be refused, with a sentence and without a traceback."""
        outcome = self.type(*words, **how)
        assert outcome.code == code, outcome
        assert says in outcome.err
        assert outcome.out == ""
        assert all(line.startswith("winpop: ") for line in outcome.err.splitlines())
        return outcome
