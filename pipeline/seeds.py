"""Seeds that are functions of names and numbers."""

from __future__ import annotations

import hashlib
import json


def stable_seed(*parts: int | str) -> int:
    """A seed in [0, 2**64) that is a function of `parts` alone, in every process and on every machine.

    1 and "1" differ, and so do ("ab", "c") and ("a", "bc"). torch, numpy and `random` take it as it is.
    """
    # JSON separates the parts and shows their types, whatever characters an id contains.
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "big")
