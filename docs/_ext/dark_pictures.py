"""Drawings in the colours of the page: each SVG of docs/images is shown as it is, or darkened on a dark page.

The text names the light one alone. Its partner is made here from the palette of the figures, as the report makes its
own. Furo hides what is ``only-light`` or ``only-dark``; both carry the description.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

from invjax.viz.palette import darkened


class Partners(SphinxTransform):
    """Put a dark drawing after each light one, before sphinx collects the files of a page."""

    default_priority = 200

    def apply(self, **options: Any) -> None:
        folder = Path(self.env.doc2path(self.env.docname)).parent
        made = Path(self.env.srcdir) / "generated" / "dark"
        for light in list(self.document.findall(nodes.image)):
            path = folder / light["uri"]
            if path.suffix != ".svg" or not path.is_file():
                continue
            made.mkdir(parents=True, exist_ok=True)
            partner = made / f"{path.stem}_dark.svg"
            partner.write_text(darkened(path.read_text("utf-8")), "utf-8")
            dark = light.deepcopy()
            dark["uri"] = Path(os.path.relpath(partner, folder)).as_posix()
            for picture, side in ((light, "only-light"), (dark, "only-dark")):
                picture["classes"] = [*picture.get("classes", []), side]
            light.parent.insert(light.parent.index(light) + 1, dark)


def setup(app: Any) -> dict[str, Any]:
    app.add_transform(Partners)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
