"""The table of hostile situations in the documentation: ``python -m tests.hostile.table`` writes ``docs/hostile.md`` anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.hostile.frame import Situation, everything

PAGE = Path(__file__).parents[2] / "docs" / "hostile.md"

INTRODUCTION = """# Hostile situations

Records, scenarios, traces, disks and signals are not always what a program hopes for. Each line below is a test (`tests/hostile/`): what is
wrong, what is done, and the [exit code](compare.md) that it ends with. In all of them there is no traceback, no hang, no process, shared
memory or half-written file left behind, and no number that comes from a bad record. *Longer* ones run in `make test-all`, the others in
`make test`; those that a machine cannot try are skipped with the reason.

A situation is data. To add one, append it to a list in `tests/hostile/situations/` and run `python -m tests.hostile.table`,
which makes this page.
"""


def page(situations: Sequence[Situation] | None = None) -> str:
    """The whole page."""
    found = everything() if situations is None else situations
    areas = dict.fromkeys(s.area for s in found)
    parts = [INTRODUCTION, f"{len(found)} situations.\n"]
    for area in areas:
        mine = [s for s in found if s.area == area]
        parts.append(f"## {area.capitalize()}\n\n| what is wrong | what is done | exit code | |\n|---|---|---|---|")
        parts += [_line(s) for s in mine]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _line(s: Situation) -> str:
    codes = " or ".join(_code(c) for c in s.exits)
    notes = ", ".join([*(["longer"] if s.slow else []), *s.needs])
    return f"| {_cell(s.name)} | {_cell(s.does)} | {codes} | {notes} |"


def _code(code: int) -> str:
    return str(code) if code >= 0 else f"signal {-code}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {len(everything())} situations")
