"""Every situation of the table, held to the same rules; see `tests.hostile.frame` for how to add one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile import frame, table

ALL = frame.everything()


def marks(situation: frame.Situation) -> list[pytest.MarkDecorator]:
    """A hang ends as a failure after the situation's own limit."""
    return [pytest.mark.timeout(situation.limit_s + 60), *([pytest.mark.slow] if situation.slow else [])]


@pytest.mark.linux
@pytest.mark.parametrize("situation", [pytest.param(s, id=s.id, marks=marks(s)) for s in ALL])
def test_nothing_bad_comes_of(situation: frame.Situation, tmp_path: Path) -> None:
    if why := frame.missing(situation):
        pytest.skip(why)
    frame.check(situation, tmp_path)


def test_the_documentation_has_every_situation() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), "python -m tests.hostile.table writes it anew"
