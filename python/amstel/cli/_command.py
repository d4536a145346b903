"""Common to all commands: options, and the settings of a training as options.

Nothing here imports torch before a command runs, so --help and a wrong option answer immediately.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from amstel.cli import _values as values
from amstel.cli._errors import Stopped, in_words_of_the_user

Failed: type[Exception] = typer.BadParameter.__mro__[2]  # click's exception that has a message for the user


class Command(TyperCommand):
    """A command whose options with several values take them one after the other too: --sigma 15 25 50."""

    #: Options that are not the name of what they set: {name in errors of the library: what the user calls it}.
    said: Mapping[str, str] = {}
    #: Options that may stand without their value: {option: the value that is meant}.
    bare: Mapping[str, str] = {}
    #: {name of what is set: the function that reads its text}.
    parsers: Mapping[str, Any] = {}
    running: Any = None

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        for p in self.params:
            if isinstance(p, TyperArgument):  # NAME and its help, without the type in Python's words
                p.display_type_rich = lambda ctx: ""  # type: ignore[method-assign]
                p.get_usage_pieces = functools.partial(_usage, p)  # type: ignore[method-assign]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if wants_help(args):
            return super().parse_args(ctx, ["--help"])
        options = {name: p for p in self.get_params(ctx) for name in p.opts if name.startswith("-")}
        given, rest = [], list(args)
        while rest:
            word = rest.pop(0)
            given.append(word)
            if word == "--":
                break
            option = options.get(word)
            if option is None or getattr(option, "is_flag", False) or getattr(option, "count", False):
                continue
            for _ in range(option.nargs):
                if (not rest or rest[0] in options) and word in self.bare:
                    given.append(self.bare[word])
                    break
                if not rest or rest[0] in options:
                    ctx.fail(f"{word} needs {'a value' if option.nargs == 1 else f'{option.nargs} values'}")
                given.append(rest.pop(0))
            while getattr(option, "multiple", False) and rest and values.is_number(rest[0]):
                given += [word, rest.pop(0)]
        return super().parse_args(ctx, given + rest)

    def _apart(self, ctx: Any) -> None:
        """An error where a file to write is one that the command reads, by whatever name (--force does not mean that), or
        writes otherwise."""
        from amstel import _files

        read: list[Path] = []
        written: dict[str, list[Path]] = {}
        for name, kind in self.parsers.items():
            given = ctx.params.get(name)
            paths = [
                v for v in (given if isinstance(given, (list, tuple)) else [given]) if isinstance(v, Path)
            ]
            if kind in values.READ:
                read += [path for path in paths if path.is_file()]
            elif kind in values.WRITTEN or hasattr(kind, "endings"):
                written[name] = [path for path in paths if path != values.STDOUT]
        for name, paths in written.items():
            for path in paths:
                _files.distinct(path, *read, argument=name)
                # What a training writes to its folder.
                own = [f for f in read if f.name in ("checkpoint.pt", "best.pt") and path.is_dir()]
                if name == "out" and any(f.parent.samefile(path) for f in own):
                    raise ValueError(
                        f"`{name}` must be another folder than that of the input, got {path} of {own[0]}"
                    )
        pairs = [(name, path) for name, paths in written.items() for path in paths if not path.is_dir()]
        for (name, path), (other, theirs) in itertools.combinations(pairs, 2):
            if os.path.realpath(path) == os.path.realpath(theirs):
                raise ValueError(f"`{other}` must be another file than `{name}`, got {theirs} for both")

    def invoke(self, ctx: Any) -> Any:
        Command.running = self
        try:
            self._apart(ctx)
            return super().invoke(ctx)
        except (BrokenPipeError, Stopped):
            raise
        except Failed as error:
            error.ctx = getattr(error, "ctx", None) or ctx  # type: ignore[attr-defined]
            raise
        except KeyboardInterrupt as error:
            text, out = str(error) or "interrupted", ctx.params.get("out")
            # The second Ctrl-C, or one of several processes: what is there is of the last epoch.
            if not error.args and "resume" in ctx.params and out and (out / "checkpoint.pt").exists():
                text += f"; --resume continues from {out / 'checkpoint.pt'}"
            raise Stopped(ctx.command_path, text, 130) from error
        except (ValueError, OSError, EOFError, ImportError, MemoryError) as error:
            from amstel import _files

            text = in_words_of_the_user(_files.said(error) or type(error).__name__, self)
            raise Stopped(ctx.command_path, text) from error


def wants_help(args: list[str]) -> bool:
    """Whether --help is among the words, which then wins over whatever is wrong with the others."""
    return "--help" in itertools.takewhile(lambda word: word != "--", args)


def _usage(argument: Any, ctx: Any) -> list[str]:
    """An argument as a usage line has it: NAME, [NAME], NAME... or [NAME]..."""
    name = argument.metavar or argument.name.upper()
    return [(name if argument.required else f"[{name}]") + "..." * (argument.nargs != 1)]


class Group(TyperGroup):
    """A family: its commands, and one of them for arguments that begin with none: `amstel track VIDEO`."""

    default: str | None = None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names = [name for name, command in self.commands.items() if not command.hidden]
        if self.default and args and args[0] not in self.commands and args[0] != "--help":
            # A number may be a camera, which the command knows.
            if args[0].startswith("-") or args[0].isdecimal() or os.path.lexists(args[0]):
                args = [self.default, *args]
            elif not wants_help(args):
                ctx.fail(f"{args[0]} is neither a file that exists nor one of {', '.join(names)}")
        if wants_help(args) and args[0] not in self.commands:
            args = ["--help"]
        if not args:
            ctx.fail(f"COMMAND is missing: one of {', '.join(names)}; see {ctx.command_path} --help")
        return super().parse_args(ctx, args)


def family(help: str, default: str | None = None, epilog: str | None = None) -> typer.Typer:
    """A group of commands."""
    cls = type("Family", (Group,), {"default": default})
    return typer.Typer(
        cls=cls, help=help, epilog=epilog, add_completion=False, rich_markup_mode=None, no_args_is_help=False
    )


# ------------------------------------------------------------------------------------ what all commands take


@dataclasses.dataclass
class Common:
    """The options of every command, and how it says what it does."""

    device: str
    seed: int | None
    json: Path | None
    quiet: bool
    threads: int | None = None
    restarted: bool = False  # by torchrun, in the middle of a training
    worked: int = 0  # items that the progress has counted

    def __post_init__(self) -> None:
        # Nothing but JSON on a standard output that a program reads.
        self.quiet |= self.json == values.STDOUT

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text)

    def write_json(self, record: Any) -> None:
        """To the file of --json, where it was given; null where a number is not one, which JSON has no word for."""
        from amstel import _files

        record = _finite(record)
        if self.json == values.STDOUT:
            print(_files.json_text(record, encoding=sys.stdout.encoding or "utf-8"), end="")
        elif self.json is not None:
            _files.write_json(values.no_other(self.json), record)  # the command may have written it itself

    @contextlib.contextmanager
    def progress(self, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """`update(n)` of a bar on a terminal, or of a line a minute in a log; nothing with --quiet."""
        from amstel.apps import progress

        def counting(items: int) -> None:
            self.worked += items
            update(items)

        with progress.shown(total, unit, quiet=self.quiet) as update:
            yield counting


def _finite(value: Any) -> Any:
    """`value` with None for NaN and infinity, in whatever it holds."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_THREADS: dict[str, Any] = {"metavar": "N", "parser": values.threads}
