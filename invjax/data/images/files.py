"""Images that stay files, in a folder or a zip, until they are read.

A file is resized to a square, of which the middle is cut out, as in the protocols of WaterBirds and SpuCo:

    resize to (m S) × (m S), bilinear with antialiasing;  crop the central S × S;       S = 224, m = 8/7           (1)
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from invjax.core.errors import BadArgument

MARGIN = 256 / 224
KINDS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
_UNREADABLE = (OSError, EOFError, KeyError, SyntaxError, ValueError, struct.error, zipfile.BadZipFile, zlib.error)
_REASONS = {"UnidentifiedImageError": "not an image", "FileNotFoundError": "no such file"}  # else the error's words


class Store:
    """The files below a folder, or below a folder inside a zip; names are relative to it and have forward slashes."""

    def __init__(self, root: str | os.PathLike, prefix: str = ""):
        """root: an existing folder or zip. prefix: the folder inside the zip, ending in "/" unless it is empty."""
        self.root, self.prefix = Path(root), prefix
        self._zip: tuple[int, zipfile.ZipFile] | None = None
        if self.root.is_file():
            self._open()
        elif not self.root.is_dir():
            raise BadArgument("source", "be an existing folder or zip", str(root))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None}  # an open file does not travel to another process

    def __str__(self) -> str:
        return f"{self.root}/{self.prefix}" if self.prefix else str(self.root)

    @property
    def zipped(self) -> bool:
        """Whether the files are in a zip."""
        return not self.root.is_dir()

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        if self.zipped:
            cut = len(self.prefix)
            inside = (info for info in self._open().infolist() if not info.is_dir())
            return sorted(info.filename[cut:] for info in inside if info.filename.startswith(self.prefix))
        found = (Path(folder, name) for folder, _, names in os.walk(self.root) for name in names)
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def missing(self, names: Iterable[str]) -> list[str]:
        """The ``names`` of which there is no file."""
        if self.zipped:
            have = set(self.names())
            return [name for name in names if name not in have]
        return [name for name in names if not (self.root / name).is_file()]

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return self._open().read(self.prefix + name) if self.zipped else (self.root / name).read_bytes()

    def below(self, folder: str) -> Store:
        """The store of a folder in this one; "" is itself."""
        if not folder:
            return self
        return Store(self.root, f"{self.prefix}{folder}/") if self.zipped else Store(self.root / folder)

    def _open(self) -> zipfile.ZipFile:
        if self._zip is None or self._zip[0] != os.getpid():  # a forked process must not share the file's position
            try:
                self._zip = os.getpid(), zipfile.ZipFile(self.root)
            except (OSError, zipfile.BadZipFile) as error:
                raise BadArgument("source", "be a folder or a zip", str(self.root), hint=str(error)) from error
        return self._zip[1]


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
        taken = ImageFiles(self.store, self.names[rows], self.size, self.margin)
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
        try:
            return self._decode(name)
        except (*_UNREADABLE, pillow().DecompressionBombError) as error:
            kind = type(error).__name__
            return _REASONS.get(kind) or " ".join(f"{kind} {error}".split())

    def _decode(self, name: str) -> np.ndarray:
        image = pillow()
        with image.open(io.BytesIO(self.store.read(name))) as opened:
            picture = opened.convert("RGB")
        if self.size is not None:
            side = max(self.size, round(self.size * self.margin))
            start = round((side - self.size) / 2)
            picture = picture.resize((side, side), image.Resampling.BILINEAR)
            picture = picture.crop((start, start, start + self.size, start + self.size))
        return np.asarray(picture)


def pillow() -> Any:
    """The module ``PIL.Image``."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("image files need pillow: pip install 'invjax[data]'") from error
    return Image
