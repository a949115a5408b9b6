"""Cells that nobody knows on their way through a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.config import load_config
from pipeline.cv import data_facts
from pipeline.plan import prepare


def test_the_digest_sees_unknown_cells(workplace: Path, tiny_config: Path) -> None:
    found = []
    for cell, policy in (("", "ignore"), ("", "zeros"), ("0", "ignore"), ("", "ignore")):
        path = workplace / "data/train.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.loc[0, "red"] = cell
        table.to_csv(path, index=False)
        config = load_config(tiny_config, [f"competition.labels.missing={policy}"])
        found.append(data_facts(prepare(config, debug=False, listen=lambda _: None))["targets_sha256"])
    assert found[0] == found[3] != found[1] == found[2]
