"""Several processes that train one fold together: who this one is, and what all of them agree on.

A launcher (torchrun, `accelerate launch`, Accelerate's notebook launcher) starts the same command once per GPU.
All of them walk the same path. Where they exchange something, there is first a roll call: a process that cannot
go on says so there, whatever stopped it and wherever, and all end together with the same error. In a command
that runs alone every function here does nothing, or gives back what it was given.

`group` knows who this process is, `roll_call` how all stay together, `exchange` what they tell each other,
`start` how they find each other and part.
"""

from pipeline.processes.exchange import (
    first_says,
    from_first,
    gather,
    share_buffers,
    total,
    total_gradient,
    total_in_place,
)
from pipeline.processes.group import count, is_first, local_count, part_of, rank, require_one, tells_mistakes
from pipeline.processes.roll_call import ending_together, full_together, interrupt
from pipeline.processes.start import join, leave

__all__ = [
    "count",
    "ending_together",
    "first_says",
    "from_first",
    "full_together",
    "gather",
    "interrupt",
    "is_first",
    "join",
    "leave",
    "local_count",
    "part_of",
    "rank",
    "require_one",
    "share_buffers",
    "tells_mistakes",
    "total",
    "total_gradient",
    "total_in_place",
]
