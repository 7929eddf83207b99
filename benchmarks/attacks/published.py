"""Published numbers, printed beside ours. ASR is a fraction, l2 is in [-1, 1] units.

Targeted: Sadiku, Wagner, Pokutta, GSE, from the thesis defense slides of October 2025: 1,000 images x 9 targets
(ImageNet: 10), ANC with 4-neighbourhoods, averages over all attempts as the released code returned them. Untargeted:
the poster of 2023, averages over successes, ANC probably with 8-neighbourhoods.
"""

from __future__ import annotations

Table = dict[str, dict[str, float]]
NAMES = ("asr", "acp", "anc", "l2", "d20")


def _table(best: tuple, average: tuple, worst: tuple) -> Table:
    cases = {"best": best, "average": average, "worst": worst}
    return {name: {case: row[i] for case, row in cases.items() if i < len(row)} for i, name in enumerate(NAMES)}


def _average(*row: float) -> Table:
    return {name: {"average": value} for name, value in zip(NAMES, row, strict=True)}


CIFAR10_TARGETED: dict[str, Table] = {
    "GSE": _table((1.0, 29.6, 1.06, 0.68, 137), (1.0, 86.3, 1.76, 1.13, 262), (1.0, 162, 3.31, 1.57, 399)),
    "StrAttack": _table((1.0, 78.4, 4.56, 0.79, 352), (1.0, 231, 10.1, 1.86, 534), (1.0, 406, 15.9, 4.72, 619)),
    "FWnucl": _table((1.0, 283, 1.18, 1.48, 515), (0.858, 373, 2.52, 2.54, 564), (0.405, 495, 4.27, 3.36, 609)),
}

CIFAR10_UNTARGETED: dict[str, Table] = {
    "GSE": _average(1.0, 36.8, 1.5, 0.75, 177),
    "StrAttack": _average(1.0, 117, 4.7, 1.07, 419),
    "FWnucl": _average(0.951, 456, 1.3, 2.00, 592),
}

# 224 px, ResNet50 of torchvision: not an EfficientNet, so for orientation only.
IMAGENET_RESNET50_TARGETED: dict[str, Table] = {
    "GSE": _table((1.0, 3516, 5.89, 2.16, 5967), (1.0, 12014, 14.6, 2.93, 16724), (1.0, 21675, 22.8, 3.51, 29538)),
    "StrAttack": _table(
        (1.0, 6579, 7.18, 2.45, 9620), (1.0, 15071, 18.0, 3.97, 20921), (1.0, 26908, 32.1, 6.13, 34768)
    ),
    "FWnucl": _table((0.311, 9897, 3.81, 2.02, 11295), (0.0734, 19356, 7.58, 3.17, 26591), (0.0,)),
}

# Published interpretability score on CIFAR-10 at the percentiles 50, 60, 70, 80, 90. Its metric mixes the targets of a
# batch.
CIFAR10_IS: dict[str, tuple[float, ...]] = {
    "GSE": (0.704, 0.679, 0.646, 0.600, 0.515),
    "StrAttack": (0.705, 0.669, 0.622, 0.553, 0.436),
    "FWnucl": (0.703, 0.671, 0.628, 0.565, 0.456),
    "SAIF": (0.673, 0.644, 0.604, 0.546, 0.445),
}
