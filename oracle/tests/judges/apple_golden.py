"""Makes `oracle/tests/golden/<package>.json` with Apple's runtime (coreai-core 1.0.0b3 for Linux).

    python apple_golden.py PACKAGE.aimodel CHECKPOINT_DIR GOLDEN.json ORACLE.json..

Feeds each oracle's sequences one token at a time through the package's own caches, from empty ones, and records for every position
the arg-max and the first 8 bytes of the SHA-256 of the logits as little-endian f16. Per-layer rows come from the checkpoint,
quantized to int8 a row as the host's tables are. Needs coreai-core, numpy, safetensors, ml_dtypes. About 0.3 s a token.
"""

import asyncio
import hashlib
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


async def logits(function, checkpoint, ids):
    config = json.loads((checkpoint / "config.json").read_text())["text_config"]
    layers, width = config["num_hidden_layers"], config["hidden_size_per_layer_input"]
    codes, scale = tables(checkpoint)
    names = function.desc.input_names
    state = states(function.desc, 256 * 2 ** max(0, (len(ids) - 1).bit_length() - 8))
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
        yield result["logits"].numpy().astype("<f2").reshape(-1)


def record(rows):
    return {
        "arg_max": [int(row.argmax()) for row in rows],
        "digests": [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows],
    }


async def main(package, checkpoint, golden, oracles):
    cases = [case for oracle in oracles for case in json.loads(oracle.read_text())["cases"]]
    made = []
    async with AIModelAsset.load(package).executable() as model:
        function = model.load_function("main")
        for case in cases:
            ids = case["prompt_ids"] + case["generated_ids"]
            made.append(record([row async for row in logits(function, checkpoint, ids)]))
    golden.write_text(json.dumps({"runtime": "coreai-core 1.0.0b3, Linux", "cases": made}) + "\n")


if __name__ == "__main__":
    package, checkpoint, golden, *oracles = map(pathlib.Path, sys.argv[1:])
    asyncio.run(main(package, checkpoint, golden, oracles))
