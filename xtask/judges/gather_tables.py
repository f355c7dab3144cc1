"""Judges gather tables by computing them again with numpy.

    gather_tables.py CHECKPOINT FOLDER FILE

`FOLDER` is what `coreai-bundle tables` writes, `FILE` what it writes with `--ple safetensors`. Prints one JSON object per check.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import safe_open

from checkpoint import Checkpoint
from tables import quantize_rows


def emit(check: str, status: str, message: str, detail: dict[str, object]) -> None:
    """Prints the verdict of one check."""
    print(json.dumps({"check": check, "status": status, "message": message, "detail": detail}), flush=True)


def judge(check: str, body: Callable[[], dict[str, object]]) -> None:
    """Runs one check; anything raised is a failure."""
    try:
        detail = body()
    except Exception as error:  # noqa: BLE001  (whatever went wrong is the verdict)
        emit(check, "failed", f"{type(error).__name__}: {error}", {})
    else:
        emit(check, "passed", "", detail)


def equal(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raises where two arrays differ in a bit."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise ValueError(f"{name}: {ours.dtype}{ours.shape}, expected {theirs.dtype}{theirs.shape}")
    if ours.tobytes() != theirs.tobytes():
        at = np.argwhere(ours.view(np.uint8) != theirs.view(np.uint8))[0]
        raise ValueError(f"{name}: differs first at {at.tolist()}")


def quantized(folder: Path, stem: str, table: np.ndarray) -> dict[str, object]:
    """Compares a code file and its scale file, and says how far they are from the weights."""
    codes, scale = quantize_rows(table)
    stored = np.fromfile(folder / f"{stem}.i8", np.int8).reshape(table.shape)
    stored_scale = np.fromfile(folder / f"{stem}.scale.f32", np.float32)
    equal(f"{stem}.i8", stored, codes)
    equal(f"{stem}.scale.f32", stored_scale, scale)
    steps = np.abs(stored * stored_scale.astype(np.float64)[:, None] - table) / stored_scale[:, None]
    if steps.max() > 0.5 + 1e-4:
        raise ValueError(f"{stem}: a weight is {steps.max():.4f} steps away")
    zero_rows = int((np.abs(table).max(axis=1) == 0).sum())
    return {"rows": len(table), "zero_rows": zero_rows, "largest_error_in_steps": round(float(steps.max()), 6)}


def plain(folder: Path, name: str, values: np.ndarray) -> dict[str, object]:
    """Compares a file of f32 numbers."""
    equal(name, np.fromfile(folder / name, np.float32), values.reshape(-1))
    return {"elements": values.size}


def single(file: Path, table: np.ndarray, per_layer: int) -> dict[str, object]:
    """Compares the safetensors form, which has one scale."""
    factor = per_layer**0.5
    scaled = table * np.float32(factor)
    scale = np.float32(max(np.abs(scaled).max(), np.float32(1e-6))) / np.float32(127)
    with safe_open(file, "numpy") as stored:
        metadata = stored.metadata()
        equal("embed_tokens_per_layer", stored.get_tensor("embed_tokens_per_layer"),
              np.clip(np.rint(scaled / scale), -128, 127).astype(np.int8))
    expected = {"dtype": "SI8", "embed_scale": str(factor), "ple_scale": str(float(scale)), "ple_zero_point": "0"}
    if metadata != expected:
        raise ValueError(f"metadata {metadata}, expected {expected}")
    return {"scale": float(scale)}


def main(arguments: list[str]) -> int:
    """Judges one set of tables."""
    checkpoint, folder, file = Checkpoint(Path(arguments[0])), Path(arguments[1]), Path(arguments[2])

    def tensor(name: str) -> np.ndarray:
        return checkpoint.text(f"{name}.weight")

    per_layer = tensor("embed_tokens_per_layer")
    judge("embed_per_layer", lambda: quantized(folder, "embed_per_layer", per_layer))
    judge("embed_tokens", lambda: quantized(folder, "embed_tokens", tensor("embed_tokens")))
    judge("proj", lambda: plain(folder, "proj.f32", tensor("per_layer_model_projection")))
    judge("proj_norm", lambda: plain(folder, "proj_norm.f32", tensor("per_layer_projection_norm")))
    judge("safetensors", lambda: single(file, per_layer, checkpoint.config.per_layer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
