"""Writes a small package with real debug information: python debug_information.py OUT.aimodel (needs coreai-core==1.0.0b3)."""

import sys
from pathlib import Path
from typing import Annotated

import coreai.authoring as authoring
import numpy as np
from coreai.authoring import AIProgram, Context, DebugInfo, Module, SymbolRefScope, TensorType
from coreai.authoring.graph import graph
from coreai.authoring.operation import Value


SCOPE = SymbolRefScope("main")


def write(path):
    with Context(), Module.create() as module:

        @graph
        def main(
            x: Annotated[Value, TensorType((2, 3), np.float16, name="x")],
        ) -> Annotated[Value, TensorType((2, 3), np.float16, name="y")]:
            steps = authoring.constant.constant(np.arange(6, dtype=np.float16).reshape(2, 3))
            with DebugInfo.file("layer.py", 3, 4).with_scope(SCOPE).with_op_id("torch", 7).activate():
                moved = authoring.broadcasting_add(x, steps)
            with DebugInfo.file("layer.py", 5, end=(6, 7)).with_scope(SCOPE).with_op_id("torch", 8).activate():
                return authoring.relu(moved)

    AIProgram(module).save_asset(Path(path))


write(sys.argv[1])
