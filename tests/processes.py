"""Several processes in one Gloo group, as the tests of distributed training need them."""

import faulthandler
import multiprocessing
import signal
from pathlib import Path

import torch
from torch import distributed
from torch.multiprocessing import ProcessExitedException, start_processes

# One process imports what takes seconds, and all others are forked off it.
multiprocessing.set_forkserver_preload(["torch", "torch._dynamo", "amstel", "pytest"])


def run(work, folder, *args, world=2):
    """work(rank, world, folder, *args) in each of `world` processes of one group that meets in `folder`."""
    for attempt in range(3):
        meeting = Path(folder) / f"meeting{attempt}"
        meeting.mkdir()
        try:
            arguments = (world, str(folder), str(meeting), work, args)
            start_processes(_process, arguments, nprocs=world, start_method="forkserver")
            return
        except ProcessExitedException as error:
            # Gloo aborts now and then while it connects, before there is anything to test.
            connected = len(list(meeting.glob("ready*")))
            if error.exit_code != -signal.SIGABRT or connected == world or attempt == 2:
                raise


def _process(rank, world, folder, meeting, work, args):
    faulthandler.enable()  # so that an abort says where
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{meeting}/store", rank=rank, world_size=world)
    distributed.barrier()
    Path(meeting, f"ready{rank}").touch()
    try:
        work(rank, world, folder, *args)
    finally:
        distributed.destroy_process_group()
