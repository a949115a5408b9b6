"""Images a second of one fold in two CPU processes, of this checkout and of another, in turn, as a ratio.

python benchmarks/two_processes.py OTHER_CHECKOUT [ROUNDS]
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.parent
WORDS: tuple[str, ...] = (
    "--folds",
    "0",
    "train.epochs=4",
    "train.precision=fp32",
    "train.workers=0",
    "model.pretrained=false",
)
WORDS += ("train.parallel_folds=1", "model.freeze=[batch_norm]")  # live batch norms exchange nothing on CPUs


def images_per_second(checkout: Path, config: Path, *, processes: int) -> float:
    """Of the fastest epoch of fold 0 of `config`: other work on the machine only slows epochs down."""
    with tempfile.TemporaryDirectory() as folder:
        return _in_folder(checkout, config, Path(folder), processes)


def _in_folder(checkout: Path, config: Path, folder: Path, processes: int) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if processes > 1:
        common |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, str(checkout / "run_cv.py"), str(config), *WORDS]
    started = [
        subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | common | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
            stdout=subprocess.DEVNULL,
        )
        for rank in range(processes)
    ]
    assert [process.wait() for process in started] == [0] * processes
    lines = (folder / f"runs/{config.stem}/fold0/epochs.jsonl").read_text(encoding="utf-8").splitlines()
    return max(float(json.loads(line)["images_per_second"]) for line in lines)


def main() -> None:
    """Print a line per round and the median of the ratios."""
    other, rounds = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    for processes in (1, 2):
        ratios = []
        for _ in range(rounds):
            config = HERE / "configs/demo.yaml"
            before, after = (images_per_second(each, config, processes=processes) for each in (other, HERE))
            ratios.append(after / before)
            print(f"{processes} processes: {before:.1f} before, {after:.1f} after, ratio {ratios[-1]:.2f}", flush=True)
        print(f"{processes} processes: median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
