"""The per-layer embedding rows as the host of a bundle reads them: int8 codes and one f32 scale per row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from checkpoint import Checkpoint


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rule of the gather tables: `scale = max|row| / 127`, codes rounded half to even."""
    largest = np.maximum(np.abs(table).max(axis=1), np.float32(1e-12))
    scale = (largest / np.float32(127)).astype(np.float32)
    codes = np.clip(np.rint(table / scale[:, None]), -127, 127).astype(np.int8)
    return codes, scale


@dataclass(frozen=True)
class PerLayerTable:
    """`codes` int8 [vocabulary, layers * per_layer] and `scale` f32 [vocabulary]."""

    codes: np.ndarray
    scale: np.ndarray

    @staticmethod
    def quantize(checkpoint: Checkpoint) -> PerLayerTable:
        """Computes the table from the checkpoint."""
        return PerLayerTable(*quantize_rows(checkpoint.text("embed_tokens_per_layer.weight")))

    @staticmethod
    def dump(folder: Path) -> PerLayerTable:
        """Reads `embed_per_layer.i8` and its scales from a table folder; the shapes follow from the lengths."""
        scale = np.fromfile(folder / "embed_per_layer.scale.f32", np.dtype("<f4"))
        codes = np.memmap(folder / "embed_per_layer.i8", np.int8, "r").reshape(len(scale), -1)
        return PerLayerTable(codes, scale)

    def equals(self, other: PerLayerTable) -> bool:
        """Whether both hold the same bits."""
        return np.array_equal(self.codes, other.codes) and np.array_equal(
            self.scale.view(np.uint32), other.scale.view(np.uint32)
        )

    def tokens(self, token: int, layers: int, per_layer: int) -> np.ndarray:
        """The provider graph's `ple_tokens` of one token: f16 [1, 1, layers, per_layer]."""
        row = self.codes[token].astype(np.float32) * self.scale[token] * np.float32(per_layer**0.5)
        return row.astype(np.float16).reshape(1, 1, layers, per_layer)
