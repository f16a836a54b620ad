"""
The state of the cluster at one look: nodes, leases, registrations, claims, and what does not fit together.

Knows       what nodes say of themselves in the ledger. Returns values and text, prints nothing.
"""

import time

from attrs import asdict, frozen

from node.admin import Admin
from store.claim import HeldClaim, NodeFacts

# Settings that the seed keeps per server, and that should be one across a cluster.
SETTINGS = ("mail_store", "method", "greeting", "plain_without_tls")
CLAIMS_SHOWN_MAX = 20


@frozen(kw_only=True)
class Status:
    """One look. ``drift`` are settings that differ between live nodes: name -> value -> nodes."""

    version: int
    nodes: list[NodeFacts]
    claims: list[HeldClaim]
    drift: dict[str, dict[str, list[str]]]
    seen_at: float

    @property
    def healthy(self) -> bool:
        """Tell whether every node is alive, up to date and of one mind with the others."""
        return bool(self.nodes) and not self.drift and all(not _remark(node, self.version) for node in self.nodes)


def look(admin: Admin) -> Status:
    """Take one look at the cluster."""
    nodes = admin.nodes()
    drift: dict[str, dict[str, list[str]]] = {}
    for setting in SETTINGS:
        values: dict[str, list[str]] = {}
        for node in nodes:
            if node.alive:
                values.setdefault(str(node.facts.get(setting)), []).append(node.node)
        if len(values) > 1:
            drift[setting] = values
    return Status(
        version=admin.registrations_version(), nodes=nodes, claims=admin.claims(), drift=drift, seen_at=time.time()
    )


def as_json(status: Status) -> dict[str, object]:
    """Return what a script wants to know."""
    return {
        "healthy": status.healthy,
        "registrations_version": status.version,
        "nodes": [
            {"node": node.node, "alive": node.alive, "remark": _remark(node, status.version), **node.facts}
            for node in status.nodes
        ],
        "claims": [asdict(claim) for claim in status.claims],
        "drift": status.drift,
    }


def as_text(status: Status) -> str:
    """Return what a person wants to see."""
    lines = [
        f"{'NODE':<16} {'STATE':<6} {'HOST':<16} {'PID':>7} {'UP':>13} {'SESSIONS':>8} {'CLAIMS':>6} {'DOMAINS':>9}  REMARK"
    ]
    for node in status.nodes:
        facts = node.facts
        up = _age(status.seen_at - float(facts.get("started", status.seen_at)))
        applied = f"v{facts.get('registrations')}/v{status.version}"
        lines.append(
            f"{node.node:<16} {'up' if node.alive else 'GONE':<6} {facts.get('host', '?'):<16} {facts.get('pid', '?'):>7} "
            f"{up:>13} {facts.get('sessions', 0):>8} {facts.get('claims', 0):>6} {applied:>9}  {_remark(node, status.version)}"
        )
    if not status.nodes:
        lines.append("no node has joined; start one with: mailroot node")
    lines.append("")
    lines.append(f"{len(status.claims)} claims" + (", oldest first:" if status.claims else ""))
    lines += [
        f"  {claim.mailbox:<40} held by {claim.node} for {_age(claim.age_seconds)}"
        for claim in status.claims[:CLAIMS_SHOWN_MAX]
    ]
    if len(status.claims) > CLAIMS_SHOWN_MAX:
        lines.append(f"  … and {len(status.claims) - CLAIMS_SHOWN_MAX} more (--json shows all)")
    for setting, values in status.drift.items():
        described = "; ".join(f"{value} on {', '.join(nodes)}" for value, nodes in values.items())
        lines.append(f"DRIFT {setting}: {described}")
    return "\n".join(lines)


def _remark(node: NodeFacts, version: int) -> str:
    if not node.alive:
        return "its lease ended; its claims are free"
    if node.facts.get("trouble"):
        return str(node.facts["trouble"])
    behind = version - int(node.facts.get("registrations", 0))
    if behind > 0:
        return f"{behind} changes of domains behind"
    missing = node.facts.get("missing_directories")
    return f"registered without a directory: {missing} (winpop add, or winpop delete)" if missing else ""


def _age(seconds: float) -> str:
    whole = max(int(seconds), 0)
    if whole < 60:  # noqa: PLR2004 (seconds of a minute)
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    return f"{minutes} min" if minutes < 60 else f"{hours} h {minutes % 60} min"  # noqa: PLR2004
