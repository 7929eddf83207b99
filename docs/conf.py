"""Sphinx: the pages of this folder, the notebooks, and the API reference from the docstrings.

    python -m sphinx -W --keep-going -b html docs docs/_build/html

"[source]" beside a name leads to a page of the built documentation, so that it shows the version that is documented.

The notebooks are shown with the outputs that they hold; nothing is executed. `.ci/notebooks.py` makes these.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import invjax  # noqa: E402

project, author, copyright = "invjax", "the invjax authors", "the invjax authors"
release = version = invjax.__version__

extensions = [
    "dark_pictures",
    "plain_docstrings",
    "rooms",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
    "sphinxcontrib.katex",
]
if not tags.has("short"):  # noqa: F821 (sphinx puts it here)
    extensions.append("sphinx.ext.viewcode")  # a page for each module: the tests do without

# The notebooks live beside the package. The pages are made of copies, which git ignores.
shutil.rmtree(HERE / "generated", ignore_errors=True)  # pages of modules and notebooks that are gone
copies = HERE / "generated" / "notebooks"
copies.mkdir(parents=True, exist_ok=True)
for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
    shutil.copy(notebook, copies)
nb_execution_mode = "off"

# The names of invjax itself are described twice, on their own page and on that of their folder: either may be linked.
suppress_warnings = ["ref.python"]
exclude_patterns = ["_build", "_ext", "conf.py", "images/*.py"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
toc_object_entries = False  # the list beside a page has its modules, not their every name
add_module_names = False  # the heading above says which module it is
# A builder of tensorflow_datasets subclasses it at import; the pages build without the extra, too.
autodoc_mock_imports = [name for name in ("tensorflow_datasets",) if importlib.util.find_spec(name) is None]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# Names of types as they stand in the source, not what they stand for (an ArrayLike is a union of eight types).
_kept = ("Array", "ArrayLike", "Values", "Config", "State", "Evaluator", "Table", "Path_")
autodoc_type_aliases = {name: name for name in _kept}
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Fields", "params_style")]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 110

# Formulas: KaTeX's script is part of the package. It writes MathML, which needs neither its fonts nor a network.
katex_options = "output: 'mathml'"
katex_css_path = "katex-math.css"
# What a reader would type, not what is printed.
copybutton_selector = "div.highlight:not(.highlight-text *, .highlight-none *, .cell_output *) pre"

html_theme = "furo"
html_static_path, html_css_files = ["_static"], ["pages.css"]
html_title = f"invjax {release}"
html_show_copyright = False
html_copy_source = False
html_domain_indices = False  # api/index.md lists the modules by rooms
