"""What the logs of a lab must never hold (I10), and what would be a bug."""

import base64
from pathlib import Path

from scene import Scene

from node.lab import ACCOUNTS


def judge_logs(scene: Scene, *more_secrets: str) -> None:
    """No secret and no body in any line (I10), and no bug."""
    secrets = [*scene.secrets(), *more_secrets]
    secrets += [base64.b64encode(secret.encode()).decode()[:12] for secret in secrets]
    secrets += ["body-of-token", str(scene.lab.guid), *ACCOUNTS.values()]
    logs = list(Path(scene.lab.directory).glob("*.log"))
    assert len(logs) >= len(scene.lab.nodes)
    for log in logs:
        for line in log.read_text().splitlines():
            assert not any(secret in line for secret in secrets), f"{log.name}: {line}"
            assert " ERROR " not in line, f"{log.name}: {line}"
            assert not line.startswith("Traceback"), log.read_text()[-3000:]
