"""The command line as the tests call it."""

import re

from amstel import cli


def run(capsys, *arguments):
    """Exit status, stdout and stderr of `amstel ARGUMENTS`."""
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def is_refused(capsys, arguments, message):
    """Bad input ends with status 2 and one line that says what is wrong with what."""
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == "", (arguments, status, out, err)
    assert err.count("\n") == 1 and err.startswith("amstel") and message in err, (arguments, err)
    assert not re.search(r"`\w+`|Traceback", err), (arguments, err)
    assert not re.match(r"amstel[\w ]*: (must|should|needs) ", err), (arguments, err)
