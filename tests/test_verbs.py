"""`python -m pipeline VERB`: the list of verbs, the help of each, and what is no verb."""

from __future__ import annotations

import pytest

from pipeline.__main__ import VERBS, main, make_parser


def test_without_arguments_the_verbs_are_listed_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split(maxsplit=1) for line in lines[lines.index("verbs:") + 1 :]]
    assert listed == [[name, verb.summary] for name, verb in VERBS.items()]
    assert len(listed) >= 8
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_has_an_example_that_parses_and_shows_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_parser().parse_args([name, *VERBS[name].example.split()]).verb == name
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert VERBS[name].summary in shown
    assert f"\n  python -m pipeline {name} {VERBS[name].example}\n" in shown
    assert all(argument.metavar in shown and argument.help for argument in VERBS[name].arguments)


def test_an_unknown_verb_ends_with_exit_code_2_and_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["chek"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert all(f"'{name}'" in message for name in ("chek", *VERBS))
