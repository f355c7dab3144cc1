"""Logits of a package on Apple's runtime (coreai-core for Linux), one token at a time through the package's own caches.

    python apple_logits.py PACKAGE.aimodel CHECKPOINT_DIR IDS.json OUT.f16

IDS.json is a list of token ids. OUT.f16 gets the logits of every position as little-endian f16, [positions, vocabulary].
Per-layer rows come from the checkpoint, quantized to int8 a row as the host's tables are. Needs coreai-core, numpy, safetensors, ml_dtypes.
"""

import asyncio
import json
import pathlib
import sys

import ml_dtypes  # noqa: F401  (numpy learns bfloat16)
import numpy as np
from coreai.authoring import AIModelAsset
from coreai.runtime import NDArray
from safetensors.numpy import load_file


def tables(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    rows = weights["model.language_model.embed_tokens_per_layer.weight"].astype(np.float32)
    largest = np.maximum(np.abs(rows).max(axis=1), np.float32(1e-12))
    scale = (largest / np.float32(127)).astype(np.float32)
    codes = np.clip(np.rint(rows / scale[:, None]), -127, 127).astype(np.int8)
    return codes, scale


def states(description, positions):
    made = {}
    for name in description.state_names:
        shape = [positions if extent < 0 else extent for extent in description.state_descriptor(name).shape]
        made[name] = NDArray(np.zeros(shape, np.float16))
    return made


async def main(package, checkpoint, ids, out):
    config = json.loads((checkpoint / "config.json").read_text())["text_config"]
    layers, width = config["num_hidden_layers"], config["hidden_size_per_layer_input"]
    codes, scale = tables(checkpoint)
    async with AIModelAsset.load(package).executable() as model:
        function = model.load_function("main")
        names = function.desc.input_names
        positions = 256
        while positions < len(ids):
            positions *= 2
        state = states(function.desc, positions)
        with open(out, "wb") as file:
            for at, token in enumerate(ids):
                inputs = {
                    "input_ids": NDArray(np.array([[token]], np.int32)),
                    "position_ids": NDArray(np.arange(at + 1, dtype=np.int32)[None]),
                }
                if "ple_tokens" in names:
                    row = codes[token].astype(np.float32) * scale[token] * np.float32(width**0.5)
                    inputs["ple_tokens"] = NDArray(row.astype(np.float16).reshape(1, 1, layers, width))
                if "ple_table" in names:
                    inputs |= {"ple_table": NDArray(codes), "ple_scale": NDArray(scale)}
                result = await function(inputs=inputs, state=state)
                file.write(result["logits"].numpy().astype("<f2").tobytes())

package, checkpoint, ids, out = map(pathlib.Path, sys.argv[1:5])
asyncio.run(main(package, checkpoint, json.loads(ids.read_text()), out))
