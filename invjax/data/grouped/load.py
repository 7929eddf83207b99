"""The known group-labelled sets by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args, overload

import numpy as np

from invjax.core.arguments import kinds_checked
from invjax.core.errors import check_choice
from invjax.core.meant import explained
from invjax.data.grouped import digits_spurious, spuco, spuco_mnist, synthbirds, waterbirds
from invjax.data.grouped.group_data import GroupData
from invjax.data.images.files import ImageFiles

GroupsName = Literal[
    "digits-spurious", "spuco-mnist", "synthbirds", "waterbirds", "spuco-animals", "spuco-dogs", "spuco-birds"
]  # fmt: skip
LOADERS: dict[str, Callable[..., GroupData]] = {
    "digits-spurious": digits_spurious.digits_spurious,
    "spuco-mnist": spuco_mnist.spuco_mnist,
    "synthbirds": synthbirds.synthbirds,
    "waterbirds": waterbirds.waterbirds,
    **{f"spuco-{which}": partial(spuco.spuco_animals, which=which) for which in ("animals", "dogs", "birds")},
}


@overload
def load_groups(
    name: Literal["digits-spurious", "spuco-mnist", "synthbirds"], **options: Any
) -> GroupData[np.ndarray, np.ndarray]: ...
@overload
def load_groups(
    name: Literal["waterbirds", "spuco-animals", "spuco-dogs", "spuco-birds"], **options: Any
) -> GroupData[ImageFiles, None]: ...
@kinds_checked
def load_groups(name: GroupsName, **options: Any) -> GroupData:
    """A known set by its name; ``options`` go to its function.

    ===============  ========================================================================================
    digits-spurious  :func:`invjax.data.grouped.digits_spurious.digits_spurious`: 1,797 images of 10 × 8, scikit-learn
    spuco-mnist      :func:`invjax.data.grouped.spuco_mnist.spuco_mnist`: coloured MNIST, 25 groups
    synthbirds       :func:`invjax.data.grouped.synthbirds.synthbirds`: built from what is installed, exact masks
    waterbirds       :func:`invjax.data.grouped.waterbirds.waterbirds`: a folder or zip
    spuco-animals    :func:`invjax.data.grouped.spuco.spuco_animals`: folders; also spuco-dogs, spuco-birds
    ===============  ========================================================================================

    Raises BadArgument for another name, and whatever the function raises.
    """
    return LOADERS[check_choice("name", name, LOADERS)](**options)


@explained
def group_names() -> tuple[GroupsName, ...]:
    """The names that :func:`load_groups` knows."""
    return get_args(GroupsName)
