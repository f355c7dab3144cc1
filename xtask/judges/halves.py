"""Compares the conversions that are preloaded into Apple's runtime with those of Swift's library that they stand for.

    halves.py LIBRARY

Takes every half, and the singles at and around every third half and the midpoint to the next one, where rounding changes. Prints one
JSON object per check.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import coreai.runtime
import numpy as np

from verdict import judge

SWIFT = Path(coreai.runtime.__file__).parent / "lib/swift/linux/libswiftCore.so"


class Register(ctypes.Structure):
    """A single, or a half in its low bits, as it is passed: no bit of it is converted on the way."""

    _fields_ = [("single", ctypes.c_float)]


def results(library: Path, name: str, bits: np.ndarray) -> np.ndarray:
    """What a library's function makes of these registers."""
    function = getattr(ctypes.CDLL(str(library)), name)
    function.argtypes, function.restype = [Register], Register
    registers = (Register.from_buffer_copy(register) for register in bits.astype("<u4"))
    return np.frombuffer(b"".join(bytes(function(register)) for register in registers), "<u4")


def compare(library: Path, name: str, bits: np.ndarray, mask: int) -> dict[str, object]:
    """Fails at the first difference in the bits of the mask."""
    ours, swift = (results(file, name, bits) & mask for file in (library, SWIFT))
    if len(wrong := np.flatnonzero(ours != swift)):
        at = wrong[0]
        raise ValueError(f"{name} of {bits[at]:#x} is {ours[at]:#x}, and {swift[at]:#x} by Swift")
    return {"numbers": len(bits)}


def singles() -> np.ndarray:
    """Bits of the singles at and around every third half and its midpoint to the next one."""
    halves = np.arange(0, 1 << 16, 3, np.uint16)
    exact, following = (part.view(np.float16).astype(np.float32) for part in (halves, halves + np.uint16(1)))
    with np.errstate(all="ignore"):
        decisive = np.concatenate([exact, (exact + following) / 2]).view(np.uint32)
    return np.concatenate([decisive - np.uint32(1), decisive, decisive + np.uint32(1)])


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit code."""
    [library] = map(Path, arguments)
    judge("halves to singles", lambda: compare(library, "__extendhfsf2", np.arange(1 << 16, dtype=np.uint32), 0xFFFFFFFF))
    judge("singles to halves", lambda: compare(library, "__truncsfhf2", singles(), 0xFFFF))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
