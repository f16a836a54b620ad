"""The drill's balancer: places on nodes that are ready, passes over the dead, says who the client is."""

import contextlib
import http.server
import socket
import socketserver
import threading
from collections import Counter

import pytest
from proxyprotocol.v2 import ProxyProtocolV2
from support import wait_until

from node.drill.balancer import Backend, Balancer, Service
from node.lab import free_port

READY = ("/readyz/mail", "/readyz")


class Node:
    """Says its name and what it heard first to each client; tells how it is by HTTP."""

    def __init__(self, name: str, *, pages: dict[str, int]) -> None:
        self.name, self.pages, self.heard = name, pages, []
        node = self

        class Health(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(node.pages.get(self.path, 404))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Name(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.sendall(f"{node.name}\n".encode())
                while chunk := self.request.recv(1000):
                    node.heard.append(chunk)
                    self.request.sendall(chunk)

        self._servers = [socketserver.ThreadingTCPServer(("127.0.0.1", 0), kind) for kind in (Health, Name)]
        self._threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in self._servers]
        for thread in self._threads:
            thread.start()
        http_at, serves_at = (server.server_address[1] for server in self._servers)
        self.backend = Backend(name=name, port=serves_at, http=http_at)

    def stop(self) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


@contextlib.contextmanager
def balancing(*backends: Backend, proxy_header: bool = False):
    services = (Service(name="pop3", backends=backends, ready=READY),)
    balancer = Balancer(services, proxy_header=proxy_header)
    balancer.start()
    try:
        yield balancer
    finally:
        balancer.close()


@contextlib.contextmanager
def nodes(*pages: dict[str, int]):
    made = [Node(f"node{number}", pages=each) for number, each in enumerate(pages, 1)]
    try:
        yield made
    finally:
        for node in made:
            node.stop()


def greeting(balancer: Balancer) -> str:
    with socket.create_connection(balancer.at("pop3"), timeout=30) as client, client.makefile("rb") as lines:
        return lines.readline().decode().strip()


def up(balancer: Balancer, *names: str) -> None:
    wait_until(
        lambda: balancer.up("pop3") == set(names), or_fail=f"never on {names}: {balancer.up('pop3')}", seconds=60
    )


def test_connections_go_round_over_the_nodes_that_are_ready():
    ready, older, shut = {"/readyz/mail": 200, "/readyz": 503}, {"/readyz": 200}, {"/readyz/mail": 503, "/readyz": 200}
    with nodes(ready, older, shut) as made, balancing(*(node.backend for node in made)) as balancer:
        up(balancer, "node1", "node2")
        placed = Counter(greeting(balancer) for _ in range(8))
        assert set(placed) == {"node1", "node2"}


def test_a_node_that_is_not_ready_any_more_gets_no_more_and_keeps_what_it_has():
    with (
        nodes({"/readyz": 200}, {"/readyz": 200}) as (first, second),
        balancing(first.backend, second.backend) as balancer,
        contextlib.ExitStack() as stack,
    ):
        up(balancer, "node1", "node2")
        clients = [stack.enter_context(socket.create_connection(balancer.at("pop3"), timeout=30)) for _ in "12"]
        assert {client.recv(100) for client in clients} == {b"node1\n", b"node2\n"}
        first.pages["/readyz"] = 503
        up(balancer, "node2")
        assert {greeting(balancer) for _ in range(4)} == {"node2"}
        for client in clients:
            client.sendall(b"still here?")
            assert client.recv(100) == b"still here?"
        first.pages["/readyz"] = 200
        up(balancer, "node1", "node2")


def test_a_node_that_died_a_moment_ago_is_passed_over():
    with nodes({"/readyz": 200}, {"/readyz": 200}) as (first, second):
        gone = Backend(name="gone", port=free_port(), http=first.backend.http)  # Its health says 200 all the same.
        with balancing(gone, second.backend) as balancer:
            up(balancer, "gone", "node2")
            assert {greeting(balancer) for _ in range(4)} == {"node2"}


def test_where_none_is_ready_one_that_is_alive_may_say_why():
    with (
        nodes({"/readyz": 503, "/healthz": 200}, {"/readyz": 503}) as (alive, deaf),
        balancing(alive.backend, deaf.backend) as balancer,
    ):
        wait_until(lambda: greeting(balancer) == "node1", or_fail="nobody ever answered", seconds=60)


def test_where_nobody_is_alive_the_door_is_closed():
    port = free_port()
    with balancing(Backend(name="gone", port=port, http=port)) as balancer:
        assert greeting(balancer) == ""


@pytest.mark.parametrize("octets", [1, 300_000])
def test_everything_passes_behind_the_header_that_says_who_the_client_is(octets):
    with nodes({"/readyz": 200}) as (node,), balancing(node.backend, proxy_header=True) as balancer:
        up(balancer, "node1")
        with socket.create_connection(balancer.at("pop3"), timeout=30) as client:
            client.sendall(b"x" * octets)
            wait_until(lambda: sum(map(len, node.heard)) == 28 + octets, or_fail="octets were lost", seconds=60)
            heard = b"".join(node.heard)
            header = ProxyProtocolV2().unpack(heard[:28])
            assert (str(header.source[0]), header.source[1]) == client.getsockname()
            assert (str(header.dest[0]), header.dest[1]) == balancer.at("pop3")
            assert heard[28:] == b"x" * octets


def test_close_ends_every_connection():
    with nodes({"/readyz": 200}) as (node,):
        with balancing(node.backend) as balancer:
            up(balancer, "node1")
            client = socket.create_connection(balancer.at("pop3"), timeout=30)
            assert client.recv(100) == b"node1\n"
        with client:
            assert client.recv(100) == b""


def test_a_balancer_that_never_started_can_be_closed():
    Balancer((), proxy_header=False).close()
