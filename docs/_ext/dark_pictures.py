"""A picture with a partner of the name ``…_dark`` beside it: the page shows the one that suits its colours.

The text has the light one alone, so that the Markdown reads as usual. Furo hides what is ``only-light`` or
``only-dark``; both carry the description.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform


class Partners(SphinxTransform):
    """Put the dark picture after the light one, before sphinx collects the files of a page."""

    default_priority = 200

    def apply(self, **options: Any) -> None:
        folder = Path(self.env.doc2path(self.env.docname)).parent
        for light in list(self.document.findall(nodes.image)):
            path = Path(light["uri"])
            if not (folder / path.with_stem(f"{path.stem}_dark")).is_file():
                continue
            dark = light.deepcopy()
            dark["uri"] = path.with_stem(f"{path.stem}_dark").as_posix()
            for picture, side in ((light, "only-light"), (dark, "only-dark")):
                picture["classes"] = [*picture.get("classes", []), side]
            light.parent.insert(light.parent.index(light) + 1, dark)


def setup(app: Any) -> dict[str, Any]:
    app.add_transform(Partners)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
