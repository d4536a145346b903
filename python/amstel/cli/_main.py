"""All commands together, and the exit status."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer

import amstel
from amstel.cli import bench, demo, graphs, info, restore, track, video
from amstel.cli import track_evaluate as _track_evaluate  # noqa: F401 (commands of the family track)
from amstel.cli import video_evaluate as _evaluate  # noqa: F401 (commands of the family video)
from amstel.cli import video_extract as _extract  # noqa: F401
from amstel.cli import video_forecast as _forecast  # noqa: F401
from amstel.cli._command import Command, Failed, Group
from amstel.cli._errors import Stopped, in_words_of_the_user, one_line

#: Seconds that a process of torchrun waits for the first to say what is wrong.
_PATIENCE = 20.0

app = typer.Typer(
    cls=Group,
    help="Fused PyTorch operators for GCN, VideoLSTM, SINT and RIM, and the models built on them.",
    epilog="Each family has train, predict and evaluate; see amstel video train --help.",
    rich_markup_mode=None,
)
info.add(app)
demo.add(app)
bench.add(app)
app.add_typer(graphs.app, name="graphs")
app.add_typer(video.app, name="video")
app.add_typer(track.app, name="track")
app.add_typer(restore.app, name="restore")
# Names of the first release.
graphs.add_old_name(app)
app.add_typer(video.app, name="videolstm", hidden=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"amstel {amstel.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Within the `with`, output takes whatever is said: letters that its encoding lacks are escaped, as on stderr, and what
    was closed (`>&-`) leads nowhere."""
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream: Any = getattr(sys, name)
            if stream is None:
                # Takes the number of the closed one, which the next file would otherwise get.
                stream = stack.enter_context(open(os.devnull, "w", encoding="utf-8", errors="replace"))
                setattr(sys, name, stream)
                stack.callback(setattr, sys, name, None)
            elif hasattr(stream, "reconfigure"):
                stack.callback(_again, stream, stream.errors)
                stream.reconfigure(errors="backslashreplace")
        yield


def _again(stream: Any, errors: str) -> None:
    with contextlib.suppress(OSError):  # reconfiguring writes what is left, which nobody may read
        stream.reconfigure(errors=errors)


def run(arguments: list[str]) -> int:
    with _streams():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    command.help = app.info.help
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warning
            status = command.main(arguments, prog_name="amstel", standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except Stopped as stop:
        return _fail(f"{stop.command}: {stop}", stop.status)
    except Failed as error:
        context: Any = getattr(error, "ctx", None)
        return _fail(f"{context.command_path if context else 'amstel'}: {one_line(error)}", 2)
    except typer.Abort:
        return 130
    except BrokenPipeError:  # of `amstel info | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("AMSTEL_TRACEBACK"):
            traceback.print_exc()
        said = " ".join(str(error).split())
        return _fail(f"amstel: {type(error).__name__}: {said} (AMSTEL_TRACEBACK=1 shows where)"[:2000], 1)


def _warning(message: Any, *where: Any, **more: Any) -> None:
    """One line, and not the line of code that it came from."""
    said = " ".join(str(message).split())
    if Command.running is not None:
        said = in_words_of_the_user(said, Command.running)
    print(f"amstel: warning: {said}", file=sys.stderr)


def _fail(text: str, status: int) -> int:
    if _is_echo():
        # torchrun ends all processes once one has failed, and the first should have said why by then. If it goes on
        # working instead, the error is not its own, and is said here.
        time.sleep(_PATIENCE)
    print(" ".join(text.split()), file=sys.stderr)
    return status


def _is_echo() -> bool:
    """Whether the first process of torchrun on this machine should say the same: it was found before they met."""
    ranks = sys.modules.get("amstel.apps.ranks")
    return os.environ.get("LOCAL_RANK", "0") != "0" and not getattr(ranks, "connected", False)
