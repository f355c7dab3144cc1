"""How Apple's own loader sees a package, before it is run.

`AIModelAsset.load(path)` reads only `metadata.json`; `is_valid(path)` looks at the folder; `summary()` parses the
bytecode in the runtime; `program` parses it with the compiler, whose module can be verified and saved again with
`save_asset`, which serializes from scratch: if the bytes are the same, the file is canonical.
A missing `main.mlirb` crashes the process and a broken one aborts it, so each job runs in a separate process.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from coreai.authoring import AIModelAsset
from coreai.runtime import InferenceFunctionDescriptor, NDArrayDescriptor

from checkpoint import Config

DYNAMIC = -1
"""A dynamic axis in the runtime's descriptors, whose documentation says None."""

CHUNK = 1 << 24


class Rejected(Exception):
    """A package does not hold what it must; the text says what."""


def load(path: Path, functions: list[str]) -> tuple[AIModelAsset, dict[str, object]]:
    """Loads, verifies and summarizes a package: the asset, and its facts for the report."""
    asset = AIModelAsset.load(path)
    if not AIModelAsset.is_valid(path):
        raise Rejected("AIModelAsset.is_valid says no")
    summary = asset.summary(include_statistics=True)
    if summary is None or sorted(summary.function_names) != sorted(functions):
        raise Rejected(f"functions are {summary and list(summary.function_names)}, expected {functions}")
    asset.program._module.verify()  # The facade does not have verify; saving runs the same one.
    return asset, {
        "bytes": (path / "main.mlirb").stat().st_size,
        "compatibility": summary._compatibility_version,
        "storage": {name: count for name, count in summary.storage_types},
        "operations": sum(count for _, count in summary.operation_distribution),
    }


def check_fixed_point(path: Path, asset: AIModelAsset) -> dict[str, object]:
    """Saves the program again and compares `main.mlirb` byte for byte; `main.hash` must be its SHA-256."""
    ours = path / "main.mlirb"
    with ours.open("rb") as file:
        if (path / "main.hash").read_bytes() != hashlib.file_digest(file, "sha256").digest():
            raise Rejected("main.hash is not the SHA-256 of main.mlirb")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.aimodel"
        asset.program.save_asset(copy)
        apples = copy / "main.mlirb"
        if (first := first_difference(ours, apples)) is not None:
            sizes = f"{apples.stat().st_size} bytes, was {ours.stat().st_size}"
            raise Rejected(f"saved again, main.mlirb has {sizes}; first difference at byte {first}")
    return {}


def first_difference(left: Path, right: Path) -> int | None:
    """Offset of the first byte that differs, or where the shorter file ends; None if the files are equal."""
    start = 0
    with left.open("rb") as a, right.open("rb") as b:
        while True:
            x, y = a.read(CHUNK), b.read(CHUNK)
            if x != y:
                shorter = min(len(x), len(y))
                return start + next((i for i in range(shorter) if x[i] != y[i]), shorter)
            if not x:
                return None
            start += len(x)


@dataclass(frozen=True)
class Argument:
    """Shape and element type of an argument; a dynamic axis is -1."""

    shape: tuple[int, ...]
    dtype: str

    @staticmethod
    def of(descriptor: NDArrayDescriptor) -> Argument:
        return Argument(tuple(DYNAMIC if size is None else size for size in descriptor.shape), descriptor.dtype)


def expected_inputs(variant: str, queries: int, config: Config) -> dict[str, Argument]:
    """The inputs of a variant's function, in order."""
    inputs = {
        "input_ids": Argument((1, queries), "int32"),
        "position_ids": Argument((1, DYNAMIC), "int32"),
    }
    if variant == "provider":
        inputs["ple_tokens"] = Argument((1, 1, config.layers, config.per_layer), "float16")
    elif variant == "tbl":
        inputs["ple_table"] = Argument((config.vocabulary, config.layers * config.per_layer), "int8")
        inputs["ple_scale"] = Argument((config.vocabulary,), "float32")
    elif variant != "stock":
        raise ValueError(f"unknown variant {variant!r}")
    return inputs


def expected_states(cache_pairs: int, config: Config) -> dict[str, Argument]:
    """The states, in order: what all layers share is as large as the largest needs it."""

    def cache(slots: int, heads: int, width: int) -> Argument:
        return Argument((slots, 1, heads, DYNAMIC, width), "float16")

    if cache_pairs == 1:
        shared = cache(config.owners, config.kv_heads, config.global_head_dim)
        return {"keyCache": shared, "valueCache": shared}
    full_layers = sum(config.full_attention[: config.owners])
    sliding = cache(config.owners - full_layers, config.kv_heads, config.head_dim)
    full = cache(full_layers, config.full_kv_heads, config.global_head_dim)
    return {"keyCache": sliding, "valueCache": sliding, "keyCacheFull": full, "valueCacheFull": full}


@dataclass(frozen=True)
class Expected:
    """What a function's signature follows from, besides the configuration."""

    variant: str
    cache_pairs: int
    queries: int
    has_logits: bool


def check_signature(
    description: InferenceFunctionDescriptor, function: Expected, config: Config
) -> dict[str, object]:
    """Compares inputs, states and outputs of a function, in order, with the engine's contract."""
    logits = Argument((1, function.queries, config.vocabulary), "float16")
    expected = {
        "inputs": expected_inputs(function.variant, function.queries, config),
        "states": expected_states(function.cache_pairs, config),
        "outputs": {"logits": logits} if function.has_logits else {},
    }
    found = {
        "inputs": {name: Argument.of(description.input_descriptor(name)) for name in description.input_names},
        "states": {name: Argument.of(description.state_descriptor(name)) for name in description.state_names},
        "outputs": {name: Argument.of(description.output_descriptor(name)) for name in description.output_names},
    }
    for kind, arguments in expected.items():
        if list(found[kind].items()) != list(arguments.items()):
            raise Rejected(f"{kind} are {found[kind]}, expected {arguments}")
    return {kind: list(arguments) for kind, arguments in found.items()}
