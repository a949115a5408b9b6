"""From the config's names to the rules that decisions keep row by row."""

from __future__ import annotations

from pipeline.competition.submission.form import resolve_empty
from pipeline.config import CompetitionConfig, SubmissionConfig
from pipeline.errors import ConfigError
from pipeline.evaluation.rules import RowRules


def row_rules(submission: SubmissionConfig, competition: CompetitionConfig, labels: tuple[str, ...]) -> RowRules:
    """What a row of decisions over `labels` must look like.

    Raises:
        ConfigError: as `resolve_empty`, and where more labels are asked for than a row may have.
    """
    empty, _ = resolve_empty(submission.empty, labels, submission.format)
    if submission.min_labels > len(labels):
        raise ConfigError(
            f"submission.min_labels={submission.min_labels}, but there are {len(labels)} labels",
            remedy="ask for fewer",
        )
    place = {name: number for number, name in enumerate(labels)}
    exclusive = tuple(tuple(place[name] for name in names) for names in competition.labels.exclusive)
    return RowRules(empty, submission.min_labels, submission.max_labels, exclusive)
