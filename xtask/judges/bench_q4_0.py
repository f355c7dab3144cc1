"""Throughput of gguf's Q4_0 in numpy, for benchmarks: `bench_q4_0.py RUNS` prints GB of bf16 weights per second, as a JSON list."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import quantize

WEIGHTS = (4096, 1024)


def main() -> None:
    weights = np.random.default_rng(0).normal(0, 0.02, WEIGHTS).astype(np.float32)
    runs = []
    for _ in range(int(sys.argv[1])):
        begin = time.perf_counter()
        quantize(weights, GGMLQuantizationType.Q4_0)
        runs.append(2 * weights.size / (time.perf_counter() - begin) / 1e9)
    print(json.dumps(runs))


if __name__ == "__main__":
    main()
