"""
Continuous load: threads that deliver to and read from some mailboxes at all nodes, while a test breaks things.

Knows       what a client may be told while something is broken. Anything else is a surprise and fails the test:
            a permanent refusal of mail, [AUTH] for a right password, a reply that is no reply.
"""

import random
import smtplib
import threading
from collections.abc import Callable
from typing import Self

from scene import Scene
from support import wait_until

from node.drill.pop import Client, Refused
from node.drill.witness import Session

STEPS_MAX = 400  # Of each thread: a test that hangs does not fill the disk.
PAUSE_SECONDS = 0.03
READ_SECONDS_MAX = 2.0  # A node that is stopped answers nobody; the load goes on elsewhere.


class Load:
    """Two threads that deliver and two that read, for as long as the ``with`` lasts."""

    def __init__(self, scene: Scene, name: str, *, mailboxes: int = 3, seed: int = 1) -> None:
        self._scene = scene
        self._mailboxes = [scene.mailbox(f"{name}-{number}") for number in range(mailboxes)]
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(work, random.Random(seed + number)))
            for number, work in enumerate((self._deliver, self._deliver, self._read, self._read))
        ]
        self.surprises: list[str] = []
        self.accepted = 0
        self.read = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.accepted and self.read, or_fail="the load never began")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            assert not self.surprises, self.surprises[:5]
            assert self.accepted > 0
            assert self.read > 0

    def _repeat(self, work: Callable[[random.Random], None], dice: random.Random) -> None:
        for _ in range(STEPS_MAX):
            if self._ended.wait(PAUSE_SECONDS):
                return
            try:
                work(dice)
            except (OSError, EOFError, smtplib.SMTPException):
                continue  # A node that is dead, stopped or stopping.
            except Exception as error:
                self.surprises.append(repr(error))

    def _deliver(self, dice: random.Random) -> None:
        uid, reply = self._scene.try_to_deliver(dice.choice(self._scene.lab.nodes), dice.choice(self._mailboxes))
        if uid is not None:
            self.accepted += 1
        elif not reply.startswith("4"):
            self.surprises.append(f"a delivery was refused for good: {reply}")

    def _read(self, dice: random.Random) -> None:
        node, mailbox = dice.choice(self._scene.lab.nodes), dice.choice(self._mailboxes)
        if dice.random() < 0.05:
            self._guess(node.ports.pop3, mailbox)
            return
        try:
            session = self._scene.open(node, mailbox, seconds=READ_SECONDS_MAX)
        except Refused as error:
            if "[IN-USE]" not in str(error) and "[SYS/TEMP]" not in str(error):
                self.surprises.append(f"a login was refused: {error}")
            return
        try:
            self._use(session, dice)
        except Refused as error:
            if "[SYS/TEMP]" not in str(error):
                self.surprises.append(f"a command was refused: {error}")
        finally:
            session.break_off()

    def _use(self, session: Session, dice: random.Random) -> None:
        uids = session.list()
        chosen = dice.sample(uids, min(len(uids), dice.randrange(4)))
        for uid in chosen:
            session.fetch(uid)
        session.mark(*chosen)
        self.read += 1
        if dice.random() < 0.8:
            answer = session.quit()
            if answer and not answer.startswith("+OK") and "[SYS/TEMP]" not in answer:
                self.surprises.append(f"QUIT was answered: {answer}")

    def _guess(self, port: int, mailbox: str) -> None:
        """A wrong password never learns whether the mailbox is in use."""
        with Client(("127.0.0.1", port), READ_SECONDS_MAX) as client:
            client.say(f"USER {mailbox}")
            reply = client.say("PASS wrong-guess-Plugh")
            if "[AUTH]" not in reply and "[SYS/TEMP]" not in reply:
                self.surprises.append(f"a wrong password was answered: {reply}")
