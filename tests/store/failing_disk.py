"""A double of ``os`` for store.files: it passes every call on, but for the ones that a test wants to go wrong."""

import errno
import os
from collections.abc import Callable

Answer = Callable[..., object]


def error(number: int) -> OSError:
    """What the operating system says; the exact class follows from the number."""
    return OSError(number, os.strerror(number), "/mail/store")


class FailingDisk:
    """
    ``FailingDisk(rename=lies(errno.ENOENT))`` is ``os`` with another rename.

    Each keyword is a list of what the first, second, … call does, or one answer for all calls. ``calls`` keeps
    the names of the calls in their order.
    """

    def __init__(self, **answers: Answer | list[Answer]) -> None:
        self._answers = answers
        self._seen: dict[str, int] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if not callable(real):
            return real

        def call(*arguments: object, **options: object) -> object:
            self.calls.append(name)
            turn = self._seen[name] = self._seen.get(name, 0) + 1
            answers = self._answers.get(name, works)
            if isinstance(answers, list):
                answers = answers[turn - 1] if turn <= len(answers) else works
            return answers(real, *arguments, **options)

        return call


def works(real: Answer, *arguments: object, **options: object) -> object:
    """The call does what it says."""
    return real(*arguments, **options)


def fails(number: int) -> Answer:
    """The call fails and nothing has happened."""

    def answer(_real: Answer, *_arguments: object, **_options: object) -> object:
        raise error(number)

    return answer


def lies(number: int = errno.ENOENT) -> Answer:
    """The call has happened, but the network swallowed the answer and a repetition failed."""

    def answer(real: Answer, *arguments: object, **options: object) -> object:
        real(*arguments, **options)
        raise error(number)

    return answer
