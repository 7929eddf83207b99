"""What the builders share: a group-labelled set of image files as features and examples of tfds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from invjax.core.errors import BadArgument
from invjax.core.unpack import Unreadable, unpacking
from invjax.data.grouped.group_data import SPLITS, GroupData
from invjax.data.images.files import ImageFiles
from invjax.data.images.pixels import open_picture, rgb


def features(tfds: Any, classes: tuple[str, ...], attributes: tuple[str, ...], groups: tuple[str, ...]) -> Any:
    """image [H, W, 3] uint8 of any size, label, attribute, group (integers with names) and file_name."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(classes)),
            "attribute": tfds.features.ClassLabel(names=list(attributes)),
            "group": tfds.features.ClassLabel(names=list(groups)),
            "file_name": tfds.features.Text(),
        }
    )


def split_generators(data: GroupData) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    """{split: examples} for every split that has any. Raises BadArgument about files that are listed twice."""
    assert isinstance(data.x, ImageFiles)
    names, counts = np.unique(data.x.names, return_counts=True)
    if (counts > 1).any():  # they are the keys of the examples
        raise BadArgument(data.name, "list each file once", hint=f"{str(names[counts > 1][0])!r} is listed twice")
    return {
        name: _examples(data.split(name)) for name, row in zip(SPLITS, data.counts().values(), strict=True) if row.any()
    }


def _examples(data: GroupData) -> Iterator[tuple[str, dict[str, Any]]]:
    assert isinstance(data.x, ImageFiles)
    for n, name in enumerate(map(str, data.x.names)):
        yield (
            name,
            {
                "image": io.BytesIO(_rgb(data.x.encoded(n), name)),
                "label": int(data.y[n]),
                "attribute": int(data.attribute[n]),
                "group": int(data.group[n]),
                "file_name": name,
            },
        )


def _rgb(encoded: bytes, name: str) -> bytes:
    """The file itself if it is RGB, else (grey, palette, CMYK) the same picture in 8-bit RGB, as PNG."""
    try:
        with unpacking(), open_picture(encoded) as opened:
            opened.load()  # a truncated file must not get into the set
            if opened.mode == "RGB":
                return encoded
            out = io.BytesIO()
            rgb(opened).save(out, "png")
    except Unreadable as error:
        raise BadArgument(name, "be a readable image", hint=str(error)) from error
    return out.getvalue()
