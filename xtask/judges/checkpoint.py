"""Reads a checkpoint folder: `config.json` and the bf16 tensors, in one file or sharded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which safetensors asks for by name)
import numpy as np
from safetensors import safe_open

PREFIX = "model.language_model."


@dataclass(frozen=True)
class Config:
    """The facts of the text decoder that the judges need."""

    vocabulary: int
    hidden: int
    layers: int
    per_layer: int
    heads: int
    kv_heads: int
    full_kv_heads: int
    keys_are_values: bool
    """Whether full layers take their values from the key projection."""
    head_dim: int
    global_head_dim: int
    kv_shared: int
    sliding_window: int
    full_attention: tuple[bool, ...]
    softcap: float
    eps: float
    sliding_theta: float
    full_theta: float
    full_rotary: float

    @staticmethod
    def read(path: Path) -> Config:
        text = json.loads(path.read_text())
        text = text.get("text_config", text)
        rope = text["rope_parameters"]
        keys_are_values = bool(text.get("attention_k_eq_v"))
        kv_heads = text["num_key_value_heads"]
        return Config(
            vocabulary=text["vocab_size"],
            hidden=text["hidden_size"],
            layers=text["num_hidden_layers"],
            per_layer=text.get("hidden_size_per_layer_input") or 0,
            heads=text["num_attention_heads"],
            kv_heads=kv_heads,
            full_kv_heads=text["num_global_key_value_heads"] if keys_are_values else kv_heads,
            keys_are_values=keys_are_values,
            head_dim=text["head_dim"],
            global_head_dim=text["global_head_dim"],
            kv_shared=text["num_kv_shared_layers"],
            sliding_window=text["sliding_window"],
            full_attention=tuple(kind == "full_attention" for kind in text["layer_types"]),
            softcap=text["final_logit_softcapping"],
            eps=text["rms_norm_eps"],
            sliding_theta=rope["sliding_attention"]["rope_theta"],
            full_theta=rope["full_attention"]["rope_theta"],
            full_rotary=rope["full_attention"]["partial_rotary_factor"],
        )

    @property
    def owners(self) -> int:
        """Layers that project K and V themselves; each owns one cache slot."""
        return self.layers - self.kv_shared

    def kv_source(self, layer: int) -> int:
        """The layer whose K and V `layer` reads: itself, or the last owner of its own type."""
        if layer < self.owners:
            return layer
        kind = self.full_attention[layer]
        return max(owner for owner in range(self.owners) if self.full_attention[owner] == kind)


class Checkpoint:
    """A checkpoint folder. Tensors are read one at a time, as f32."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = Config.read(folder / "config.json")

    @cached_property
    def _files(self) -> dict[str, Path]:
        index = self.folder / "model.safetensors.index.json"
        if index.exists():
            names = json.loads(index.read_text())["weight_map"]
            return {tensor: self.folder / file for tensor, file in names.items()}
        single = self.folder / "model.safetensors"
        with safe_open(single, "numpy") as tensors:
            return dict.fromkeys(tensors.keys(), single)

    def has(self, name: str) -> bool:
        """Whether the tensor of that full name exists."""
        return name in self._files

    def get(self, name: str) -> np.ndarray:
        """The tensor of that full name, as f32."""
        with safe_open(self._files[name], "numpy") as tensors:
            return tensors.get_tensor(name).astype(np.float32)

    def text(self, name: str) -> np.ndarray:
        """A tensor of the text decoder, named without the prefix."""
        return self.get(PREFIX + name)
