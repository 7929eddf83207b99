"""Published numbers, to stand beside ours. ASR as a fraction, l2 in [-1, 1] units, ANC of 4-neighbourhoods."""

from __future__ import annotations

Table = dict[str, dict[str, float]]


def _table(best: tuple, average: tuple, worst: tuple) -> Table:
    names = ("asr", "acp", "anc", "l2", "d20")
    cases = {"best": best, "average": average, "worst": worst}
    return {name: {case: row[i] for case, row in cases.items()} for i, name in enumerate(names)}


# Sadiku, Wagner, Pokutta: GSE, CIFAR-10, ResNet20, 1,000 images x 9 targets (thesis defense slides, October 2025).
GSE_CIFAR10_TARGETED = _table(
    (1.0, 29.6, 1.06, 0.68, 137), (1.0, 86.3, 1.76, 1.13, 262), (1.0, 162, 3.31, 1.57, 399)
)  # fmt: skip

# The same, untargeted (poster of 2023, probably 8-neighbourhoods).
GSE_CIFAR10_UNTARGETED = {
    name: {"average": value} for name, value in (("asr", 1.0), ("acp", 36.8), ("anc", 1.5), ("l2", 0.75), ("d20", 177))
}
