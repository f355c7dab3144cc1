"""Writes blocks of bf16 weights with the results of GGML's reference quantizer, as `gguf` has it in numpy, by the Q4_0 rule.

    pip install gguf==0.19.0
    python q4_0_golden.py q4_0.golden                 # the committed file
    python q4_0_golden.py fresh.golden --seed 7       # others, for Q4_0_GOLDEN=fresh.golden cargo test -p quantizer --test it gguf

A record has 82 bytes: 32 weights (bf16), the scale (f16), 16 bytes of codes, two each in two's complement, the even-numbered
element in the low half; all little-endian.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Callable

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import quantize

BLOCK = 32
# Below this extremum GGML divides by a scale whose reciprocal is infinite, from the second on the scale is; neither is defined.
SMALLEST, OVERFLOW = 2.0**-124, 524160.0


class Random:
    """splitmix64: the same numbers with every version of Python and numpy."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def below(self, bound: int) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        x = self.state
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return (x ^ (x >> 31)) % bound

    def sign(self) -> int:
        return 1 - 2 * self.below(2)

    def uniform(self) -> float:
        return self.below(2**24) / 2**23 - 1

    def bits(self, low: int, high: int) -> int:
        return (low + self.below(high - low)) | self.below(2) << 15


def bf16_bits(value: float) -> int:
    """Rounded toward zero, which is as good as any rounding here."""
    return int(np.float32(value).view(np.uint32)) >> 16


def smooth(random: Random) -> list[int]:
    deviation = 2.0 ** -(3 + random.below(12))
    return [bf16_bits(deviation * (random.uniform() + random.uniform() + random.uniform())) for _ in range(BLOCK)]


def anything(random: Random) -> list[int]:
    return [random.bits(0, 0x48FF) for _ in range(BLOCK)]


def one_binade(random: Random) -> list[int]:
    exponent = (100 + random.below(43)) << 7
    return [random.bits(exponent, exponent + 128) for _ in range(BLOCK)]


def subnormal_scales(random: Random) -> list[int]:
    return [random.bits(0, 0x3880 + random.below(0x300)) for _ in range(BLOCK)]


def bf16_subnormals(random: Random) -> list[int]:
    block = [random.bits(0, 0x80) for _ in range(BLOCK)]
    block[random.below(BLOCK)] = random.bits(0x0180, 0x0800)
    return block


def halves_of_a_step(random: Random) -> list[int]:
    """Multiples of a sixteenth of the extremum: every other one lies between two codes."""
    unit = 2.0 ** -(2 + random.below(10)) * (1 + random.below(8) / 8)
    block = [bf16_bits(unit * (random.below(33) - 16) / 2) for _ in range(BLOCK)]
    block[random.below(BLOCK)] = bf16_bits(8 * unit * random.sign())
    return block


def tied_extrema(random: Random) -> list[int]:
    """The largest magnitude several times, either sign first."""
    extremum = random.bits(0x3B00, 0x3E00) & 0x7FFF
    block = [random.bits(0, extremum) for _ in range(BLOCK)]
    for _ in range(2 + random.below(4)):
        block[random.below(BLOCK)] = extremum | random.below(2) << 15
    return block


def zeros(random: Random) -> list[int]:
    """Zeros of both signs, in half of the blocks nothing else."""
    block = [random.below(2) << 15 for _ in range(BLOCK)]
    if random.below(2):
        block[random.below(BLOCK)] = random.bits(0x3000, 0x4800)
    return block


def large(random: Random) -> list[int]:
    return [random.bits(0x4600, 0x48FF) for _ in range(BLOCK)]


KINDS: list[Callable[[Random], list[int]]] = [
    smooth,
    anything,
    one_binade,
    subnormal_scales,
    bf16_subnormals,
    halves_of_a_step,
    tied_extrema,
    zeros,
    large,
]


def blocks(seed: int, count: int) -> np.ndarray:
    """bf16 bits [count, 32]."""
    random = Random(seed)
    drawn: list[list[int]] = []
    while len(drawn) < count:
        block = KINDS[len(drawn) % len(KINDS)](random)
        weights = widen(np.array(block, np.uint16))
        extremum = float(np.abs(weights).max())
        if extremum == 0 or SMALLEST <= extremum < OVERFLOW:
            drawn.append(block)
    return np.array(drawn, np.uint16)


def widen(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=540)
    options = parser.parse_args()
    bits = blocks(options.seed, options.blocks)
    # Two bytes of scale, then the codes plus 8: element j in the low half of byte j, element j + 16 in the high one.
    stored = quantize(widen(bits), GGMLQuantizationType.Q4_0).reshape(-1, 18)
    codes = np.concatenate([stored[:, 2:] & 15, stored[:, 2:] >> 4], axis=1) ^ 8
    pairs = codes[:, 0::2] | codes[:, 1::2] << 4
    records = np.concatenate([bits.astype("<u2").view(np.uint8), stored[:, :2], pairs], axis=1)
    options.output.write_bytes(records.astype(np.uint8).tobytes())


if __name__ == "__main__":
    main()