_COMMON = [
    (
        "device",
        str,
        "cpu",
        typer.Option("--device", metavar="D", help="cpu, cuda, cuda:1, ..."),
    ),
    (
        "threads",
        int | None,
        None,
        typer.Option("--threads", help="CPU threads [default: PyTorch's]", **_THREADS),
    ),
    (
        "seed",
        int | None,
        None,
        typer.Option("--seed", metavar="N", parser=values.seed, help="random seed [default: 0]"),
    ),
    (
        "json",
        Path | None,
        None,
        typer.Option(
            "--json",
            metavar="FILE",
            parser=values.json_to_write,
            help="write the results as JSON; - prints it",
        ),
    ),
    ("quiet", bool, False, typer.Option("--quiet", help="print errors and warnings only")),
]


def command(
    app: typer.Typer,
    name: str,
    *others: str,
    settings: Any = None,
    own: Mapping[str, Any] | None = None,
    said: Mapping[str, str] | None = None,
    bare: Mapping[str, str] | None = None,
    seed_names: tuple[str, ...] = ("--seed",),
    threads: int | None = None,
    without: tuple[str, ...] = (),
    hidden: bool = False,
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Make a function the command `name` of `app`, and under the `others` too, which --help does not show.

    The function gets `common` (`Common`), its own parameters, and with `settings`, an instance of a dataclass, the
    options given of its fields as `given`. Its first docstring line is the help.

    Args:
        own: the fields of `settings` that are options: {field: typer.Option's keywords}.
        said: the user's names for arguments in the library's errors, in addition to the options' own names.
        bare: options that may stand without their value, with the value that is meant then.
        seed_names: names of --seed.
        threads: what the function takes where --threads is not given; None: PyTorch's number.
        without: options of every command, "seed" or "device", that would do nothing here.
    """

    def register(function: Callable[..., int | None]) -> Callable[..., int | None]:
        own_parameters = [
            p
            for p in inspect.signature(function, eval_str=True).parameters.values()
            if p.name not in ("common", "given")
        ]
        for p in own_parameters:  # a default that the help says itself is not said again
            for option in getattr(p.annotation, "__metadata__", ()):
                if "[default: " in (getattr(option, "help", None) or ""):
                    option.show_default = False
        fields = _settings_parameters(settings, own or {})

        @functools.wraps(function)
        def run(**arguments: Any) -> int | None:
            if settings is not None:
                given = {p.name: arguments.pop(p.name) for p in fields}
                arguments["given"] = {k: v for k, v in given.items() if v is not None and v is not False}
            return function(common=_common(arguments), **arguments)

        shared = []
        for key, kind, default, option in _COMMON:
            if key in without:
                continue
            if key == "seed" and seed_names != ("--seed",):
                option = typer.Option(
                    *seed_names, metavar="N", parser=values.seed, help="first random seed [default: 0]"
                )
            if key == "threads" and threads is not None:
                option = typer.Option("--threads", help=f"CPU threads [default: {threads}]", **_THREADS)
            shared.append(_parameter(key, kind, default, option))
        run.__signature__ = inspect.Signature(own_parameters + fields + shared)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in own_parameters + fields + shared}
        help = inspect.getdoc(function) or ""
        parsers = {
            p.name: getattr(option, "parser", None)
            for p in own_parameters + fields + shared
            for option in getattr(p.annotation, "__metadata__", ())
        }
        shape = {"said": dict(said or {}), "bare": dict(bare or {}), "parsers": parsers}
        cls = type("Command", (Command,), shape)
        for title in (name, *others):
            app.command(title, cls=cls, help=help, hidden=hidden or title != name)(run)
        return run

    return register


def _parameter(name: str, kind: Any, default: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _settings_parameters(settings: Any, own: Mapping[str, Any]) -> list[inspect.Parameter]:
    """Options for fields of a dataclass; their defaults are shown, and not given means None."""
    found = []
    for name, keywords in own.items():
        keywords = dict(keywords)
        parser = keywords.pop("parser")
        default = keywords.pop("default") if "default" in keywords else getattr(settings, name)
        option = f"--{name.replace('_', '-')}"
        if parser is bool:
            said = typer.Option(option, help=keywords["help"])
            found.append(_parameter(name, bool, False, said))
            continue
        said_default = f"{default:g}" if isinstance(default, float) else default
        help = keywords["help"]
        if "[default]" not in help:
            help = f"{help} [default: {said_default}]".strip()
        shown: dict[str, Any] = {
            "metavar": keywords.get("metavar", "X"),
            "hidden": keywords.get("hidden", False),
        }
        said = typer.Option(option, parser=parser, help=help, **shown)
        found.append(_parameter(name, keywords.get("kind", Any) | None, None, said))
    return found


def _common(arguments: dict[str, Any]) -> Common:
    """Take the common options out, and see to it that they hold."""
    threads = arguments.pop("threads")
    common = Common(
        arguments.pop("device", "cpu"),
        arguments.pop("seed", None),
        arguments.pop("json"),
        arguments.pop("quiet"),
        threads,
    )
    import importlib

    import torch

    importlib.import_module(
        "amstel._library"
    )  # the operators, which `import amstel` loads where it is no command
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        torch.empty(0, device=common.device)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError):
        raise typer.BadParameter(f"--device: torch has no device {common.device} here") from None
    return common
