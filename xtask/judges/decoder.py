"""The Gemma 4 text decoder in f32 numpy: the reference that a package's logits are measured against.

It is written from the description of the forward pass alone and shares nothing with the converter, so that both
being wrong in the same way is unlikely. `check_reference` in `apple.py` compares it with the oracle of `transformers`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from checkpoint import Checkpoint, Config

Array = np.ndarray


def rms_norm(x: Array, weight: Array | None, eps: float) -> Array:
    """`x / rms(x) * weight` over the last axis; the plain weight, or none."""
    normed = x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float32) + np.float32(eps))
    return normed if weight is None else normed * weight


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of GELU."""
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def rotations(config: Config, full: bool, positions: int) -> tuple[Array, Array]:
    """Cosine and sine [positions, head_dim / 2] of every frequency pair; pairs that do not rotate have frequency 0."""
    width = config.global_head_dim if full else config.head_dim
    theta = config.full_theta if full else config.sliding_theta
    pairs = np.arange(width // 2)
    frequencies = theta ** (-2.0 * pairs / width)
    if full:
        frequencies[int(config.full_rotary * width) // 2 :] = 0.0
    angles = np.arange(positions)[:, None] * frequencies.astype(np.float32)
    return np.cos(angles, dtype=np.float32), np.sin(angles, dtype=np.float32)


def rotate(x: Array, rotation: tuple[Array, Array]) -> Array:
    """RoPE on `x` [positions, heads, width]: the two halves of a head are the two coordinates of its pairs."""
    cos, sin = (part[:, None, :] for part in rotation)
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def attend(q: Array, k: Array, v: Array, window: int | None) -> Array:
    """Causal attention with scale 1 over [positions, heads, width]; `window` limits how far back a position sees."""
    positions, heads, _ = q.shape
    group = heads // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    distance = np.arange(positions)[:, None] - np.arange(positions)[None, :]
    visible = distance >= 0
    if window is not None:
        visible &= distance < window
    scores = np.einsum("qhd,khd->hqk", q, k, optimize=True)
    scores = np.where(visible, scores, np.float32(-np.inf))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", scores, v, optimize=True).reshape(positions, -1)


class Decoder:
    """Teacher-forced logits of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config

    def logits(self, ids: Sequence[int]) -> Array:
        """f32 [positions, vocabulary]: row `i` is the prediction after `ids[: i + 1]`."""
        config, text = self.config, self.checkpoint.text
        tokens, count = np.asarray(ids), len(ids)
        embedding = text("embed_tokens.weight")
        x = embedding[tokens] * np.float32(config.hidden**0.5)
        per_layer = self._per_layer_inputs(x, tokens) if config.per_layer else None
        rotation = {full: rotations(config, full, count) for full in (False, True)}
        slots: dict[int, tuple[Array, Array]] = {}
        for layer in range(config.layers):
            rows = None if per_layer is None else per_layer[:, layer]
            x = self._layer(layer, x, rows, rotation[config.full_attention[layer]], slots)
        head = self.checkpoint.get("lm_head.weight") if self.checkpoint.has("lm_head.weight") else embedding
        raw = rms_norm(x, text("norm.weight"), config.eps) @ head.T
        return np.tanh(raw / np.float32(config.softcap)) * np.float32(config.softcap)

    def _per_layer_inputs(self, x: Array, tokens: Array) -> Array:
        """f32 [positions, layers, per_layer]: the projected embedding and the token's own rows, averaged."""
        config, text = self.config, self.checkpoint.text
        shape = (len(tokens), config.layers, config.per_layer)
        projected = x @ text("per_layer_model_projection.weight").T * np.float32(config.hidden**-0.5)
        projected = rms_norm(projected.reshape(shape), text("per_layer_projection_norm.weight"), config.eps)
        rows = text("embed_tokens_per_layer.weight")[tokens] * np.float32(config.per_layer**0.5)
        return (projected + rows.reshape(shape)) * np.float32(2**-0.5)

    def _layer(
        self,
        layer: int,
        x: Array,
        per_layer: Array | None,
        rotation: tuple[Array, Array],
        slots: dict[int, tuple[Array, Array]],
    ) -> Array:
        config = self.config

        def weight(name: str) -> Array:
            return self.checkpoint.text(f"layers.{layer}.{name}.weight")

        def norm(name: str, value: Array) -> Array:
            return rms_norm(value, weight(name), config.eps)

        def project(name: str, value: Array) -> Array:
            return value @ weight(name).T

        full = config.full_attention[layer]
        width = config.global_head_dim if full else config.head_dim
        hidden = norm("input_layernorm", x)
        q = project("self_attn.q_proj", hidden).reshape(len(x), config.heads, width)
        q = rotate(norm("self_attn.q_norm", q), rotation)
        if layer < config.owners:
            heads = (len(x), config.full_kv_heads if full else config.kv_heads, width)
            k = project("self_attn.k_proj", hidden).reshape(heads)
            v = k if full and config.keys_are_values else project("self_attn.v_proj", hidden).reshape(heads)
            slots[layer] = rotate(norm("self_attn.k_norm", k), rotation), rms_norm(v, None, config.eps)
        k, v = slots[config.kv_source(layer)]
        attention = attend(q, k, v, None if full else config.sliding_window)
        x = x + norm("post_attention_layernorm", project("self_attn.o_proj", attention))

        hidden = norm("pre_feedforward_layernorm", x)
        gated = gelu_tanh(project("mlp.gate_proj", hidden)) * project("mlp.up_proj", hidden)
        x = x + norm("post_feedforward_layernorm", project("mlp.down_proj", gated))

        if per_layer is not None:
            gated = gelu_tanh(project("per_layer_input_gate", x)) * per_layer
            x = x + norm("post_per_layer_input_norm", project("per_layer_projection", gated))
        return x * self.checkpoint.text(f"layers.{layer}.layer_scalar")
