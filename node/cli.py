"""
``mailroot``: run a node, try the lab, prepare a store, deliver from a script, look at the cluster.

Exit codes  0 done; 1 refused; 2 not understood; 67, 75, 78 of sysexits.h where an MTA or a service manager wants them.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

from node import config as configuration
from node.config import ConfigError
from store.errors import Misconfigured, Missing, Refused, StoreError

EXIT_REFUSED = 1
WATCH_SECONDS = 1.0


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        code = _drill(words[1:]) if words[:1] == ["drill"] else _run(words)
    except ConfigError as error:
        print(error, file=sys.stderr)
        code = os.EX_CONFIG
    except StoreError as error:
        print(f"mailroot: {error.detail}", file=sys.stderr)
        code = _code(error)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _run(words: list[str]) -> int:
    options = _parser().parse_args(words)
    code: int = options.run(options)
    return code


def _code(error: StoreError) -> int:
    if isinstance(error, Misconfigured):
        return os.EX_CONFIG
    return os.EX_TEMPFAIL if error.temporary else EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mailroot",
        description="A shared-store cluster of stateless POP3 nodes. Begin with: mailroot lab",
        epilog="Domains and mailboxes are made with winpop: see winpop help",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, text: str, *, takes_config: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if takes_config:
            sub.add_argument(
                "--config",
                metavar="FILE",
                help="the node's configuration; else MAILROOT_CONFIG, else /etc/mailroot/node.yaml",
            )
        return sub

    lab = command(
        "lab", "three nodes on this machine with mail to try; Ctrl-C leaves nothing running", takes_config=False
    )
    lab.add_argument("--check", action="store_true", help="tell the whole story once, without a person; exits 0 or 1")
    lab.add_argument(
        "--nodes", type=int, default=3, choices=range(2, 10), metavar="N", help="how many nodes, 2 to 9 (3)"
    )
    lab.set_defaults(run=_lab)

    # Its own options are in node/drill/command.py, which main() asks: nobody else should wait for its imports.
    command(
        "drill", "break nodes, ledger and store under load, and prove what the promises are worth", takes_config=False
    )

    node = command("node", "run a node in the foreground; it logs to standard error")
    node.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    node.set_defaults(run=_node)

    store = command("store", "prepare the mail store", takes_config=False)
    actions = store.add_subparsers(metavar="ACTION", required=True)
    init = actions.add_parser(
        "init", help="write the marker of a new store (an empty directory, or a Windows mailroot)"
    )
    init.add_argument("--config", metavar="FILE", help="take GUID, directory and method from a node's configuration")
    init.set_defaults(run=_store_init)

    deliver = command("deliver", "deliver one message from standard input, for scripts and for MTAs that want a pipe")
    deliver.add_argument("recipient", metavar="USER@DOMAIN")
    deliver.add_argument("--sender", default="", help="the envelope's sender (empty for a bounce)")
    deliver.set_defaults(run=_deliver)

    cluster = command("cluster", "look at all nodes at once", takes_config=False)
    actions = cluster.add_subparsers(metavar="ACTION", required=True)
    status = actions.add_parser("status", help="nodes, leases, sessions, registrations, claims, and what does not fit")
    status.add_argument("--json", action="store_true", help="for scripts")
    status.add_argument("--watch", action="store_true", help="look again every second until Ctrl-C")
    status.set_defaults(run=_status)
    breaking = actions.add_parser("break", help="break the claim on a mailbox; its session removes nothing")
    breaking.add_argument("mailbox", metavar="USER@DOMAIN")
    breaking.set_defaults(run=_break)
    for action in (status, breaking):
        action.add_argument("--config", metavar="FILE", help="a node's configuration")
    return parser


def _load(options: argparse.Namespace) -> configuration.Config:
    return configuration.load(configuration.path_of(options.config))


def _lab(options: argparse.Namespace) -> int:
    try:
        from node import tour  # noqa: PLC0415 (needs the extra `lab`)
    except ImportError as error:
        print(f"mailroot: the lab needs {error.name}: pip install 'mailroot[lab]', or: make install", file=sys.stderr)
        return EXIT_REFUSED
    return tour.check(options.nodes) if options.check else tour.show(options.nodes)


def _drill(words: list[str]) -> int:
    from node.drill import command  # noqa: PLC0415 (the other commands should start fast)

    return command.main(words)


def _node(options: argparse.Namespace) -> int:
    from node import journal, workers  # noqa: PLC0415 (the other commands should start fast)

    settings = _load(options)
    journal.start()
    if settings.workers > 1 and not options.worker:
        return workers.run(configuration.path_of(options.config), settings.workers)
    from node.service import Node  # noqa: PLC0415 (it installs the reactor)

    return Node(settings, worker=options.worker).run()


def _store_init(options: argparse.Namespace) -> int:
    from store import identity  # noqa: PLC0415

    settings = _load(options)
    found = identity.found(settings.mail_store, settings.guid, settings.method)
    print(f"{settings.mail_store} is a mail store now: {found.store_id}, method {found.method}.")
    print("Next: winpop add example.com")
    return 0


def _deliver(options: argparse.Namespace) -> int:
    """Deliver; what is not the mail's own fault, a share that is not mounted or a bug, leaves it with the MTA (I9)."""
    try:
        print(_delivered(options))
    except (Missing, Refused) as error:
        print(f"mailroot: {error.detail}", file=sys.stderr)
        return os.EX_NOUSER if isinstance(error, Missing) else EXIT_REFUSED
    except Exception as error:  # noqa: BLE001 (an MTA returns the mail to its sender for every code but 75)
        detail = error.detail if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        print(f"mailroot: {detail}", file=sys.stderr)
        return os.EX_TEMPFAIL
    return 0


