"""How the judges of the Hub client print their results."""

from __future__ import annotations

import json
from collections.abc import Callable


def judge(check: str, body: Callable[[], dict[str, object]]) -> None:
    """Runs one check and prints its verdict; anything raised is a failure."""
    status, message, detail = "passed", "", {}
    try:
        detail = body()
    except Exception as error:  # noqa: BLE001  (whatever went wrong is the verdict)
        status, message = "failed", f"{type(error).__name__}: {error}"
    print(json.dumps({"check": check, "status": status, "message": message, "detail": detail}), flush=True)
