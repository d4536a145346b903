"""Values on the command line: each function parses the text of one, and its error says what it should be."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from amstel._numerals import parsed


def fail(message: str) -> Any:
    raise typer.BadParameter(message)


def is_number(text: str) -> bool:
    try:
        parsed(text)
    except ValueError:
        return False
    return True


def integer(least: int, most: int | None = None) -> Callable[[str], int]:
    """Whole numbers of a range."""
    wide = most is None or most > 2**31
    wanted = (
        f"an integer >= {least}{' and < 2^63' if most else ''}"
        if wide
        else f"an integer from {least} to {most}"
    )

    def parse(text: str) -> int:
        try:
            value = parsed(str(text), int)
        except ValueError:
            return fail(f"should be {wanted}, got {text!r}")
        return (
            value
            if least <= value and (most is None or value <= most)
            else fail(f"should be {wanted}, got {text}")
        )

    return parse


def number(
    low: float, high: float = math.inf, *, above: bool = False, below: bool = False
) -> Callable[[str], float]:
    """Finite numbers from `low` (or only above it) to `high` (or only below it)."""
    if high == math.inf:
        wanted = f"a number {'>' if above else '>='} {low:g}"
    else:
        wanted = f"a number in {'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"

    def parse(text: str) -> float:
        try:
            value = parsed(str(text))
        except ValueError:
            return fail(f"should be {wanted}, got {text!r}")
        inside = (low < value if above else low <= value) and (value < high if below else value <= high)
        return value if inside and math.isfinite(value) else fail(f"should be {wanted}, got {text}")

    return parse


def choice(allowed: Sequence[str], **aliases: str) -> Callable[[str], str]:
    """One of some names, or another name for one of them."""

    def parse(text: str) -> str:
        text = aliases.get(text, text)
        return text if text in allowed else fail(f"should be one of {', '.join(allowed)}, got {text!r}")

    return parse


def up_to(most: int) -> Callable[[str], int]:
    """An integer >= 1, and not so large that it must be a mistake."""

    def parse(text: str) -> int:
        value = positive(text)
        return value if value <= most else fail(f"should be an integer >= 1 and <= {most}, got {text}")

    return parse


#: More threads than any machine here has cores would end the process, not slow it down.
MOST_THREADS = max(256, 4 * (os.cpu_count() or 1))
threads = integer(1, MOST_THREADS)
seed = integer(0, 2**63 - 1)
positive = integer(1)


def box(text: str) -> list[float]:
    """x,y,w,h; the corner may lie outside of the frame."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(map(is_number, parts)):
        return fail(f"should be four numbers x,y,w,h, got {text!r}")
    numbers = [parsed(part) for part in parts]
    if not all(map(math.isfinite, numbers)):
        return fail(f"should be four finite numbers x,y,w,h, got {text!r}")
    if min(numbers[2:]) <= 0:
        return fail(f"should have a positive width and height, got {text!r}")
    return numbers


def interval(text: str) -> tuple[int, int]:
    """LOW,HIGH, numbers of frames."""
    try:
        low, high = (parsed(end, int) for end in text.split(","))
    except ValueError:
        low = high = 0
    return (
        (low, high)
        if 1 <= low < high
        else fail(f"should be two numbers of frames, as in 115,755, got {text!r}")
    )


# -------------------------------------------------------------------------------------------------- files


def there(text: str) -> Path:
    """A file or folder that exists and can be read."""
    path = Path(text)
    if not path.exists():
        from amstel import _files

        return fail(_files.absent(text))
    return path if os.access(path, os.R_OK) else fail(f"{text} cannot be read: permission denied")


def video(text: str) -> Path:
    """As `there`, or the number of a camera, where nothing has that name."""
    return Path(text) if text.isdecimal() and not Path(text).exists() else there(text)


def file_there(text: str) -> Path:
    path = there(text)
    return fail(f"{text} is a folder; it should be a file") if path.is_dir() else path


