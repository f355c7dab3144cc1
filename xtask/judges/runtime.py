"""Feeds a package through Apple's runtime as the engine does: one token at a time, or a prompt in chunks.

What the wheel (coreai-core 1.0.0b3) requires of a caller:

- `AIModelAsset.executable()` is an async context manager that lowers the program into a temporary folder and loads
  it; `model.load_function("main")` returns an awaitable function, called as `await function(inputs=..., state=...)`.
  Functions of one package share states by being passed the same arrays.
  On Linux the runtime computes on one thread; calls in one process run one after the other.
- Inputs and states are dictionaries of `NDArray`, by the `aicode.name` of the argument. `NDArray(array)` takes the
  dtype of the numpy array, which must be the argument's own (int32, float16, int8, float32).
- Handles are the *states*: an `NDArray` of any size on the dynamic axis, passed as `state={"keyCache": ...}`. The
  call writes into it in place, and `.numpy()` is a view of it. The descriptor shows a dynamic axis as -1.
- The runtime reads the cache's length from the array that is passed, at every call: growing a cache means passing a
  larger array that begins with the old content. A position past the end is not noticed: the write is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from coreai.authoring import AIModelAsset
from coreai.runtime import InferenceFunction, InferenceFunctionDescriptor, NDArray

from checkpoint import Config
from tables import PerLayerTable

FIRST_CAPACITY = 16
"""Positions of a fresh cache, which is doubled when it is full. The engine starts at 256; here every sequence makes its caches grow."""


@dataclass(frozen=True)
class Feeding:
    """How a sequence is fed: how many tokens go through `prefill` first, and the longest chunks of either function."""

    prefilled: float = 0.0
    """The part of the sequence that `prefill` reads; its positions have no logits."""
    prefill_width: int = 1
    main_width: int = 1
    fixed_width: int = 0
    """Tokens that a `prefill` with logits takes, if there is one: it gets as many full chunks as there are."""
    garbage: bool = False
    """Whether the caches hold noise at first: what is beyond the cursor must not matter."""

    @staticmethod
    def parse(text: str) -> Feeding:
        """`one`, `main N`, `prefill N` (then one by one), `prefill N main M` or `fixed N` (a `prefill` with logits, then one by one);
        caches of all but `one` begin as noise."""
        match text.split():
            case ["one"]:
                return Feeding()
            case ["main", width]:
                return Feeding(main_width=int(width), garbage=True)
            case ["prefill", width]:
                return Feeding(0.75, int(width), garbage=True)
            case ["prefill", width, "main", main]:
                return Feeding(0.5, int(width), int(main), garbage=True)
            case ["fixed", width]:
                return Feeding(fixed_width=int(width), garbage=True)
        raise ValueError(f"unknown feeding {text!r}")


def chunks(count: int, width: int) -> list[int]:
    """Lengths of the fewest chunks of at most `width`, which differ by at most one."""
    number = -(-count // width)
    return [count // number + (at < count % number) for at in range(number)]


WHOLE_CONTEXT = 1024
"""Positions of the states that the engine allocates for the whole context at once: all but the first two."""


class Caches:
    """The states: the first two grow by doubling axis 3, others hold the whole context from the start."""

    def __init__(self, description: InferenceFunctionDescriptor, garbage: bool = False) -> None:
        self._noise = np.random.default_rng(0) if garbage else None
        self._names = list(description.state_names)
        self._shapes = {name: list(description.state_descriptor(name).shape) for name in self._names}
        self._growing = set(self._names[:2])
        self.capacity = FIRST_CAPACITY
        self.state = {name: self._array(name) for name in self._names}

    def _array(self, name: str, content: np.ndarray | None = None) -> NDArray:
        positions = self.capacity if name in self._growing else WHOLE_CONTEXT
        shape = [*self._shapes[name][:3], positions, *self._shapes[name][4:]]
        array = np.zeros(shape, np.float16)
        if self._noise is not None:
            array[:] = self._noise.normal(scale=100, size=shape)
        if content is not None:
            array[:, :, :, : content.shape[3]] = content
        return NDArray(array)

    def reserve(self, positions: int) -> None:
        """Makes room for this many positions, keeping what is cached."""
        while self.capacity < positions:
            self.capacity *= 2
            self.state |= {name: self._array(name, self.state[name].numpy()) for name in self._growing}


class PerLayerRows:
    """Passes a graph the per-layer rows in the form its inputs require: per token, bound once, or not at all."""

    def __init__(self, names: Sequence[str], table: PerLayerTable | None, config: Config) -> None:
        self._table = table
        self._config = config
        self._per_token = "ple_tokens" in names
        self._bound = (
            {"ple_table": NDArray(table.codes), "ple_scale": NDArray(table.scale)}
            if table and "ple_table" in names
            else {}
        )

    def inputs(self, tokens: Sequence[int]) -> dict[str, NDArray]:
        """The inputs besides `input_ids` and `position_ids` of the call that feeds these tokens."""
        if not self._per_token or self._table is None:
            return self._bound
        [token] = tokens
        rows = self._table.tokens(token, self._config.layers, self._config.per_layer)
        return {"ple_tokens": NDArray(rows)}


class Session:
    """The loaded functions of a package."""

    def __init__(self, functions: dict[str, InferenceFunction], table: PerLayerTable | None, config: Config) -> None:
        self._functions = functions
        self.descriptions = {name: function.desc for name, function in functions.items()}
        self._rows = PerLayerRows(self.descriptions["main"].input_names, table, config)

    async def _call(self, name: str, caches: Caches, past: int, tokens: Sequence[int]) -> Mapping[str, NDArray]:
        caches.reserve(past + len(tokens))
        inputs = {
            "input_ids": NDArray(np.array([tokens], np.int32)),
            "position_ids": NDArray(np.arange(past + len(tokens), dtype=np.int32)[None]),
            **self._rows.inputs(tokens),
        }
        return await self._functions[name](inputs=inputs, state=caches.state)

    async def logits(self, ids: Sequence[int], feeding: Feeding) -> np.ndarray:
        """f32 [positions, vocabulary] of the last positions of one sequence: those that have logits."""
        caches = Caches(self.descriptions["main"], feeding.garbage)
        past = 0
        if prefilled := min(int(len(ids) * feeding.prefilled), len(ids) - 1):
            for count in chunks(prefilled, feeding.prefill_width):
                await self._call("prefill", caches, past, ids[past : past + count])
                past += count
        rows = []
        full = len(ids) // feeding.fixed_width if feeding.fixed_width else 0
        calls = [("prefill", feeding.fixed_width)] * full
        calls += [("main", count) for count in chunks(len(ids) - past - full * feeding.fixed_width, feeding.main_width)]
        for name, count in calls:
            outputs = await self._call(name, caches, past, ids[past : past + count])
            rows.append(outputs["logits"].numpy().astype(np.float32).reshape(count, -1))
            past += count
        return np.concatenate(rows)


@asynccontextmanager
async def open_session(asset: AIModelAsset, table: PerLayerTable | None, config: Config) -> AsyncIterator[Session]:
    """Loads the package's functions; the runtime's resources live as long as the block."""
    names = asset.summary().function_names
    async with asset.executable() as model:
        yield Session({name: model.load_function(name) for name in names}, table, config)
