"""Writes a guessed config and tries it: reading, one image, one row of a submission."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.competition.guess.files import image_files
from pipeline.competition.guess.first_config import config_text, guess_config
from pipeline.competition.submission import asked_images, build_submission, submission_form, write_submission
from pipeline.competition.submission.sample import read_sample
from pipeline.competition.table import TrainTable, read_train
from pipeline.competition.test_set import read_test_set
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, PipelineError, listing
from pipeline.events import Listener, Note, ignore
from pipeline.files import write_text
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import image_form
from pipeline.images.image_stats import few_bits, largest_samples
from pipeline.training.image_inputs import train_augmentation

_LOOKED_AT = 50  # images, to see how many bits they use


class NewConfig(NamedTuple):
    """A written config, and what is still wrong with it; None if everything that was tried works."""

    path: Path
    problem: PipelineError | None


def new_config(train: Path, images: Path, *, out: Path | None, listen: Listener) -> NewConfig:
    """Guess a config, write it, and try it; `listen` gets a note with the evidence for each guess.

    The path is `out`, or by default `configs/<name of the competition's folder>.yaml`.

    Raises:
        CompetitionError: as `guess_config`.
        ConfigError: the file exists already, and is another.
    """
    guess = guess_config(train, images)
    path = out or Path("configs") / f"{Path(guess.config['competition']['root']).absolute().resolve().name}.yaml"
    files = image_files(images, images)
    lost = few_bits(largest_samples((images / file,) for file in files[:: -(-len(files) // _LOOKED_AT)]), None)
    if lost is not None:
        window = [int(number) for number in lost[1].partition("[")[2].rstrip("]").split(",")]
        sections = {**guess.config, "images": {**guess.config.get("images", {}), "window": window}}
        guess = replace(guess, config=sections, reasons=(*guess.reasons, f"images.window: {lost[0]}"))
    text = config_text(guess, train=train, images=images, path=path)
    if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):  # equal: an interrupted command
        raise ConfigError(f"{path} is there already", remedy="give another name with --out FILE")
    write_text(path, text)
    for reason in guess.reasons:
        listen(Note(f"guessed: {reason}"))
    try:
        try_config(load_config(path), listen)
    except PipelineError as error:
        return NewConfig(path, error)
    return NewConfig(path, None)


def try_config(config: Config, listen: Listener) -> None:
    """Read the training table, one image, the augmentation, the test set, and write one row of a submission.

    Raises:
        PipelineError: one of these fails.
    """
    table = read_train(config.competition, listen)
    load_image(table.paths[0], image_form(config.images))
    train_augmentation(config)
    if config.competition.sample_submission is None:
        submission_form(config.submission, config.competition, table.labels)
        return
    _try_submission(config, table, listen)


def _try_submission(config: Config, table: TrainTable, listen: Listener) -> None:
    competition = config.competition
    form = submission_form(config.submission, competition, table.labels)
    sample = read_sample(competition)
    asked = read_test_set(competition, config.submission, form, images=None, train_ids=table.ids, listen=ignore).table
    first = asked_images(sample, form)[:1]
    about = [id_ for id_ in sample.ids if id_.startswith(first[0])]
    one = replace(sample, ids=tuple(id_ for id_ in about if asked_images(replace(sample, ids=(id_,)), form) == first))
    shape = (1, len(table.labels))
    frame = build_submission(one, form, ids=first, probabilities=np.zeros(shape), decisions=np.ones(shape, np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        write_submission(Path(folder) / "submission.csv", frame, one, form, ignore)
    missing = [str(path) for image in asked.paths for path in image if not path.exists()]
    if missing:
        listen(Note(f"{len(missing)} test images are not there (yet): {listing(missing, 3)}"))
    else:
        load_image(asked.paths[0], image_form(config.images))
