"""What the dashboard and the alert rules ask Prometheus."""

import json
from pathlib import Path
from typing import Any

import yaml

WATCH = Path(__file__).parents[1] / "deploy/watch"
DASHBOARD: dict[str, Any] = json.loads((WATCH / "grafana/dashboards/mailroot.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((WATCH / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
# What Grafana would put in their place.
VARIABLES = {"$node": ".*", "$__rate_interval": "1m"}


def panel_queries() -> dict[str, str]:
    """Return every panel's queries by title, with the dashboard's variables filled in."""
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for variable, value in VARIABLES.items():
                query = query.replace(variable, value)
            found[f"{panel['title']} {target['refId']}"] = query
    return found


def rule_queries() -> dict[str, str]:
    """Return every rule's query without its comparison: a rule that does not fire answers nothing by design."""
    return {rule["alert"]: rule["expr"].rpartition(" ")[0].rpartition(" ")[0] for rule in RULES}
