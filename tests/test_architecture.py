"""Two storeys: who may import whom, and what `import amstel` brings along."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import amstel  # noqa: F401  (registers the operators)

ROOT = Path(__file__).parent.parent
APPLICATIONS = (
    "amstel.apps",
    "amstel.cli",
    "amstel.demo",
    "amstel.recipes",
    "amstel.restoration",
    "amstel.__main__",
)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_contracts_hold():
    pytest.importorskip("importlinter", reason="import-linter of the extra [lint] checks the contracts")
    code = f"from importlinter.cli import lint_imports; raise SystemExit(lint_imports({str(ROOT / 'pyproject.toml')!r}, no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


def test_the_library_imports_alone():
    """Every module of it, without the applications and without what only extras bring."""
    found = run(f"""if True:
        import importlib, json, pkgutil, sys
        gone = ("matplotlib", "av", "cv2", "PIL", "scipy", "networkx", "safetensors", "rich", "typer", "torchvision")
        for name in (*gone, "amstel.apps", "amstel.cli"):
            sys.modules[name] = None
        import amstel
        imported = []
        for module in pkgutil.walk_packages(amstel.__path__, "amstel."):
            # What joins amstel to a package needs that package.
            if "libamstel" not in module.name and not module.name.startswith({APPLICATIONS!r}) and module.name not in ("amstel.interop.pyg", "amstel.interop.keras", "amstel.interop.deepinv"):
                importlib.import_module(module.name)
                imported.append(module.name)
        print(json.dumps(imported))
    """)
    assert {"amstel.media.reading", "amstel.tracking.tracker", "amstel.data.stills", "amstel.video"} <= set(
        found
    )


def test_import_brings_nothing_but_torch_and_numpy():
    """Counted in modules and not by the clock: each costs about a millisecond at most, and 0.1 s is allowed."""
    new = run("""if True:
        import json, sys, torch, numpy
        before = set(sys.modules)
        import amstel
        print(json.dumps(sorted(set(sys.modules) - before)))
    """)
    own = [name for name in new if name.split(".")[0] == "amstel"]
    # torch imports parts of itself when they are first named.
    others = {name.split(".")[0] for name in new} - {"amstel", "torch", "numpy"} - sys.stdlib_module_names
    assert not others and len(own) < 50
    assert not [name for name in own if name.startswith(("amstel.apps", "amstel.cli", "amstel.nn"))]


def test_everything_public_is_there_when_it_is_named():
    found = run("""if True:
        import json, amstel
        assert set(amstel.__all__) <= set(dir(amstel))
        kinds = {name: type(getattr(amstel, name)).__name__ for name in amstel.__all__}
        try:
            amstel.nothing
        except AttributeError as error:
            kinds["nothing"] = str(error)
        print(json.dumps(kinds))
    """)
    assert found.pop("nothing") == "module 'amstel' has no attribute 'nothing'"
    assert found.pop("Graph") == "type"
    assert {found.pop(name) for name in ("raise_pending_checks", "restore", "set_checks")} == {"function"}
    assert set(found.values()) == {"module"}


STEMS = ("spmm", "conv_lstm", "conv_gru", "roi_pool", "rim", "mri")
PLACES = (
    "python/amstel/ops/{}.py",
    "python/amstel/reference/{}.py",
    "csrc/common/{}_check.h",
    "csrc/cpu/{}_op.cpp",
    "csrc/cpu/kernels/{}.inl.h",
    "csrc/cuda/{}_op.cu",
    "csrc/cuda/kernels/{}.cuh",
    "tests/test_{}.py",
    "tests/test_{}_cuda.py",
    "benchmarks/bench_{}.py",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("stem", STEMS)
def test_one_stem_through_all_folders(stem, place):
    assert (ROOT / place.format(stem)).is_file()


def test_sources_are_short_and_kernels_begin_with_their_data_flow():
    for path in (ROOT / "csrc").rglob("*.*"):
        text = path.read_text()
        assert text.count("\n") <= 400, path
        head = text.partition("\n#")[0]
        assert head.startswith("// "), path
        if path.match("cpu/kernels/*.inl.h") or "__global__" in text:
            assert "Data flow" in head, path


def fakes():
    for file in sorted((ROOT / "python/amstel/ops").glob("*.py")):
        for function in ast.walk(ast.parse(file.read_text())):
            for call in getattr(function, "decorator_list", ()):
                if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("register_fake"):
                    yield ast.literal_eval(call.args[0]).removeprefix("amstel::"), function.args


def test_a_fake_takes_what_its_operator_takes():
    """All arguments, and the operator's defaults: torch hands on none that equals the default."""
    found = dict(fakes())
    assert len(found) > 35
    for name, arguments in found.items():
        taken = getattr(torch.ops.amstel, name).default._schema.arguments
        if arguments.vararg is None:
            assert len(arguments.args) == len(taken), name
            assert len(arguments.defaults) == sum(a.has_default_value() for a in taken), name
