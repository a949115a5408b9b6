"""Files of a run from anywhere: damaged ones end in a RunError, and nothing large is built for them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.competition.csvs import read_cells
from pipeline.config import ImagesConfig, ModelConfig
from pipeline.errors import CompetitionError, RunError
from pipeline.files import read_folds, read_predictions
from pipeline.model.build import load_model
from pipeline.model.weights import save_tensors

HEAD = "id,group,fold\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id,fold\n",
        HEAD,
        *(HEAD + rows for rows in ("a,,0\na,,1\n", "a,,x\n", "a,,-2\n", "a,,9" + "9" * 20, '"a,,0')),
    ],
)
def test_damaged_folds_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(text)
    with pytest.raises(RunError, match=r"folds\.csv"):
        read_folds(path)


@pytest.mark.parametrize("names", [["id", "b"], ["id", "id", "a"], ["a"]])
def test_predictions_of_other_columns_are_refused(tmp_path: Path, names: list[str]) -> None:
    path, arrays = tmp_path / "oof.parquet", [np.arange(2.0)] * len(names)
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_arrays([pa.array(array) for array in arrays], names=names), path)
    with pytest.raises(RunError):
        read_predictions(path, ["a"])


def test_every_damaged_byte_of_predictions_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "oof.parquet"
    pd.DataFrame({"id": ["x", "y"], "a": [0.5, 0.25]}).to_parquet(path, index=False)
    data = path.read_bytes()
    for place in range(0, len(data), 11):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with contextlib.suppress(RunError):
            assert list(read_predictions(path, ["a"]).columns) == ["a"]


@pytest.mark.parametrize(("layers", "words"), [(10**8, "describe no model"), (90, "a larger model than it holds")])
def test_a_weight_file_that_describes_a_large_model_builds_none(tmp_path: Path, layers: int, words: str) -> None:
    model = {**ModelConfig(backbone="test_resnet").model_dump(mode="json"), "decoder_layers": layers}
    facts = {"labels": ["a"], "model": model, "images": ImagesConfig().model_dump(mode="json")}
    save_tensors(tmp_path / "w.safetensors", {"x": torch.zeros(3)}, facts)
    with pytest.raises(RunError, match=words):
        load_model(tmp_path / "w.safetensors", device=torch.device("cpu"))


def test_an_id_with_a_carriage_return_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(b'id,a\n"x\ry",1\n')
    with pytest.raises(CompetitionError, match="carriage return"):
        read_cells(path, id_column="id", key="competition.train")