def folder_there(text: str) -> Path:
    path = there(text)
    return path if path.is_dir() else fail(f"{text} is a file; it should be a folder")


def file_to_write(text: str, endings: Sequence[str] = ()) -> Path:
    """A file that can be written, of one of the endings: better said before an hour of work than after."""
    from amstel import _files

    ends_in(text, endings)
    try:
        if not _comes(Path(text).parent):
            _files.writable(text)
    except OSError as error:
        return fail(f"cannot write {text}: {error}")
    return Path(text)


def _comes(folder: Path) -> bool:
    """Whether a folder that is not there is that of --out, in it or around it, which the command makes."""
    context = _globals().get_current_context(silent=True)
    out = context and context.params.get("out")
    if not isinstance(out, Path) or folder.exists():
        return False
    folder, out = (Path(os.path.realpath(path)) for path in (folder, out))
    return folder == out or out in folder.parents or folder in out.parents


def _globals() -> Any:
    """click.globals, wherever typer has it."""
    return import_module(typer.Context.__mro__[1].__module__.replace(".core", ".globals"))


def file_named(name: str, rest: str) -> Path:
    """A file to write here, named after something that may have any name, such as "a/b"."""
    return file_to_write(re.sub(r"[^\w.-]", "-", name) + rest)


def ends_in(text: str, endings: Sequence[str]) -> None:
    """An error where a file has none of the endings."""
    if endings and Path(text).suffix.lower() not in endings:
        fail(f"{text} must end in {_either(endings)}")


#: What --json calls standard output.
STDOUT = Path("-")


def json_to_write(text: str) -> Path:
    """A file for JSON, or standard output; an existing checkpoint or clip is refused as a mistake."""
    if text == "-":
        return STDOUT
    path = file_to_write(text)
    return no_other(path) if path.exists() else path


def no_other(path: Path) -> Path:
    """`path`, where nothing is lost by writing JSON to it: it is not there, empty, no plain file or JSON already.

    When it is written, its folder is made where it is one in that of --out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        with open(path, "rb") as file:
            begin = file.read(64).lstrip()
        if begin and begin[:1] not in b"{[":
            return fail(f"cannot write JSON to {path}: it exists and holds something else")
    return path


def writes(*endings: str) -> Callable[[str], Path]:
    def parse(text: str) -> Path:
        return file_to_write(text, endings)

    parse.endings = endings  # type: ignore[attr-defined]
    return parse


def target(text: str) -> Path:
    """A file or folder to write, of which the command decides more."""
    return Path(text)


def folder_to_write(text: str) -> Path:
    """A folder that exists and is writable, or that can be created."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        return fail(f"cannot write to {text}: it is a file; it should be a folder")
    place = path.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        return fail(
            f"cannot write to {text}: {place} {'is no folder' if not place.is_dir() else 'cannot be written'}"
        )
    return path


def out(help: str) -> Any:
    """--out DIR, which is read before other options: they may name files in it."""
    return typer.Option("--out", metavar="DIR", parser=folder_to_write, is_eager=True, help=help)


def _either(endings: Sequence[str]) -> str:
    return endings[0] if len(endings) == 1 else f"{', '.join(endings[:-1])} or {endings[-1]}"


def shipped() -> list[str]:
    """Names of `RIM.pretrained`."""
    files = sorted((Path(__file__).parents[1] / "weights").glob("rim_*.safetensors"))
    return [{"gray_unet": "gray"}.get(file.stem[4:], file.stem[4:]) for file in files]


def weights_there(text: str) -> str | Path:
    """A checkpoint, or the name of bundled weights of restoration."""
    if Path(text).exists() or text not in shipped():
        return file_there(text)
    return text


#: Which of these are for what a command reads, and which for what it writes.
READ = (there, file_there, folder_there, weights_there)
WRITTEN = (file_to_write, json_to_write, folder_to_write, target)
