"""A checkpoint of a shape as llama.cpp reads it, for benchmarks: `bench_gguf.py CONFIG.json MODEL.gguf` writes random f16 weights.

The architecture is `gemma4`, so that llama.cpp multiplies by matrices of the same shapes and number. There is no tokenizer: tokens
are given as numbers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

ARCHITECTURE = "gemma4"
# Weights that are drawn; every matrix is a repetition of them.
DRAWN = 1 << 20


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    text = config.get("text_config", config)
    writer = GGUFWriter(sys.argv[2], ARCHITECTURE)
    describe(writer, text)
    weights = np.random.default_rng(0).normal(0, 0.02, DRAWN).astype(np.float16)
    for name, shape in matrices(text):
        writer.add_tensor(name, np.resize(weights, shape))
    for name, width in vectors(text):
        writer.add_tensor(name, np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sliding(text: dict) -> list[bool]:
    return [kind == "sliding_attention" for kind in text["layer_types"]]


def head_width(text: dict, is_sliding: bool) -> int:
    return text["head_dim"] if is_sliding else text["global_head_dim"]


def describe(writer: GGUFWriter, text: dict) -> None:
    writer.add_context_length(4096)
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(text["global_head_dim"])
    writer.add_value_length(text["global_head_dim"])
    writer.add_key_length_swa(text["head_dim"])
    writer.add_value_length_swa(text["head_dim"])
    writer.add_rope_dimension_count(text["global_head_dim"])
    writer.add_rope_dimension_count_swa(text["head_dim"])
    writer.add_rope_freq_base(1e6)
    writer.add_rope_freq_base_swa(1e4)
    writer.add_sliding_window(text["sliding_window"])
    writer.add_sliding_window_pattern(sliding(text))
    writer.add_shared_kv_layers(text["num_kv_shared_layers"])
    writer.add_embedding_length_per_layer_input(text["hidden_size_per_layer_input"])
    writer.add_final_logit_softcapping(30.0)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(text["vocab_size"])


def matrices(text: dict) -> list[tuple[str, tuple[int, int]]]:
    hidden, wide, layers = text["hidden_size"], text["intermediate_size"], text["num_hidden_layers"]
    per_layer, vocabulary = text["hidden_size_per_layer_input"], text["vocab_size"]
    found = [
        ("token_embd.weight", (vocabulary, hidden)),
        ("per_layer_token_embd.weight", (vocabulary, per_layer * layers)),
        ("per_layer_model_proj.weight", (per_layer * layers, hidden)),
    ]
    owners = layers - text["num_kv_shared_layers"]
    for layer, is_sliding in enumerate(sliding(text)):
        width = head_width(text, is_sliding)
        queries, keys = text["num_attention_heads"] * width, text["num_key_value_heads"] * width
        shapes = {
            "attn_q": (queries, hidden),
            "attn_output": (hidden, queries),
            "ffn_gate": (wide, hidden),
            "ffn_up": (wide, hidden),
            "ffn_down": (hidden, wide),
            "inp_gate": (per_layer, hidden),
            "proj": (hidden, per_layer),
        }
        if layer < owners:
            shapes |= {"attn_k": (keys, hidden), "attn_v": (keys, hidden)}
        found += [(f"blk.{layer}.{name}.weight", shape) for name, shape in shapes.items()]
    return found


def vectors(text: dict) -> list[tuple[str, int]]:
    hidden = text["hidden_size"]
    found = [
        ("output_norm.weight", hidden),
        ("per_layer_proj_norm.weight", text["hidden_size_per_layer_input"]),
        ("rope_freqs.weight", text["global_head_dim"] // 2),
    ]
    for layer, is_sliding in enumerate(sliding(text)):
        width = head_width(text, is_sliding)
        widths = {
            "attn_norm": hidden,
            "attn_q_norm": width,
            "attn_k_norm": width,
            "post_attention_norm": hidden,
            "ffn_norm": hidden,
            "post_ffw_norm": hidden,
            "post_norm": hidden,
            "layer_output_scale": 1,
        }
        found += [(f"blk.{layer}.{name}.weight", width) for name, width in widths.items()]
    return found


if __name__ == "__main__":
    main()
