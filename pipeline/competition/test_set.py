"""What is asked for and of which images, also where the sample submission does not say it all.

A sample may hold a few rows of a hidden test set, ids that are only placeholders, or not exist at all; the ids are then
those of the test CSV or of the files in the folder of test images.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.competition.folder_ids import has_image_extension, ids_in_folders
from pipeline.competition.paths import image_folders, image_paths, moved_to
from pipeline.competition.sample import Sample, TestTable, read_sample, read_test, read_test_csv
from pipeline.competition.submission import SubmissionFormat, asked_images, keys_for
from pipeline.config import CompetitionConfig, SubmissionConfig
from pipeline.config.templates import holds_id
from pipeline.errors import CompetitionError, ConfigError


@dataclass(frozen=True)
class TestSet:
    """What must be answered.

    Attributes:
        sample: the header and rows of the submission.
        table: the images it is about.
        notes: what a person should know of how the ids were found.
    """

    __test__ = False  # not a pytest class

    sample: Sample
    table: TestTable
    notes: tuple[str, ...] = ()


def read_test_set(
    competition: CompetitionConfig,
    submission: SubmissionConfig,
    form: SubmissionFormat,
    *,
    images: Path | None,
    train_ids: Collection[str],
) -> TestSet:
    """The rows of the submission and their images.

    The ids are the sample's, or those of the test CSV without a sample. They are those of the files in the folder of
    test images where `submission.ids` says so, where neither CSV is there, and where the folder `images` holds all
    that the sample asks for and more (the sample then shows the first rows of a hidden test set).

    Args:
        competition: where the files are.
        submission: the header and the source of ids.
        form: what the rows look like.
        images: a folder that replaces the one of the test images.
        train_ids: the ids that are not asked for, should all their images lie in the same folder.

    Raises:
        CompetitionError, ConfigError: files or ids are missing or do not fit together.
    """
    sample = read_sample(competition) if competition.sample_submission is not None else None
    if submission.ids == "images" or (sample is None and competition.test is None):
        ids = _ids_of_files(competition, images, asked=sample.ids if sample else (), train_ids=train_ids)
        note = f"the ids are those of {len(ids)} files in the folder of test images"
        return _of_files(_asking(competition, submission, form, sample, ids), competition, ids, images, note)
    if sample is None:
        path, frame = read_test_csv(competition)
        ids = tuple(frame[competition.id])
        table = read_test(competition, ids, path)
        return TestSet(_asking(competition, submission, form, None, ids), _moved(table, images))
    asked = asked_images(sample, form)
    if images is not None and submission.ids == "auto" and holds_id(_file_template(competition)):
        ids = _ids_of_files(competition, images, asked=asked, train_ids=train_ids)
        if set(asked) < set(ids):
            note = f"{sample.path} asks for {len(asked)} images, {images} holds {len(ids)}: all of these are answered"
            return _of_files(_asking(competition, submission, form, sample, ids), competition, ids, images, note)
    return TestSet(sample, _moved(read_test(competition, asked, sample.path), images))


def _ids_of_files(
    competition: CompetitionConfig, images: Path | None, *, asked: Collection[str], train_ids: Collection[str]
) -> tuple[str, ...]:
    """The ids of the test images that are there, with or without extensions as the known ids have them.

    Training images are left out where all of them lie in the same folder; numbers may simply begin anew for the test.
    """
    place = _answering_from(competition, images)
    template = _file_template(place)
    found = ids_in_folders(
        image_folders(place, test=True) or [Path(place.root)],
        template,
        with_extension=any(has_image_extension(id_) for id_ in asked or train_ids),
        channels=place.images.channel_files,
    )
    trained = set(train_ids) - set(asked)
    return tuple(id_ for id_ in found if id_ not in trained) if trained < set(found) else found


def _file_template(competition: CompetitionConfig) -> str:
    """How the test images are called; where a column names them, by their ids."""
    return competition.images.test_template or competition.images.template or "{id}"


def _answering_from(competition: CompetitionConfig, images: Path | None) -> CompetitionConfig:
    """The competition with its test images in the folder `images`, under the same file names."""
    files = competition.images
    if images is None and files.template is None:
        raise ConfigError(
            "the folder of the test images is not known: competition.images names a column",
            remedy="give the folder with --images DIR",
        )
    template = _file_template(competition)
    if not holds_id(template):
        raise ConfigError(
            f"no file name holds the id: the template of the test images is '{template}'",
            expected="a template with {id}, to take ids from file names",
            remedy="give a sample submission or a test CSV with the ids, or write the template with {id}",
        )
    if images is None:
        return competition
    parts = PurePosixPath(template).parts
    start = max(number for number, part in enumerate(parts) if holds_id(part))
    inside = "/".join(parts[start:])
    replaced: dict[str, object] = {
        "column": None,
        "test_column": None,
        "template": inside,
        "test_template": inside,
        "folders": [],
        "test_folders": [],
    }
    moved = files.model_copy(update=replaced)
    return competition.model_copy(update={"images": moved, "root": str(images)})


def _of_files(
    sample: Sample, competition: CompetitionConfig, ids: tuple[str, ...], images: Path | None, note: str
) -> TestSet:
    place = _answering_from(competition, images)
    frame = pd.DataFrame({competition.id: list(ids)})
    return TestSet(sample, TestTable(ids, image_paths(place, frame, sample.path, test=True)), (note,))


def _asking(
    competition: CompetitionConfig,
    submission: SubmissionConfig,
    form: SubmissionFormat,
    sample: Sample | None,
    ids: tuple[str, ...],
) -> Sample:
    """A sample that asks for `ids`, with the header of the organisers' sample or of `submission.columns`."""
    if sample is not None:
        return replace(sample, ids=keys_for(ids, form))
    id_column = competition.sample_id or competition.id
    columns = tuple(submission.columns or ())
    if not columns and form.kind.startswith("wide"):
        columns = (id_column, *form.labels)
    if not columns:
        raise ConfigError(
            f"there is no sample submission, and the header of a {form.kind} submission cannot be guessed",
            remedy=f"set submission.columns, for example [{id_column}, prediction]",
        )
    return Sample(Path("submission.columns"), columns, keys_for(ids, form), columns[0])


def _moved(table: TestTable, images: Path | None) -> TestTable:
    if images is None:
        return table
    files = [path for image in table.paths for path in image]
    if len({path.name for path in files}) < len(files):
        raise CompetitionError(
            "--images: several test images have the same file name in different folders",
            remedy="set competition.root to the folder the whole competition lies in, instead of --images",
        )
    return TestTable(table.ids, moved_to(images, table.paths))
