"""What the documentation shows: every example in a docstring, and every block of Python in README.md and docs/, runs."""

import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import amstel
from tests import reader_folder

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    file
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    if "```python" in file.read_text(encoding="utf-8")
)
SCRIPTS = sorted((ROOT / "examples" / "gallery").glob("plot_*.py"))


def module_names() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(amstel.__path__, "amstel.")]
    # The shared libraries lie beside the modules; they are no modules.
    return sorted(n for n in names if not n.endswith("__main__") and not n.startswith("amstel.libamstel"))


@pytest.fixture(scope="module")
def reader_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    reader_folder.write(folder)
    return folder


@pytest.fixture(autouse=True)
def folder_of_a_reader(reader_files, tmp_path, monkeypatch, one_thread):
    """A folder to write in, with what examples read."""
    for item in reader_files.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")


@pytest.mark.parametrize("name", module_names())
def test_docstrings(name):
    module = importlib.import_module(name)
    finder, flags = doctest.DocTestFinder(exclude_empty=True), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    # An example may use torch, NumPy and this library as everyone imports them; the rest it imports itself.
    known = {**vars(module), "torch": torch, "np": np, "amstel": amstel}
    runner = doctest.DocTestRunner(optionflags=flags, verbose=False)
    said: list[str] = []
    for test in finder.find(module, globs=known):
        with torch.random.fork_rng(devices=[]):
            runner.run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page):
    """The blocks of a page run in their order, later ones with what earlier ones defined."""
    text = page.read_text(encoding="utf-8")
    names = {"__name__": "page"}
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, match.start(1))
        exec(compile("\n" * line + match[1], str(page), "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_gallery(script):
    """Each picture of the gallery is drawn."""
    plt = pytest.importorskip("matplotlib.pyplot")
    exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), {"__name__": "__main__"})
    assert plt.get_fignums()
    plt.close("all")


def test_graphs_of_the_gallery_grow_as_their_text_says():
    """A new node has two neighbors, neither itself: a loop or a double edge would be of one class only."""
    text = (ROOT / "examples" / "gallery" / "plot_graph_classification.py").read_text(encoding="utf-8")
    names: dict = {}
    exec(text[: text.index("class Classifier")], names)
    assert len(names["graphs"]) == 300
    for graph in names["graphs"]:
        (target, source), _ = graph.to_edge_index()
        assert bool((target != source).all()) and len((target * 100 + source).unique()) == len(target)
        assert len(target) == 2 * (1 + 2 * (graph.num_nodes - 2))


@pytest.mark.parametrize(
    "page", [ROOT / "CHANGELOG.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT))
)
def test_no_page_holds_a_merge_conflict(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"^(?:<{7}|>{7}|={7}$).*", text, re.MULTILINE)


PUBLIC = ["amstel", *(f"amstel.{name}" for name in amstel.__all__ if inspect.ismodule(getattr(amstel, name)))]
PUBLIC += [f"amstel.interop.{name}" for name in amstel.interop.__all__]


@pytest.mark.parametrize("name", PUBLIC)
def test_nothing_public_is_undocumented(name):
    module = importlib.import_module(name)
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == name]
    bare, keys = [], getattr(module, "__all__", [key for key in own if key[0] != "_"])
    assert keys
    for key in keys:
        value = getattr(module, key)
        if callable(value) and not inspect.getdoc(value):
            bare.append(key)
        for attribute, member in vars(value).items() if inspect.isclass(value) else ():
            described = isinstance(member, property | classmethod | staticmethod) or (
                # PyG gives its layers functions that it writes when they are first made.
                inspect.isfunction(member) and member.__module__ == value.__module__
            )
            if described and not attribute.startswith("_") and not inspect.getdoc(getattr(value, attribute)):
                bare.append(f"{key}.{attribute}")
    assert not bare


def test_every_forward_says_what_it_takes_and_gives():
    """help() would show torch's text for a module without, which says nothing."""
    modules = [getattr(amstel.nn, name) for name in amstel.nn.__all__]
    modules = [m for m in modules if inspect.isclass(m) and issubclass(m, torch.nn.Module)]
    theirs = inspect.getdoc(torch.nn.Module.forward)
    assert len(modules) > 30
    assert not [m.__name__ for m in modules if inspect.getdoc(m.forward) in (None, theirs)]


#: What the API reference lists, and what of it nothing shows: a server needs its client, and these move a Graph.
LISTED = re.findall(
    r"^   (amstel\S*)$", (ROOT / "docs/api/index.md").read_text(encoding="utf-8"), re.MULTILINE
)
WITHOUT_EXAMPLE = {"amstel.interop.vot.serve"}
WITHOUT_EXAMPLE |= {
    f"amstel.Graph.{name}"
    for name in ("to", "cpu", "cuda", "pin_memory", "is_pinned", "share_memory_", "is_shared")
}


def listed_callables(name: str) -> dict[str, object]:
    """By name what the entry of the API reference stands for, with the methods of Graph."""
    place, _, last = name.rpartition(".")
    if isinstance(getattr(importlib.import_module(place or name), last, None), type | types.FunctionType):
        value = getattr(importlib.import_module(place), last)
        found = {name: value}
        if isinstance(value, type):
            public = (key for key in dir(value) if not key.startswith("_"))
            found |= {f"{name}.{key}": getattr(value, key) for key in public}
    else:
        module = importlib.import_module(name)
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == name]
        keys = getattr(module, "__all__", [key for key in own if not key.startswith("_")])
        found = {f"{name}.{key}": getattr(module, key) for key in keys}
    return {key: value for key, value in found.items() if callable(value)}


@pytest.mark.parametrize("name", LISTED)
def test_all_that_is_listed_has_an_example(name):
    found = listed_callables(name)
    assert found
    bare = {key for key, value in found.items() if ">>>" not in (inspect.getdoc(value) or "")}
    assert bare == found.keys() & WITHOUT_EXAMPLE


COMMANDS = sorted(
    {
        line.strip()
        for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
        for block in re.findall(
            r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        for line in block.splitlines()
        if line.strip().startswith("amstel ")
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line):
    """What the pages tell to type names commands and options that there are."""
    main = pytest.importorskip("typer.main", reason="the command line needs typer")
    from amstel.cli._main import app

    command, words = main.get_command(app), shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        if words[0] in command.commands:
            command = command.commands[words.pop(0)]
        else:  # `amstel track VIDEO` is `amstel track predict VIDEO`
            command = command.commands["predict"]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known | {"--help"}


def test_one_version():
    said = {
        "pyproject.toml": r'^version = "(.+)"$',
        "CMakeLists.txt": r"^project\(amstel VERSION (\S+)",
        "CITATION.cff": r"^version: (.+)$",
        "packaging/conda/recipe.yaml": r'^  version: "(.+)"$',
        "CHANGELOG.md": r"^## (\d\S*) \(",
    }
    for file, pattern in said.items():
        found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        assert found and found[1] == amstel.__version__, file
