"""Turn an error into one line, in terms of the command line."""

from __future__ import annotations

import re
from typing import Any


class Stopped(Exception):
    """What ended a command, in the words of the user."""

    def __init__(self, command: str, text: str, status: int = 2):
        super().__init__(text)
        self.command, self.status = command, status


def one_line(error: Any) -> str:
    """The message of an error of the options, by their names and without quotes of a value that is one already."""
    said = " ".join(error.format_message().split())
    said = said.removeprefix("Invalid value: ")
    return re.sub(r"^Invalid value for '?([^':]*)'?( / '[^']*')*: ", lambda m: f"{m[1].split()[-1]} ", said)


def in_words_of_the_user(message: str, command: Any) -> str:
    """An error of the library with its arguments by the names that they have on the command line."""
    names = {}
    for p in command.params:
        option = next((o for o in p.opts if o.startswith("--")), None)
        names[p.name] = option or p.metavar or p.name.upper()
    names |= command.said
    message = re.sub(r"`(\w+)(\[\d+\])?`", lambda m: names.get(m[1], m[0]), message)
    # What the user never named is left out after a file: of "x.png: `image` must be finite" stays that x.png must be.
    message = re.sub(r"(\.\w+: )`\w+` (?=must|should|needs)", r"\1", message)
    return re.sub(r"`(\w+)` (?=must|should|needs)", lambda m: f"the {m[1].replace('_', ' ')} ", message)
