"""A process forked from one that has used several threads continues with one thread.

In a child, GNU's OpenMP, which comes with torch, does not notice that the threads of its pool are gone, and waits for them
forever. A DataLoader sets its workers to one thread for this; here every `os.fork` does, as `multiprocessing` has it.
"""

import os

import torch

_alone = True


def _before() -> None:
    global _alone
    try:
        _alone = len(os.listdir("/proc/self/task")) == 1
    except OSError:
        _alone = False


def _in_child() -> None:
    if not _alone:
        torch.set_num_threads(1)


os.register_at_fork(before=_before, after_in_child=_in_child)
