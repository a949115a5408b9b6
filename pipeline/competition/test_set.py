"""The test set: the rows that a submission must have, and the images that they are about.

A sample submission may list only a few rows of a hidden test set, may list placeholders, or may not exist. The ids then
come from the test CSV, or from the file names in the folder of test images.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.competition.csvs import dialect_of, read_table
from pipeline.competition.folder_ids import has_image_extension, ids_in_folders
from pipeline.competition.paths import ImagePaths, image_folders, image_paths, moved_to
from pipeline.competition.submission import SubmissionFormat, asked_images, keys_for
from pipeline.competition.submission.sample import Sample, read_sample, require_same_ids
from pipeline.config import CompetitionConfig, SubmissionConfig
from pipeline.config.templates import holds_id
from pipeline.errors import CompetitionError, ConfigError
from pipeline.events import Listener, Note


@dataclass(frozen=True)
class TestTable:
    """The test rows: N unique ids and their image files."""

    __test__ = False  # not a pytest class

    ids: tuple[str, ...]
    paths: tuple[ImagePaths, ...]


@dataclass(frozen=True)
class TestSet:
    """The header and rows of the submission, and the images that they are about."""

    __test__ = False  # not a pytest class

    sample: Sample
    table: TestTable


def read_test_set(
    competition: CompetitionConfig,
    submission: SubmissionConfig,
    form: SubmissionFormat,
    *,
    images: Path | None,
    train_ids: Collection[str],
    listen: Listener,
) -> TestSet:
    """Find the rows of the submission and their images.

    The ids are the sample's, or those of the test CSV if there is no sample. They come from the names of the test
    images if `submission.ids` is `images`, if there is neither CSV, or if the folder `images` holds all images of the
    sample and more: the sample then shows the first rows of a hidden test set.

    Args:
        competition: where the files are.
        submission: the header and the source of ids.
        form: the format of the rows.
        images: a folder that replaces the one of the test images.
        train_ids: left out, if all training images lie in the folder of the test images.
        listen: gets a note if the ids come from file names.

    Raises:
        CompetitionError, ConfigError: files or ids are missing or do not fit together.
    """
    sample = read_sample(competition) if competition.sample_submission is not None else None
    if submission.ids == "images" or (sample is None and competition.test is None):
        ids = _ids_of_files(competition, images, asked=sample.ids if sample else (), train_ids=train_ids)
        listen(Note(f"the ids are those of {len(ids)} files in the folder of test images"))
        return _of_files(_asking(competition, submission, form, sample, ids), competition, ids, images)
    if sample is None:
        path, frame = _read_test_csv(competition)
        ids = tuple(frame[competition.id])
        table = read_test(competition, ids, path)
        return TestSet(_asking(competition, submission, form, None, ids), _moved(table, images))
    asked = asked_images(sample, form)
    if images is not None and submission.ids == "auto" and holds_id(_file_template(competition)):
        ids = _ids_of_files(competition, images, asked=asked, train_ids=train_ids)
        if set(asked) < set(ids):
            listen(
                Note(
                    f"{sample.path} asks for {len(asked)} images, {images} holds {len(ids)}: all of these are answered"
                )
            )
            return _of_files(_asking(competition, submission, form, sample, ids), competition, ids, images)
    return TestSet(sample, _moved(read_test(competition, asked, sample.path), images))


def read_test(competition: CompetitionConfig, ids: Sequence[str], path: Path) -> TestTable:
    """The test rows with these ids; `competition.test` or a template gives their files.

    Args:
        competition: where the files are.
        ids: of images; the result has the order of the test CSV if there is one.
        path: the file that asks for these ids, for messages.

    Raises:
        CompetitionError: the files cannot be found, or the test CSV and `path` do not hold the same ids.
    """
    if competition.test is None:
        if competition.images.column is not None:
            raise CompetitionError(
                "the test images cannot be found: there is no test CSV to read "
                f"the column '{competition.images.column}' from",
                remedy="set competition.test, or competition.images.template in place of competition.images.column",
            )
        frame = pd.DataFrame({competition.id: list(ids)})
        return TestTable(tuple(ids), image_paths(competition, frame, path, test=True))
    csv, frame = _read_test_csv(competition)
    listed = tuple(frame[competition.id])
    require_same_ids(path, ids, listed, other=str(csv))
    return TestTable(listed, image_paths(competition, frame, csv, test=True))


def _read_test_csv(competition: CompetitionConfig) -> tuple[Path, pd.DataFrame]:
    assert competition.test is not None
    path = Path(competition.root) / competition.test
    return path, read_table(path, id_column=competition.id, key="competition.test", dialect=dialect_of(competition))


def _ids_of_files(
    competition: CompetitionConfig, images: Path | None, *, asked: Collection[str], train_ids: Collection[str]
) -> tuple[str, ...]:
    """The ids of the test images on disk; they have file extensions if the known ids have.

    Training ids are left out if all of them are in the same folder. If only some are, the test images have numbers that
    begin again from the first.
    """
    place = _with_test_images_in(competition, images)
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
    """The template of the test images; `{id}` if a column names them."""
    return competition.images.test_template or competition.images.template or "{id}"


def _with_test_images_in(competition: CompetitionConfig, images: Path | None) -> CompetitionConfig:
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


def _of_files(sample: Sample, competition: CompetitionConfig, ids: tuple[str, ...], images: Path | None) -> TestSet:
    place = _with_test_images_in(competition, images)
    frame = pd.DataFrame({competition.id: list(ids)})
    return TestSet(sample, TestTable(ids, image_paths(place, frame, sample.path, test=True)))


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
            remedy="set competition.root to the folder that holds the whole competition, instead of --images",
        )
    return TestTable(table.ids, moved_to(images, table.paths))
