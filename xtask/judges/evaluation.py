"""Judges the figures of `coreai-bundle eval` by computing them again with numpy.

    evaluation.py CHECKPOINT PACKAGE TABLES FIGURES.json LOGITS INTERPRETER

`FIGURES.json` is what `eval --json` printed about one bundle with the package, `LOGITS` what it kept. The file is read here as
`docs/evaluation.md` describes it. The checkpoint's logits are computed by `decoder.Decoder`, the bundle's by our interpreter,
`oracle/examples/logits.rs`. Prints one JSON object per check.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from checkpoint import Checkpoint
from decoder import Decoder
from gather_tables import judge
from scores import QUALIFYING_MARGIN, margins

TOLERANCE = 1e-6
"""How far figures may lie from those of numpy, in nats."""

POSITION_TOLERANCE = 1e-5
"""The same for a single position, whose logits were added in f32 by two programs."""


@dataclass
class Logits:
    """A logits file."""

    header: dict[str, object]
    tokens: np.ndarray
    winners: np.ndarray
    margins: np.ndarray
    likelihoods: np.ndarray
    log_p: np.ndarray

    @staticmethod
    def read(path: Path) -> Logits:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<8sII", data)
        if (magic, version) != (b"CAIBLOGT", 1):
            raise ValueError(f"{magic!r}, version {version}")
        header = json.loads(data[16 : 16 + length])
        begin = 16 + length
        tokens = np.frombuffer(data, "<u4", header["tokens"], begin)
        if sha256(tokens.tobytes()).hexdigest() != header["tokens_sha256"]:
            raise ValueError("the digest of the tokens")
        record = np.dtype([
            ("sum", "<u4"), ("winner", "<u4"), ("margin", "<f4"), ("reserved", "<u4"), ("nll", "<f8"),
            ("distances", "u1", (header["vocab"], 3)),
        ])
        records = np.frombuffer(data, record, offset=begin + tokens.nbytes)
        for position, one in enumerate(records):
            if zlib.crc32(one.tobytes()[4:]) != one["sum"]:
                raise ValueError(f"the checksum of position {position}")
        codes = records["distances"].astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])
        return Logits(header, tokens, records["winner"], records["margin"], records["nll"], log_softmax(codes * -(2.0**-18)))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities, in f64."""
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def windows(logits: Logits) -> list[tuple[list[int], int]]:
    """The tokens of each window, and how many of them are context only."""
    tokens, header, cut = logits.tokens.tolist(), logits.header, []
    positions, window, stride = len(tokens) - 1, header["window"], header["stride"]
    for start in range(0, positions, stride):
        fed = tokens[start : min(start + window, positions)]
        if header["begin"] is not None:
            fed[0] = header["begin"]
        cut.append((fed, 0 if start == 0 else window - stride))
        if start + window >= positions:
            break
    return cut


def scored(rows: list[np.ndarray], cut: list[tuple[list[int], int]]) -> np.ndarray:
    """The logits of all scored positions."""
    return np.concatenate([logits[context:] for logits, (_, context) in zip(rows, cut, strict=True)])


def of_bundle(cut: list[tuple[list[int], int]], package: Path, tables: Path, interpreter: Path) -> np.ndarray:
    """The bundle's logits at all scored positions."""
    with tempfile.TemporaryDirectory() as folder:
        sequences, out = Path(folder) / "sequences.json", Path(folder) / "logits.f32"
        sequences.write_text(json.dumps([fed for fed, _ in cut]))
        subprocess.run([interpreter, package, tables, sequences, "wide", out], check=True)
        ends = np.cumsum([len(fed) for fed, _ in cut])
        rows = np.fromfile(out, dtype="<f4").reshape(int(ends[-1]), -1)
    return scored(np.split(rows, ends[:-1]), cut)


def figures(log_p: np.ndarray, log_q: np.ndarray, targets: np.ndarray, margin: np.ndarray) -> dict[str, float]:
    """What `eval` computes, from the logarithms of all probabilities."""
    kl = np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)
    agrees = log_p.argmax(axis=-1) == log_q.argmax(axis=-1)
    rows, sure = np.arange(len(targets)), margin >= QUALIFYING_MARGIN
    return {
        "mean_kl": float(kl.mean()),
        "max_kl": float(kl.max()),
        "mean_nll": float(-log_q[rows, targets].mean()),
        "reference_nll": float(-log_p[rows, targets].mean()),
        "agreed": int(agrees.sum()),
        "sure": int(sure.sum()),
        "sure_agreed": int((agrees & sure).sum()),
    }


def compared(expected: dict[str, float], found: dict[str, object], of_position: float) -> dict[str, object]:
    """Raises if a figure is not that of numpy; `of_position` is the tolerance of those that come from one position."""
    bundle = found["bundles"][0]
    ours = {
        "mean_kl": bundle["mean_kl"],
        "max_kl": bundle["max_kl"],
        "mean_nll": bundle["mean_nll"],
        "reference_nll": found["reference"]["mean_nll"],
        "agreed": bundle["agreement"]["agreed"],
        "sure": found["reference"]["sure"],
        "sure_agreed": bundle["sure"]["agreed"],
    }
    worst = 0.0
    for name, value in expected.items():
        difference = abs(ours[name] - value)
        tolerance = of_position if name == "max_kl" else TOLERANCE
        if difference > (tolerance if isinstance(value, float) else 0):
            raise ValueError(f"{name} is {ours[name]}, numpy has {value}")
        worst = max(worst, difference)
    return {"mean_kl": expected["mean_kl"], "largest_difference": float(f"{worst:.2g}")}


def stored(logits: Logits, reference: np.ndarray) -> dict[str, object]:
    """Compares what the file says with the logits of numpy."""
    rows, targets = np.arange(len(reference)), logits.tokens[1:]
    log_p = log_softmax(reference)
    likely = log_p > -20
    worst = float(np.abs(log_p - logits.log_p)[likely].max())
    nll = float(np.abs(-log_p[rows, targets] - logits.likelihoods).max())
    margin = float(np.abs(margins(reference) - logits.margins).max())
    # Two programs add in different orders.
    if max(worst, nll, margin) > 1e-3 or (logits.winners != reference.argmax(axis=-1))[margins(reference) > 1e-3].any():
        raise ValueError(f"log-probabilities differ by {worst}, likelihoods by {nll}, margins by {margin}")
    return {"positions": len(reference), "log_probability": float(f"{worst:.2g}"), "margin": float(f"{margin:.2g}")}


def main(arguments: list[str]) -> int:
    """Judges one run."""
    checkpoint, package, tables, printed, kept, interpreter = map(Path, arguments)
    logits, found = Logits.read(kept), json.loads(printed.read_text())
    cut, targets = windows(logits), logits.tokens[1:]
    decoder = Decoder(Checkpoint(checkpoint))
    reference = scored([decoder.logits(fed) for fed, _ in cut], cut)
    log_q = log_softmax(of_bundle(cut, package, tables, interpreter))
    judge("logits file", lambda: stored(logits, reference))
    judge("figures from the file", lambda: compared(
        figures(logits.log_p, log_q, targets, logits.margins), found, TOLERANCE))
    judge("figures from numpy's logits", lambda: compared(
        figures(log_softmax(reference), log_q, targets, margins(reference)), found, POSITION_TOLERANCE))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
