"""What processes that train together tell each other: numbers, objects, gradients, buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.processes.group import group, is_first
from pipeline.processes.roll_call import exchange, roll_call

T = TypeVar("T")

_BUCKET = 2**22  # numbers of a gradient that are sent at once


def total(*numbers: float) -> tuple[float, ...]:
    """Each of at most two numbers added up over all processes."""
    if group.count == 1:
        return numbers
    with exchange():
        return roll_call(*numbers)


def first_says(flag: bool) -> bool:
    """The `flag` of the first process, in all of them."""
    return total(float(flag and is_first()))[0] > 0


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, called there alone; all wait for it."""
    if group.count == 1:
        return make()
    box: list[Any] = [make() if is_first() else None]
    with exchange():
        roll_call()
        dist.broadcast_object_list(box, src=0, group=group.control)
    value: T = box[0]
    return value


def gather(value: T) -> list[T]:
    """The `value` of each process, in their order."""
    if group.count == 1:
        return [value]
    values: list[Any] = [None] * group.count
    with exchange():
        roll_call()
        dist.all_gather_object(values, value, group=group.control)
    return values


def total_gradient(loss: float, parameters: Iterable[nn.Parameter]) -> float:
    """Add up the gradients of all processes, in place; the sum of their `loss`."""
    if group.count == 1:
        return loss
    buckets = list(_buckets(each.grad for each in parameters))
    room = _room_for(buckets)  # before the roll call: whose memory is full can still say so
    with exchange():
        (loss,) = roll_call(loss)
        for gradients in buckets:
            message = room[gradients[0].dtype]
            places = list(pairwise(accumulate((gradient.numel() for gradient in gradients), initial=0)))
            for gradient, (start, end) in zip(gradients, places, strict=True):
                message[start:end].view_as(gradient).copy_(gradient)
            dist.all_reduce(message[: places[-1][1]])
            for gradient, (start, end) in zip(gradients, places, strict=True):
                gradient.copy_(message[start:end].view_as(gradient))
    return loss


def total_in_place(values: Tensor) -> None:
    """Add up `values`, of the same shape in every process and on its device, over all processes."""
    if group.count == 1:
        return
    with exchange():
        roll_call()
        dist.all_reduce(values)


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers, such as the running statistics of a batch norm."""
    if group.count == 1:
        return
    with exchange():
        roll_call()
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def _buckets(gradients: Iterable[Tensor | None]) -> Iterator[list[Tensor]]:
    """Those that there are, in lists of one type that can be sent as one message."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if gradient is None:
            continue
        if bucket and (size + gradient.numel() > _BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket, size = [*bucket, gradient], size + gradient.numel()
    if bucket:
        yield bucket


def _room_for(buckets: Sequence[Sequence[Tensor]]) -> dict[torch.dtype, Tensor]:
    """For each type of numbers, a flat tensor that holds the largest of its buckets."""
    largest: dict[torch.dtype, int] = {}
    for bucket in buckets:
        kind = bucket[0].dtype
        largest[kind] = max(largest.get(kind, 0), sum(gradient.numel() for gradient in bucket))
    return {kind: torch.empty(count, dtype=kind, device=buckets[0][0].device) for kind, count in largest.items()}
