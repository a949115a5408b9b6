"""How many threads this process computes with."""

from __future__ import annotations

import os

import cv2
import torch


def use_threads(count: int) -> None:
    """Compute with so many threads in this process, by torch and by OpenCV."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def share_cores(beside: int) -> None:
    """One of `beside` processes on this machine takes its share of the cores, or what OMP_NUM_THREADS says."""
    if "OMP_NUM_THREADS" in os.environ:
        use_threads(torch.get_num_threads())  # torch has read it when it was loaded, OpenCV never does
        return
    threads = max(1, (os.cpu_count() or 1) // beside)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # or Accelerate takes a number of its own
    use_threads(threads)
