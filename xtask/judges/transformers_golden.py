"""What transformers computes in fp32 for a synthetic checkpoint of E2B's structure, in the shape of an oracle file.

    cargo xtask fixture target/e2b-like --shape e2b-like
    python -m venv target/transformers && target/transformers/bin/pip install torch==2.15.0 transformers==5.23.0
    target/transformers/bin/python xtask/judges/transformers_golden.py target/e2b-like oracle/tests/golden/e2b-like.json

Run once; the result is stored, since PyTorch is too large for every run of the tests.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

NEW_TOKENS = 8
# Short, across the sliding window of 12, and four windows long.
LENGTHS = [1, 7, 12, 13, 30, 48]


def prompt(length: int, vocabulary: int) -> list[int]:
    """Ids spread over the vocabulary."""
    return [2] + [1 + (i * i * 37 + i * 11 + length) % (vocabulary - 1) for i in range(1, length)]


def logits_of(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


def case(model: torch.nn.Module, ids: list[int]) -> dict[str, object]:
    generated: list[int] = []
    for _ in range(NEW_TOKENS):
        generated.append(int(logits_of(model, ids + generated)[-1].argmax()))
    logits = logits_of(model, ids + generated)
    best = logits.topk(2, dim=-1)
    margins = (best.values[:, 0] - best.values[:, 1]).tolist()
    return {
        "prompt": f"{len(ids)} ids",
        "prompt_ids": ids,
        "generated_ids": generated,
        "text": "",
        "margins": margins[len(ids) - 1 : -1],
        "teacher_forced_argmax": best.indices[:, 0].tolist(),
        "teacher_forced_margins": margins,
        "last_logits_head": logits[-1, :16].tolist(),
        "logit_norms": logits.norm(dim=-1).tolist(),
    }


def main(checkpoint: str, golden: str) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    vocabulary = model.config.text_config.vocab_size
    oracle = {
        "reference": f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, fp32",
        "cases": [case(model, prompt(length, vocabulary)) for length in LENGTHS],
    }
    Path(golden).write_text(json.dumps(oracle, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
