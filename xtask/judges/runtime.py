"""Steps a package through Apple's runtime, one token at a time, as the engine does.

What the wheel (coreai-core 1.0.0b3) asks of a caller:

- `AIModelAsset.executable()` is an async context manager that lowers the program into a temporary folder and loads
  it; `model.load_function("main")` gives an awaitable function, called as `await function(inputs=..., state=...)`.
  On Linux the runtime computes on one thread; calls in one process run one after the other.
- Inputs and states are dictionaries of `NDArray`, by the `aicode.name` of the argument. `NDArray(array)` takes the
  dtype of the numpy array, which must be the argument's own (int32, float16, int8, float32).
- Handles are the *states*: an `NDArray` of any size on the dynamic axis, passed as `state={"keyCache": ...}`. The
  call writes into it in place, and `.numpy()` is a view of it. The descriptor shows a dynamic axis as -1.
- The runtime reads the cache's length from the array that it is given, at every call: growing a cache means passing a
  larger array that begins with the old content. A position past the end is not noticed: the write is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
from coreai.authoring import AIModelAsset
from coreai.runtime import InferenceFunction, InferenceFunctionDescriptor, NDArray

from checkpoint import Config
from tables import PerLayerTable

FIRST_CAPACITY = 256
"""Positions of a fresh cache; the engine starts here and doubles."""


class Caches:
    """The two states, grown by doubling axis 3."""

    def __init__(self, description: InferenceFunctionDescriptor) -> None:
        self._names = list(description.state_names)
        self._shapes = {name: list(description.state_descriptor(name).shape) for name in self._names}
        self.capacity = FIRST_CAPACITY
        self.state = {name: self._array(name) for name in self._names}

    def _array(self, name: str, content: np.ndarray | None = None) -> NDArray:
        shape = [*self._shapes[name][:3], self.capacity, *self._shapes[name][4:]]
        array = np.zeros(shape, np.float16)
        if content is not None:
            array[:, :, :, : content.shape[3]] = content
        return NDArray(array)

    def reserve(self, positions: int) -> None:
        """Makes room for that many positions, keeping what is cached."""
        while self.capacity < positions:
            self.capacity *= 2
            self.state = {name: self._array(name, self.state[name].numpy()) for name in self._names}


class PerLayerRows:
    """Gives a graph the per-layer rows in the form its inputs ask for: per token, bound once, or not at all."""

    def __init__(self, names: Sequence[str], table: PerLayerTable, config: Config) -> None:
        self._table = table
        self._config = config
        self._per_token = "ple_tokens" in names
        self._bound = (
            {"ple_table": NDArray(table.codes), "ple_scale": NDArray(table.scale)} if "ple_table" in names else {}
        )

    def inputs(self, token: int) -> dict[str, NDArray]:
        """The inputs besides `input_ids` and `position_ids` of the step that feeds `token`."""
        if not self._per_token:
            return self._bound
        rows = self._table.tokens(token, self._config.layers, self._config.per_layer)
        return {"ple_tokens": NDArray(rows)}


class Session:
    """A loaded function `main` of a package."""

    def __init__(self, function: InferenceFunction, table: PerLayerTable, config: Config) -> None:
        self._function = function
        self.description = function.desc
        self._rows = PerLayerRows(self.description.input_names, table, config)

    async def logits(self, ids: Sequence[int]) -> np.ndarray:
        """f32 [positions, vocabulary] of one sequence fed token by token from empty caches."""
        caches = Caches(self.description)
        steps = []
        for position, token in enumerate(ids):
            caches.reserve(position + 1)
            inputs = {
                "input_ids": NDArray(np.array([[token]], np.int32)),
                "position_ids": NDArray(np.arange(position + 1, dtype=np.int32)[None]),
                **self._rows.inputs(token),
            }
            outputs = await self._function(inputs=inputs, state=caches.state)
            steps.append(outputs["logits"].numpy().reshape(-1).astype(np.float32))
        return np.stack(steps)


@asynccontextmanager
async def open_session(asset: AIModelAsset, table: PerLayerTable, config: Config) -> AsyncIterator[Session]:
    """Loads the package's `main`; the runtime's resources live as long as the block."""
    async with asset.executable() as model:
        yield Session(model.load_function("main"), table, config)
