"""Writing files and importing optional packages: what was there survives every error, what is missing is named."""

import ast
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import amstel
from amstel import _files, _optional


def hidden(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit, MemoryError])
def test_the_old_file_survives_every_error(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), _files.replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_new_file_has_the_ending_and_no_trace_is_left(tmp_path):
    path = tmp_path / "clip.final.mp4"
    with _files.replacing(path) as temporary:
        assert temporary.suffix == ".mp4" and temporary.parent == tmp_path and temporary.name.startswith(".")
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new" and not hidden(tmp_path)


def test_a_body_that_writes_nothing_does_not_empty_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), _files.replacing(path):
        pass
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "name", ["é" * 120 + ".txt", "a:b.txt", "日本語.txt", "noending", ".hidden", "a b%03d.txt"]
)
def test_names(tmp_path, name):
    assert _files.write_text(tmp_path / name, "ü").read_bytes() == "ü".encode()
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_permissions_are_kept_and_new_files_follow_the_mask(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o640)
    _files.write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    mask = os.umask(0o027)
    try:
        other = _files.write_text(tmp_path / "b.txt", "new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(other.stat().st_mode) == 0o640


def test_links_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "a.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    _files.write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new"


def test_a_device_or_pipe_is_not_replaced(tmp_path):
    _files.write_text("/dev/null", "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_output_must_not_be_input(tmp_path):
    path, link, hard = tmp_path / "a.mp4", tmp_path / "l.mp4", tmp_path / "h.mp4"
    path.write_bytes(b"film")
    link.symlink_to(path)
    os.link(path, hard)
    for output in (path, link, hard, tmp_path / "x" / ".." / "a.mp4", os.path.relpath(path)):
        with pytest.raises(ValueError, match="another file than the input"), _files.replacing(output, [path]):
            raise AssertionError("the body must not run")
    assert path.read_bytes() == b"film"
    for inside in (tmp_path / "new.mp4", tmp_path / "deep" / "new.mp4"):
        with pytest.raises(ValueError, match="outside the input folder"):
            _files.distinct(inside, tmp_path)
    _files.distinct(tmp_path.parent / f"{tmp_path.name}-out" / "new.mp4", tmp_path)


def test_what_cannot_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    cases = [
        (tmp_path, IsADirectoryError),
        (tmp_path / "no" / "a.txt", FileNotFoundError),
        (tmp_path / "file" / "a.txt", NotADirectoryError),
    ]
    for path, error in cases:
        with pytest.raises(error), _files.replacing(path):
            raise AssertionError("the body must not run")


def test_json_that_cannot_be_written_leaves_the_old(tmp_path):
    path = _files.write_json(tmp_path / "a.json", {"ä": [1, 2.5]})
    assert json.loads(path.read_text()) == {"ä": [1, 2.5]} and path.read_text().endswith("\n")
    with pytest.raises(TypeError):
        _files.write_json(path, {"x": object()})
    assert json.loads(path.read_text()) == {"ä": [1, 2.5]}


WRITERS = {
    "replacing": "_files.replacing(folder / 'a.pt')",
    "together": "_files.replacing_together(folder / 'a.pt', folder / 'b.txt')",
    "folder": "_files.replacing_folder(folder / 'a', False, bool, 'graph')",
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_killed_process_left_is_removed_and_nothing_of_a_living_one(tmp_path, name):
    program = f"""
import pathlib, sys
from amstel import _files
folder = pathlib.Path(sys.argv[1])
with {WRITERS[name]} as places:
    for place in places if isinstance(places, list) else [places]:
        (place / "c.npy" if place.is_dir() else place).write_text("half")
    print(flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        try:
            writer.stdout.readline()
            begun = hidden(tmp_path)
            assert begun
            for place in begun:
                os.utime(tmp_path / place, (0, 0))
            _files.write_text(tmp_path / "other.txt", "1")
            assert hidden(tmp_path) == begun
        finally:
            writer.send_signal(signal.SIGKILL)
    _files.write_text(tmp_path / "other.txt", "2")
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


@pytest.mark.parametrize("error", [BlockingIOError, OSError(37, "No locks available"), None])
def test_without_a_lock_files_are_written_and_remains_stay(tmp_path, monkeypatch, error):
    """Under `flock FOLDER amstel ...`, on a file system without locks, and on Windows."""
    remains = tmp_path / ".a.00000000.partial.txt"
    remains.write_text("half")
    os.utime(remains, (0, 0))

    def refusing(*_):
        raise error

    if error is None:
        monkeypatch.setattr(_files, "fcntl", None)
    else:
        monkeypatch.setattr(_files.fcntl, "flock", refusing)
    assert _files.write_text(tmp_path / "a.txt", "new").read_text() == "new" and remains.exists()
    monkeypatch.undo()
    _files.write_text(tmp_path / "a.txt", "newer")
    assert not remains.exists()


def test_remains_are_known_by_their_names(tmp_path):
    """What was there before stays where it has no successor, and so does what has just begun or is of others."""
    cut = "x" * 40
    kept = [
        ".a.00000000.old.txt",
        f".{cut}.00000000.old.txt",
        ".b.partial.txt",
        ".c.0000000g.partial.txt",
        "d.00000000.partial",
    ]
    for name in (*kept, ".e.00000000.old.txt", ".f.00000000.partial.txt", f".{cut}.12345678.partial"):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".g.00000000.partial.txt").write_text("")
    (tmp_path / ".h.00000000.partial").symlink_to(tmp_path)
    (tmp_path / f"{cut}.txt").write_text("")
    _files.write_text(tmp_path / "e.txt", "")
    (tmp_path / ".i.00000000.partial").mkdir()
    _files.write_text(tmp_path / "e.txt", "")  # looked once
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [
            *kept,
            ".e.00000000.old.txt",
            ".g.00000000.partial.txt",
            ".h.00000000.partial",
            ".i.00000000.partial",
            "e.txt",
            f"{cut}.txt",
        ]
    )
    _files._looked.clear()
    os.utime(tmp_path / ".i.00000000.partial", (0, 0))
    _files.write_text(tmp_path / "e.txt", "")
    assert not (tmp_path / ".e.00000000.old.txt").exists() and not (tmp_path / ".i.00000000.partial").exists()


def test_checkpoints(tmp_path):
    path = _files.torch_save(tmp_path / "a.pt", {"w": torch.arange(3)})
    with pytest.raises(Exception, match="pickle"):
        _files.torch_save(path, {"w": torch.arange(4), "f": lambda: 0})
    assert torch.load(path)["w"].tolist() == [0, 1, 2] and not hidden(tmp_path)
    with _files.replacing(tmp_path / "a.npz") as temporary:
        np.savez(temporary, x=np.arange(2))
    assert np.load(tmp_path / "a.npz")["x"].tolist() == [0, 1]


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    assert _optional.need("json", extra="video") is json
    for name in ("nosuch_package", "nosuch_package.part"):
        with pytest.raises(ImportError) as error:
            _optional.need(name, extra=("track", "video"), purpose="amstel.video")
        assert (
            str(error.value)
            == 'amstel.video needs nosuch_package: pip install "amstel[track]" or pip install "amstel[video]"'
        )
    for name in ("torchvision", "torchvision.ops"):
        monkeypatch.setitem(sys.modules, name, None)
    for convert in (amstel.interop.torchvision.convert, amstel.interop.torchvision.replace_):
        with pytest.raises(ImportError, match=r"^amstel\.\S+ needs torchvision: pip install torchvision$"):
            convert(torch.nn.Linear(1, 1))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r'needs cv2: pip install "amstel\[video\]"$'):
        _optional.need("cv2", extra="video")
    assert _optional.have("json") and not _optional.have("nosuch_package.part") and not _optional.have("cv2")


def test_a_broken_package_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import nosuch_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="importing it failed: No module named 'nosuch_dependency'"):
        _optional.need("broken_package", extra="video")
    assert isinstance(sys.modules.get("json"), types.ModuleType)


def _in_the_encoding_of_the_locale(call):
    """Whether a call opens a file as text and does not say in which encoding: open(p), p.open(), p.read_text()."""
    of_path = isinstance(call.func, ast.Attribute)
    name = call.func.attr if of_path else getattr(call.func, "id", "")
    if any(k.arg == "encoding" for k in call.keywords):
        return False
    if name in ("read_text", "write_text"):
        return of_path and getattr(call.func.value, "id", "") != "_files"
    mode = [k.value for k in call.keywords if k.arg == "mode"] or call.args[0 if of_path else 1 :][:1]
    text = not mode or (isinstance(mode[0], ast.Constant) and set(str(mode[0].value)) <= set("rwaxt+"))
    return name == "open" and text


def test_text_is_read_and_written_in_utf8():
    """Whatever the locale: JSON that is written in UTF-8 and read in Latin-1 has other names in it."""
    for code, expected in (
        ("open(p)", True),
        ("p.open('w')", True),
        ("p.read_text()", True),
        ("open(p, 'rb')", False),
        ("Image.open(p)", False),
        ("open(p, encoding='utf-8')", False),
    ):
        assert _in_the_encoding_of_the_locale(ast.parse(code).body[0].value) == expected, code
    found, root = [], Path(amstel.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _in_the_encoding_of_the_locale(node):
                found.append(f"{path.relative_to(root)}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE])
def test_a_broken_disk_says_of_which_file(number):
    with pytest.raises(OSError) as caught, _files.naming("a/b.pt"):
        raise OSError(number, os.strerror(number))
    assert _files.said(caught.value) == f"a/b.pt: {os.strerror(number)}"


def test_a_rename_is_said_from_where_to_where():
    error = OSError(errno.EXDEV, os.strerror(errno.EXDEV), ".x.partial", None, "x")
    assert _files.said(error) == f".x.partial -> x: {os.strerror(errno.EXDEV)}"
