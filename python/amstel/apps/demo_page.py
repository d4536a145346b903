"""The page that `amstel demo` writes: pictures, figures and the code behind them in one self-contained HTML file."""

from __future__ import annotations

import ast
import base64
import inspect
import io
import keyword
import textwrap
import tokenize
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import amstel
from amstel import _files
from amstel._words import counted

if TYPE_CHECKING:
    from amstel.apps.demo import Exhibit, Show

HEADINGS = {
    "graphs": "Graphs: GCN",
    "video": "Video: ConvALSTM",
    "tracking": "Tracking: SINT",
    "restoration": "Inverse problems: RIM",
}
_KINDS = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}
_STYLE = """
:root { color-scheme: light dark; --text: #1c2733; --dim: #5a6875; --line: #d8dee4; --back: #f5f7f9;
  --card: #fff; --code: #f3f5f7; --key: #0b5cad; --string: #1a6d3c; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e8ed; --dim: #9aa7b4; --line: #36414c; --back: #14191f;
  --card: #1c232b; --code: #151b21; --key: #7db8f0; --string: #8fd0a4; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 3rem; max-width: 82rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; }
h2 { margin: 2rem 0 0; font-size: 1.3rem; }
h3 { margin: 0; font-size: 1.05rem; }
p { margin: .25rem 0 .75rem; color: var(--dim); }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); column-gap: 1rem; }
section { min-width: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }
.card { min-width: 0; padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.wide { grid-column: 1 / -1; }
.figure { color: var(--accent); font-size: 1.6rem; font-weight: 650; }
.card p { margin: 0 0 .75rem; }
img { display: block; max-width: 100%; max-height: 34rem; height: auto; margin: 0 auto .75rem; border-radius: .25rem; }
.wide img { max-height: none; }
.missing { padding: .5rem .75rem; border-left: 3px solid #d55e00; background: var(--code); }
pre { margin: .5rem 0 0; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--code); border-radius: .25rem;
  font: .8rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
.k { color: var(--key); } .s { color: var(--string); } .c { color: var(--dim); font-style: italic; }
summary { cursor: pointer; color: var(--dim); font-size: .9rem; }
"""


_TITLE = "<title>amstel demo</title>"


def is_one(path: Path) -> bool:
    """Whether a file is such a page, which another demo may replace."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return _TITLE in file.read(1000)


def write(path: Path, shows: Mapping[str, Show], seconds: float) -> Path:
    """Write the page for the families in `shows`, which took this many seconds in total."""
    threads = torch.get_num_threads()
    facts = [
        f"amstel {amstel.__version__}",
        f"torch {torch.__version__}",
        f"{torch.ops.amstel.cpu_isa()} kernels",
        f"{counted(threads, 'thread')}",
        f"{seconds:.0f} s in total",
    ]
    body = "\n".join(_family(name, show) for name, show in shows.items())
    return _files.write_text(
        path,
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{_TITLE}
<style>{_STYLE}</style>
</head>
<body>
<h1>What amstel just did on this machine</h1>
<p>{escape(" · ".join(facts))}</p>
<main>
{body}
</main>
</body>
</html>
""",
    )


def _family(name: str, show: Show) -> str:
    missing = "".join(f'<p class="missing">{escape(line)}</p>\n' for line in show.missing)
    cards = "\n".join(_card(exhibit) for exhibit in show.exhibits)
    wide = ' class="wide"' if len(show.exhibits) > 1 else ""
    about = show.about.partition(": ")[2]
    return (
        f'<section id="{name}"{wide}>\n<h2>{escape(HEADINGS[name])}</h2>\n'
        f"<p>{escape(about[:1].upper() + about[1:])}.</p>\n{missing}"
        f'<div class="cards">\n{cards}\n</div>\n</section>'
    )


def _card(exhibit: Exhibit) -> str:
    pictures = "\n".join(_image(path, exhibit.title) for path in exhibit.pictures)
    code = "\n\n\n".join(source(thing) for thing in exhibit.code)
    return (
        f'<article class="card{" wide" if exhibit.wide else ""}">\n<h3>{escape(exhibit.title)}</h3>\n'
        f'<div class="figure">{escape(exhibit.figure)}</div>\n<p>{escape(exhibit.explained)}</p>\n{pictures}\n'
        f"<details{' open' if code.count(chr(10)) < 16 else ''}><summary>The code that did it</summary>\n"
        f"<pre><code>{highlighted(code)}</code></pre></details>\n</article>"
    )


def _image(path: Path, title: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(title)}" src="data:{_KINDS[path.suffix]};base64,{data}">'


def source(thing: Any) -> str:
    """The source of a function or class, without its decorators and docstrings."""
    text = textwrap.dedent(inspect.getsource(thing))
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = node.body[0]
            dropped = [(decorator.lineno, decorator.end_lineno) for decorator in node.decorator_list]
            if ast.get_docstring(node) is not None:
                dropped.append((first.lineno, first.end_lineno))
            for begin, end in dropped:
                lines[begin - 1 : end] = [None] * ((end or begin) - begin + 1)  # type: ignore[list-item]
    kept = "\n".join(line for line in lines if line is not None)
    # An empty line that stood under a docstring.
    return kept.replace(":\n\n", ":\n").strip()


def highlighted(code: str) -> str:
    """Python as HTML, with keywords, strings and comments marked."""
    out, at = [], (1, 0)
    lines = code.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type in (
            tokenize.NEWLINE,
            tokenize.NL,
            tokenize.INDENT,
            tokenize.DEDENT,
            tokenize.ENDMARKER,
        ):
            continue
        out.append(escape(_between(lines, at, token.start), quote=False))
        text, at = escape(token.string, quote=False), token.end
        kind = {tokenize.STRING: "s", tokenize.COMMENT: "c"}.get(token.type)
        if token.type == tokenize.NAME and keyword.iskeyword(token.string):
            kind = "k"
        out.append(f'<span class="{kind}">{text}</span>' if kind else text)
    return "".join(out)


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    middle = lines[start[0] : end[0] - 1]
    return "".join([lines[start[0] - 1][start[1] :], *middle, lines[end[0] - 1][: end[1]]])
