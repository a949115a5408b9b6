"""How the processes that a launcher started find each other, and how they part."""

from __future__ import annotations

import contextlib
import os
import signal
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState

from pipeline.device import share_cores
from pipeline.errors import ConfigError, PipelineError, listing
from pipeline.processes.group import Group, group
from pipeline.processes.roll_call import WAIT, blank, interrupt

_WAIT_AT_THE_END = timedelta(minutes=1)


def join() -> None:
    """Find the others, where a launcher started several, and take this process's GPU.

    Raises:
        ConfigError: there are fewer GPUs than processes on this machine, or no launcher started this one.
        PipelineError: the processes cannot speak with each other.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"the environment holds WORLD_SIZE={world}, but no {listing(missing)}",
            remedy="unset WORLD_SIZE, or start the command by a launcher, such as torchrun or accelerate launch",
        )
    group.rank, group.count = int(os.environ.get("RANK", "0")), world
    group.local_count = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    gpus = torch.cuda.device_count()
    if 0 < gpus < group.local_count:
        raise ConfigError(
            f"{group.local_count} processes were started, but there are {gpus} GPUs here",
            remedy=f"start {gpus}, one for each GPU",
        )
    share_cores(group.local_count)
    try:
        _meet(on_gpus=gpus > 0)
    except RuntimeError as error:
        group.lost = True
        raise PipelineError(
            f"the {world} processes cannot speak with each other",
            got=str(error).splitlines()[0],
            remedy="see what the others said; with GPUs, NCCL_DEBUG=INFO in the environment tells more, and "
            "NCCL_P2P_DISABLE=1 helps where the cards cannot reach each other directly",
        ) from None
    signal.signal(signal.SIGINT, interrupt)


def _meet(*, on_gpus: bool) -> None:
    PartialState(cpu=not on_gpus)  # nccl and this process's GPU, or gloo
    group.rank = dist.get_rank()
    group.control = dist.new_group(backend="gloo", timeout=WAIT)
    here = torch.ones(1, device="cuda" if on_gpus else "cpu")
    dist.all_reduce(here)  # nccl is set up by its first use: what fails there is told now
    assert int(here) == group.count, "every process is there once"


def leave() -> None:
    """Wait until all are through, and let go of each other."""
    if group.control is not None and not group.lost:
        with contextlib.suppress(RuntimeError):
            slots = blank()  # as in a roll call, which another may be at
            dist.all_reduce(slots, group=group.control, async_op=True).wait(_WAIT_AT_THE_END)
        dist.destroy_process_group()
    group.__dict__.update(vars(Group()))
