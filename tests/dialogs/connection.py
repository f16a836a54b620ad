"""The transport that the protocol sees, and the client at its other end, in memory: slow, broken or half closed."""

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from node.pop3.server import Pop3Factory

TRANSPORT_BUFFER = 65_536  # twisted.internet.abstract.FileDescriptor.bufferSize
WHOLE = 2**31


class MemoryConnection:
    """
    One connection to a factory: the client's end (send, received) and the transport that the protocol sees.

    :param size: bytes come and go in pieces of at most so many.
    :param room: what the "kernel" takes for a client that does not read; ``client_reads`` says whether it does.
    """

    def __init__(
        self, factory: Pop3Factory, size: int = WHOLE, *, room: int = WHOLE, with_some_data: bool = True
    ) -> None:
        self.size, self.room = size, room
        self.client_reads = True
        self._received = bytearray()
        self.kernel = b""
        self.buffer = b""
        self.unserved = b""  # What the client sent and the transport has not read.
        self.closed = self.aborted = self.disconnecting = self.reading_paused = self.half_closed = False
        self.producer: object = None
        self.producerPaused = False
        self.most_held = 0
        if not with_some_data:
            self.writeSomeData = None
        self.protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 40000))
        self.protocol.makeConnection(self)
        self.pump()

    # The client's end

    @property
    def received(self) -> bytes:
        """Everything that the client has read."""
        return bytes(self._received)

    def send(self, data: bytes) -> None:
        self.unserved += data
        self.pump()

    def half(self) -> None:
        self.half_closed = True
        self.pump()

    def drop(self) -> None:
        self._lose(ConnectionLost())

    def pump(self) -> None:
        """Let everything happen that can."""
        told_of_half = False
        moved = True
        while moved and not self.closed:
            if self.aborted:
                self._lose(ConnectionLost())
                return
            moved = self._flow_out()
            if self.closed or self.aborted or self.reading_paused or self.disconnecting:
                continue
            if self.unserved:
                piece, self.unserved = self.unserved[: self.size], self.unserved[self.size :]
                self.protocol.dataReceived(piece)
                moved = True
            elif self.half_closed and not told_of_half:
                self.protocol.readConnectionLost()
                self.half_closed, told_of_half, moved = False, True, True

    def _flow_out(self) -> bool:
        moved = False
        if self.client_reads and self.kernel:
            self._received += self.kernel
            self.kernel, moved = b"", True
        taken = min(len(self.buffer), self.size, self.room - len(self.kernel))
        if taken > 0:
            self.kernel, self.buffer, moved = self.kernel + self.buffer[:taken], self.buffer[taken:], True
        if self.buffer or self.closed:
            return moved
        if self.producerPaused and self.producer is not None:
            self.producerPaused = False
            self.producer.resumeProducing()
            return True
        if self.disconnecting and self.producer is None and not moved:
            self._lose(ConnectionDone())
        return moved

    def _lose(self, reason: Exception) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connectionLost(Failure(reason))

    # The transport that the protocol sees (twisted.internet.tcp.Connection as far as the node uses it)

    def writeSomeData(self, data: bytes) -> int:  # noqa: N802
        assert not self.buffer, "these bytes would overtake those that wait"
        taken = max(0, min(len(data), self.size, self.room - len(self.kernel)))
        self.kernel += data[:taken]
        if self.client_reads:
            self._received += self.kernel
            self.kernel = b""
        return taken

    def write(self, data: bytes) -> None:
        self.buffer += data
        self.most_held = max(self.most_held, len(self.buffer))
        if len(self.buffer) > TRANSPORT_BUFFER and self.producer is not None:
            self.producerPaused = True
            self.producer.pauseProducing()

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: N802
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:  # noqa: N802
        self.producer = None

    def pauseProducing(self) -> None:  # noqa: N802
        self.reading_paused = True

    def resumeProducing(self) -> None:  # noqa: N802
        self.reading_paused = False

    def loseConnection(self) -> None:  # noqa: N802
        self.disconnecting = True

    def abortConnection(self) -> None:  # noqa: N802
        # As twisted's: connectionLost() comes with the reactor's next turn.
        self.aborted = True
