"""poplib's client, made fit for nodes that break off."""

import contextlib
import poplib

ANSWER_SECONDS_MAX = 5.0  # Above every answer of a node that runs (the ledger's own time-out is 2 s).

poplib._MAXLINE = 1_000_000  # 20,000 octets of one line are no reason to break off.


class Client(poplib.POP3):
    """poplib's client, which closes its socket whatever happens, with the whole reply in ``said``."""

    file = None
    sock = None

    def __init__(self, port: int, seconds: float = ANSWER_SECONDS_MAX) -> None:
        try:
            super().__init__("127.0.0.1", port, timeout=seconds)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Break the connection off, without QUIT."""
        with contextlib.suppress(OSError):
            self.close()

    def say(self, line: str) -> str:
        """Send a command; return the first line of the reply, -ERR too."""
        try:
            return self._shortcmd(line).decode()
        except poplib.error_proto as error:
            if "EOF" in str(error):
                raise ConnectionResetError(f"the connection ended after {line.partition(' ')[0]}") from error
            return error.args[0].decode()
