"""Judges the `q4_0` rule by GGML's own reference quantizer, as `gguf` has it in numpy.

    q4_0.py CHECKPOINT PROGRAM BLOBS

`PROGRAM` is a `main.mlirb` converted with `--rule q4_0`, `BLOBS` what `coreai-bundle inspect --json` says about its package. Every matrix
with codes is quantized again by gguf; scales and codes must be equal bit for bit. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import quantize

from checkpoint import Checkpoint

BLOCK = 32


def reference(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 [n, k] and scales as f16 bits [n, k / 32]. A block is two bytes of scale and 16 of codes, the first half of
    the elements in the low nibbles."""
    blocks = quantize(weights, GGMLQuantizationType.Q4_0).reshape(-1, 18)
    scales = np.ascontiguousarray(blocks[:, :2]).view(np.uint16).reshape(weights.shape[0], -1)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return nibbles.astype(np.int8).reshape(weights.shape) - 8, scales


def unpack(packed: np.ndarray) -> np.ndarray:
    """Codes from si4 bytes, element 0 in the low nibble."""
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1).astype(np.int8)
    return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8)


def judge(checkpoint: Checkpoint, program: np.ndarray, blobs: dict[str, tuple[int, int]]) -> dict[str, object]:
    """Compares every matrix; raises at the first difference."""
    matrices = blocks = 0
    for key in blobs:
        name, part = key.rpartition("/")[::2]
        if part != "codes":
            continue
        stored = {p: program[slice(*blobs[f"{name}/{p}"])] for p in ("codes", "scales")}
        tied = name == "lm_head.weight" and not checkpoint.has(name)
        weights = checkpoint.text("embed_tokens.weight" if tied else name)
        codes, scales = reference(weights)
        ours = np.ascontiguousarray(stored["scales"]).view(np.uint16).reshape(scales.shape)
        # A block of zeros has a scale of zero; gguf keeps the sign of -0 / -8, which no product shows.
        differ = (ours != scales) & ~((ours & 0x7FFF == 0) & (scales & 0x7FFF == 0))
        if differ.any():
            raise ValueError(f"{name}: scale {np.argwhere(differ)[0].tolist()} is not gguf's")
        if (wrong := unpack(stored["codes"]) != codes.reshape(-1)).any():
            raise ValueError(f"{name}: code {np.argwhere(wrong)[0].tolist()} is not gguf's")
        matrices += 1
        blocks += scales.size
    return {"matrices": matrices, "blocks": blocks}


def main(arguments: list[str]) -> int:
    """Judges one package."""
    listed = json.loads(Path(arguments[2]).read_text())["blobs"]
    blobs = {blob["key"]: (blob["offset"], blob["offset"] + blob["bytes"]) for blob in listed}
    verdict = {"check": "q4_0", "status": "passed", "message": "", "detail": {}}
    try:
        program = np.memmap(arguments[1], np.uint8, "r")
        verdict["detail"] = judge(Checkpoint(Path(arguments[0])), program, blobs)
    except Exception as error:  # noqa: BLE001  (whatever went wrong is the verdict)
        verdict |= {"status": "failed", "message": f"{type(error).__name__}: {error}"}
    print(json.dumps(verdict))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
