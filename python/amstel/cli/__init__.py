"""The command line: `amstel info | demo | bench | graphs | video | track | restore`.

One thin module a command: arguments in, an application of `amstel.apps` called. Bad input ends with status 2 and one
line on stderr, work of which a part failed with status 1, Ctrl-C with 130.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    try:
        import typer  # noqa: F401
    except ImportError:
        print('amstel: the command line needs typer: pip install "amstel[cli]"', file=sys.stderr)
        return 2
    from amstel.cli import _main

    return _main.run(list(sys.argv[1:] if arguments is None else arguments))
