"""Settings of the documentation: `make -C docs html`; `make -C docs html SPHINXOPTS="-W -D plot_gallery=0"` without drawing."""

import os
import re
import sys
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parent.parent
if (
    ROOT / "python" / "amstel" / "libamstel.so"
).exists():  # built in place; else the installed package is documented
    sys.path.insert(0, str(ROOT / "python"))
# Examples of a few pixels are slower on many threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import amstel  # noqa: E402

project, author, copyright = "amstel", "the amstel authors", "2026, the amstel authors"
version = release = amstel.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "code"
nitpicky = False

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autoclass_content = "class"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar, napoleon_use_rtype = True, False
napoleon_custom_sections = ["Shapes", "Complexity", "Source"]
# Attributes of several classes share a name; a list of attributes does not mean to link any.
suppress_warnings = ["config.cache", "ref.python"]

sphinx_gallery_conf = {
    "examples_dirs": ["../examples/gallery"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"plot_.*\.py",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "notebook_extensions": set(),  # scripts alone
    "show_memory": False,
    "min_reported_time": 1,
    "show_signature": False,
    "abort_on_example_error": True,
    "capture_repr": (),  # pictures and what is printed; no list of axes
    "copyfile_regex": "",
}

html_theme = "pydata_sphinx_theme"
html_title = "amstel"
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 5,
    "secondary_sidebar_items": ["page-toc"],
}
html_show_sourcelink = False
html_static_path, html_css_files = ["_static"], ["amstel.css"]
html_math_renderer = "mathml"
# Pages without siblings need no list of them.
ALONE = ("install", "benchmarks", "performance", "design", "design/*", "faq", "contributing", "changelog")
html_sidebars = {page: [] for page in ALONE}
linkcheck_anchors = False


SECTION = re.compile(
    r"(Args|Attributes|Returns|Raises|Warns|Example|Examples|Shapes|Complexity|Source|Note)\b.*:$"
)


def _escape_bars(line: str) -> str:
    """|x| is a norm in a docstring, and a substitution in reStructuredText; code in backquotes stays as it is."""
    return "".join(
        part if k % 2 else part.replace("|", r"\|") for k, part in enumerate(re.split(r"(`+[^`]*`+)", line))
    )


def _plain_to_rst(lines: list[str]) -> list[str]:
    """Indented formulas and tables of bars as the literal blocks that their authors mean.

    Docstrings are written to be read in a terminal; reStructuredText wants two colons and empty lines around those.
    """
    out: list[str] = []
    literal = None  # indentation above which lines belong to a literal block
    structured = False  # in what napoleon or reStructuredText indents for a reason
    table = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            table = False
            out.append(line)
            continue
        if literal is not None and indent <= literal:
            literal = None
        if literal is not None:
            out.append(line)
            continue
        if line.startswith("|"):
            if not table:
                out += ["", ".. code-block:: text", ""]
            table = True
            out.append("    " + line)
            continue
        if indent == 0:
            structured = bool(SECTION.match(line)) or line.startswith((".. ", "- ", "* ", ">>>", "=="))
        elif indent >= 4 and not structured and out and not out[-1].strip():
            out += [".. code-block:: text", ""]
            literal = 0
            out.append(line)
            continue
        if line.lstrip().startswith(".. code-block") or line.rstrip().endswith("::"):
            literal = indent
        out.append(line if line.lstrip().startswith((">>>", "...")) else _escape_bars(line))
    return out


def _process(app, what, name, obj, options, lines):
    lines[:] = _plain_to_rst(lines)


def _math(self, node):
    """Formulas as MathML, which browsers draw themselves: no script, and no network."""
    self.body.append(convert(node.astext()))
    raise SkipNode


def _display_math(self, node):
    # `aligned` is what GitHub knows, `align*` what the converter knows.
    formula = convert(node.astext().replace("{aligned}", "{align*}"), display="block")
    self.body.append(f'<div class="math-display">{formula}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (_math, None), (_display_math, None))
    # Before napoleon's, which has priority 500.
    app.connect("autodoc-process-docstring", _process, priority=400)