def _delivered(options: argparse.Namespace) -> str:
    from node.envelope import Envelope, trace  # noqa: PLC0415
    from store import identity  # noqa: PLC0415
    from store.address import Address  # noqa: PLC0415
    from store.domain import MailStore  # noqa: PLC0415
    from store.mailbox import CHUNK_OCTETS  # noqa: PLC0415
    from store.names import NameSource  # noqa: PLC0415

    settings = _load(options)
    marker = identity.verify(settings.mail_store, settings.guid, settings.method)
    store = MailStore(settings.mail_store, marker.store_id, NameSource())
    envelope = Envelope(sender=options.sender, helo="localhost", peer="local", protocol="local", node=settings.node)
    mailbox = store.find(Address.parse(options.recipient))
    heading = trace(envelope, options.recipient)
    body = iter(lambda: sys.stdin.buffer.read(CHUNK_OCTETS), b"")
    return mailbox.deliver(store.names, _limited(heading, body, settings.octets_max)).uid


def _limited(heading: bytes, chunks: Iterator[bytes], octets_max: int) -> Iterator[bytes]:
    yield heading
    octets = 0
    for chunk in chunks:
        octets += len(chunk)
        if octets > octets_max:
            raise Refused(f"the message has more than {octets_max} octets (delivery.octets_max)")
        yield chunk


def _status(options: argparse.Namespace) -> int:
    from node.admin import Admin  # noqa: PLC0415
    from node.status import as_json, as_text, look  # noqa: PLC0415

    admin = Admin(_load(options))
    while True:
        status = look(admin)
        if options.watch and sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")
        print(json.dumps(as_json(status), indent=2) if options.json else as_text(status), flush=True)
        if not options.watch:
            return 0 if status.healthy else EXIT_REFUSED
        time.sleep(WATCH_SECONDS)


def _break(options: argparse.Namespace) -> int:
    from node.admin import Admin  # noqa: PLC0415

    for sentence in Admin(_load(options)).break_claim(options.mailbox).sentences:
        print(sentence)
    return 0


if __name__ == "__main__":
    main()
