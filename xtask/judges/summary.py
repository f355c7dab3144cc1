"""Opens a package with Apple's API, for benchmarks: `summary.py PACKAGE` prints seconds, functions and their inputs and outputs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from coreai.authoring import AIModelAsset


def main() -> None:
    path = Path(sys.argv[1])
    begin = time.perf_counter()
    asset = AIModelAsset.load(path)
    summary = asset.summary(include_statistics=True)
    seconds = time.perf_counter() - begin
    if not AIModelAsset.is_valid(path) or summary is None:
        raise SystemExit(f"Apple's loader rejects {path}")
    types = ", ".join(f"{count} {name}" for name, count in summary.storage_types)
    print(f"{seconds:.3f} functions {', '.join(summary.function_names)}; {types}")


if __name__ == "__main__":
    main()
