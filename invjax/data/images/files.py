"""Images that stay files, in a folder or a zip, until they are read.

A file is resized to a square, of which the middle is cut out, as in the protocols of WaterBirds and SpuCo:

    resize to (m S) × (m S), bilinear with antialiasing;  crop the central S × S;       S = 224, m = 8/7           (1)
"""

from __future__ import annotations

import errno
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.errors import BadArgument
from invjax.core.shown import many
from invjax.core.unpack import Unreadable, one_line, read_member, unpacking
from invjax.data.images.pixels import mask_levels, open_picture, pillow, rgb

MARGIN = 256 / 224
KINDS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
_LINKS = 100  # how often a folder may be reached
_COMPANIONS = (".DS_Store", "Thumbs.db", "desktop.ini")  # what file managers leave beside pictures
_REASONS = {"UnidentifiedImageError": "not an image", "FileNotFoundError": "no such file"}  # else the error's words


def is_companion(name: str) -> bool:
    """Whether a file is none of the set's own, but what a file manager wrote beside one: ``._x.jpg``, ``__MACOSX/…``"""
    *folders, file = name.split("/")
    return "__MACOSX" in folders or file.startswith("._") or file in _COMPANIONS


class Store:
    """The files below a folder, or below a folder inside a zip; names are relative to it and have forward slashes.

    Links to folders are followed, because data are often kept elsewhere. Names that come out of a file of the set, and
    not from :meth:`names`, must not lead out of the folder: :meth:`outside`.
    """

    def __init__(self, root: str | os.PathLike, prefix: str = ""):
        """root: an existing folder or zip. prefix: the folder inside the zip, ending in "/" unless it is empty."""
        self.root, self.prefix = Path(root), prefix
        self._zip: tuple[int, zipfile.ZipFile] | None = None
        if os.path.isfile(self.root):
            self._open()
        elif not os.path.isdir(self.root):
            raise BadArgument("source", "be an existing folder or zip", str(root))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None}  # an open file does not travel to another process

    def __str__(self) -> str:
        return f"{self.root}/{self.prefix}" if self.prefix else str(self.root)

    @property
    def zipped(self) -> bool:
        """Whether the files are in a zip."""
        return not os.path.isdir(self.root)

    def names(self) -> list[str]:
        """The names of all files, sorted, without the companions that file managers write."""
        if self.zipped:
            cut = len(self.prefix)
            inside = (name for name in self._open().namelist() if name and not name.endswith("/"))
            found = [name[cut:] for name in inside if name.startswith(self.prefix)]
        else:
            try:
                found = list(_walk(str(self.root)))
            except OSError as error:
                raise BadArgument("source", "be a folder that can be read", str(self.root), hint=str(error)) from error
        return sorted(name for name in found if not is_companion(name))

    def outside(self, names: Iterable[str]) -> list[str]:
        """Those of the ``names`` that lead out of the folder: absolute ones, by "..", or through a link."""
        root = os.path.realpath(self.root)
        stays: dict[str, bool] = {}  # folder -> whether it is inside

        def is_inside(path: str) -> bool:
            real = os.path.realpath(path)
            return real == root or real.startswith(os.path.join(root, ""))

        def leaves(name: str) -> bool:
            if Path(name).is_absolute() or Path(name).drive or ".." in Path(name).parts or "\0" in name:
                return True
            if self.zipped:
                return False
            folder, path = os.path.dirname(name), os.path.join(root, name)
            if folder not in stays:
                stays[folder] = is_inside(os.path.join(root, folder))
            return not stays[folder] or (os.path.islink(path) and not is_inside(path))

        return [name for name in names if leaves(name)]

    def missing(self, names: Iterable[str]) -> list[str]:
        """The ``names`` of which there is no file."""
        if self.zipped:
            have = set(self.names())
            return [name for name in names if name not in have]
        return [name for name in names if not os.path.isfile(self.root / name)]

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises OSError, or Unreadable about a zip: locked, damaged, or too large."""
        return read_member(self._open(), self.prefix + name) if self.zipped else (self.root / name).read_bytes()

    def below(self, folder: str) -> Store:
        """The store of a folder in this one; "" is itself."""
        if not folder:
            return self
        return Store(self.root, f"{self.prefix}{folder}/") if self.zipped else Store(self.root / folder)

    def _open(self) -> zipfile.ZipFile:
        if self._zip is None or self._zip[0] != os.getpid():  # a forked process must not share the file's position
            try:
                with unpacking():
                    self._zip = os.getpid(), zipfile.ZipFile(self.root)
            except Unreadable as error:
                raise BadArgument("source", "be a folder or a zip", str(self.root), hint=str(error)) from error
        return self._zip[1]


def _walk(root: str) -> Iterator[str]:
    """The names of the files below a folder, through links, of which none leads back to a folder above it again.

    Raises OSError where a folder cannot be read, or is linked so often that the names would never end.
    """
    left: list[tuple[str, str, tuple[str, ...]]] = [(root, "", ())]  # folder, its name, the real folders above it
    entered: Counter[str] = Counter()
    while left:
        folder, prefix, above = left.pop()
        real = os.path.realpath(folder)
        if real in above:
            continue
        entered[real] += 1
        if entered[real] > _LINKS:
            raise OSError(errno.ELOOP, f"more than {_LINKS} ways lead to one folder", folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    left.append((entry.path, f"{prefix}{entry.name}/", (*above, real)))
                else:
                    yield f"{prefix}{entry.name}"


class ImageFiles:
    """N image files that read like an array [N, H, W, 3] of uint8, of which only the rows asked for are decoded."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, store: Store, names: Sequence[str] | np.ndarray, size: int | None = None, margin: float = MARGIN
    ):
        """
        Args:
          size: S pixels of (1); None keeps files as they are, which then must all be of one size.
          margin: m of (1), at least 1; 1 only resizes.
        """
        if size is not None and size < 1:
            raise BadArgument("size", "be at least 1 pixel, or None to keep files as they are", size)
        if not 1 <= margin < 100:
            raise BadArgument("margin", "be a factor >= 1, the side before the crop by that after it", margin)
        self.store, self.names, self.size, self.margin = store, np.asarray(names, dtype=str), size, margin
        self._side: tuple[int, int] | None = None if size is None else (size, size)

    def __repr__(self) -> str:
        size = "of their own size" if self.size is None else f"made {self.size}x{self.size}"
        return f"{type(self).__name__}({many(len(self), 'file')} in {self.store}, {size})"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3); where no size was given, that of the first file that can be read."""
        for row in range(len(self)):
            if self._side is not None:
                break
            self.read(np.array([row]), skip_bad=True)  # sets it
        height, width = self._side or (0, 0)
        return len(self), height, width, 3

    def take(self, rows: Any) -> ImageFiles:
        """The files of some rows, still unread."""
        taken = type(self)(self.store, self.names[rows], self.size, self.margin)
        taken._side = self._side
        return taken

    def encoded(self, row: int) -> bytes:
        """The file's bytes."""
        return self.store.read(str(self.names[row]))

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.arange(len(self))[index]
        pixels = self.read(rows.reshape(-1))[0]
        return pixels[0] if rows.ndim == 0 else pixels

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        pixels = self[:]
        return pixels if dtype is None else pixels.astype(dtype)

    def read(self, rows: np.ndarray, skip_bad: bool = False) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """(pixels [n, H, W, 3], their positions in ``rows``, "file: reason" of each file left out).

        Raises:
          BadArgument: a file cannot be decoded, unless ``skip_bad``; or files differ in size.
          ImportError: pillow is missing (extra ``data``).
        """
        names = [str(name) for name in self.names[rows]]
        if len(names) > 16:  # threads help: decoding releases the interpreter
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                results = list(pool.map(self._attempt, names))
        else:
            results = [self._attempt(name) for name in names]
        bad = [f"{name}: {one}" for name, one in zip(names, results, strict=True) if isinstance(one, str)]
        if bad and not skip_bad:
            more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise BadArgument(f"images of {self.store}", "be readable", hint=bad[0] + more)
        kept, pictures = [], []
        for k, picture in enumerate(results):
            if isinstance(picture, str):
                continue
            kept.append(k)
            pictures.append(picture)
            height, width, _ = picture.shape
            self._side = self._side or (height, width)
            if (height, width) != self._side:
                first, other = ("×".join(map(str, side)) for side in (self._side, (height, width)))
                hint = f"{names[k]!r} is {other}, others are {first}"
                raise BadArgument("size", "be given where files differ", hint=hint)
        pixels = np.stack(pictures) if pictures else np.zeros((0, *(self._side or (0, 0)), 3), np.uint8)
        return pixels, np.asarray(kept, np.int64), bad

    def _attempt(self, name: str) -> np.ndarray | str:
        pillow()  # where it is missing, no file is to blame
        try:
            return self._decode(name)
        except Unreadable as error:
            return str(error)
        except Exception as error:  # there is no list of what the plugins of pillow raise
            kind = type(error).__name__
            return _REASONS.get(kind) or f"{kind} {one_line(error)}"

    def _decode(self, name: str) -> np.ndarray:
        image = pillow()
        with open_picture(self.store.read(name)) as opened:
            picture = self.converted(opened)
        if self.size is not None:
            side = max(self.size, round(self.size * self.margin))
            start = round((side - self.size) / 2)
            picture = picture.resize((side, side), image.Resampling.BILINEAR)
            picture = picture.crop((start, start, start + self.size, start + self.size))
        return np.asarray(picture)

    def converted(self, picture: Any) -> Any:
        """What is kept of a picture, in RGB, before it is resized."""
        return rgb(picture)


class MaskFiles(ImageFiles):
    """The same for masks: [N, H, W, 3], 255 on the object and 0 elsewhere, and between them at soft edges."""

    def converted(self, picture: Any) -> Any:
        return pillow().fromarray(mask_levels(picture)).convert("RGB")
