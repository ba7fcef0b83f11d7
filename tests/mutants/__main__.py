"""`make mutants`: breaks the rules one by one and tells which breaches no test notices.

    python -m tests.mutants [--count N] [--seed N] [--all] [FILE …]

Reads `rules.toml`: which files state rules, which test files answer for them, and which mutants change nothing that can be seen. Ends
with 0 when at least 95 % of the others die. The files that `git` knows are only read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutate import Mutant, mutants
from tests.mutants.trial import ROOT, Calls, calls, killer

BAR = 0.95
RULES = Path(__file__).with_name("rules.toml")
KEPT = ROOT / ".mutants"  # what tests call


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one mutant. ``by``: the test that killed it, None when it lives."""

    file: str
    mutant: Mutant
    by: str | None
    tests: int
    seconds: float


def main() -> int:
    """The command."""
    asked = _arguments()
    rules = tomllib.loads(RULES.read_text(encoding="utf-8"))
    tests = {f: tuple(group["tests"]) for group in rules["rules"] for f in group["files"]}
    equivalent = {(e["file"], e["mutant"]): e["why"] for e in rules.get("equivalent", ())}
    files = [f for f in tests if not asked.files or f in asked.files]
    every = {f: list(mutants((ROOT / f).read_text(encoding="utf-8"))) for f in files}
    known = {(f, m.name) for f, found in every.items() for m in found}
    for file, name in equivalent:
        if file in every and (file, name) not in known:
            print(f"stale: {file} has no mutant {name!r}")
    chosen = _choose(every, set(equivalent), None if asked.all else asked.count, asked.seed, asked.match)
    print(f"{len(known)} mutants of {len(files)} files, {len(chosen)} of them tried; {len(equivalent)} listed as equivalent")
    _preload()
    called = _calls(sorted({t for f in files for t in tests[f]}), sorted(tests))
    verdicts: list[Verdict] = []
    for number, (file, mutant) in enumerate(chosen, 1):
        verdicts.append(_judge(file, mutant, tests[file], called))
        if verdicts[-1].by is None or asked.verbose:
            print(f"[{number}/{len(chosen)}] {_line(verdicts[-1])}", flush=True)
    if asked.json:
        _write(Path(asked.json), verdicts)
    return _summary(verdicts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="files of rules, from the root; default all of them")
    parser.add_argument("--count", type=int, default=250, help="mutants to try, spread over the files (250)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (0)")
    parser.add_argument("--all", action="store_true", help="try every mutant: hours")
    parser.add_argument("--match", default="", help="only those whose name holds this text")
    parser.add_argument("--json", help="write what became of each to this file")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell of those that died, too")
    return parser.parse_args()


def _choose(
    every: dict[str, list[Mutant]], equivalent: set[tuple[str, str]], count: int | None, seed: int, match: str
) -> list[tuple[str, Mutant]]:
    """``count`` mutants, from each file in proportion to how many it has, and at least one."""
    left = {f: [m for m in found if (f, m.name) not in equivalent and match in m.name] for f, found in every.items()}
    total = sum(map(len, left.values()))
    chosen: list[tuple[str, Mutant]] = []
    for file, found in left.items():
        share = len(found) if count is None else min(len(found), max(1, round(count * len(found) / max(total, 1))))
        picked = random.Random(f"{seed}:{file}").sample(range(len(found)), share)
        chosen += [(file, found[i]) for i in sorted(picked)]
    return chosen


def _preload() -> None:
    """What every trial needs and no mutant changes: imported once, before the forks."""
    import hypothesis
    import numpy
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet
    import scipy.optimize
    import scipy.stats
    import simpy

    assert all((hypothesis, numpy, pyarrow, scipy, simpy))
    assert not any(m == "windtunnel" or m.startswith("windtunnel.") for m in sys.modules), (
        "the house must be imported by trials alone"
    )


def _calls(tests: Sequence[str], files: Sequence[str]) -> dict[str, Calls]:
    """What each test calls; remembered as long as the test file, what tests share and the rules are what they were."""
    begin = time.perf_counter()
    shared = sorted(p for p in (ROOT / "tests").rglob("*.py") if not p.name.startswith("test_") and "mutants" not in p.parts)
    ground = _digest([*shared, *(ROOT / f for f in files)])
    found: dict[str, Calls] = {}
    for test in tests:
        note = KEPT / f"{Path(test).stem}-{_digest([ROOT / test])[:16]}-{ground[:16]}.json"
        if not note.exists():
            KEPT.mkdir(exist_ok=True)
            made = {n: (c.seconds, sorted(c.functions)) for n, c in calls([test], files).items()}
            note.write_text(json.dumps(made), encoding="utf-8")
        kept = json.loads(note.read_text(encoding="utf-8"))
        found |= {name: Calls(s, frozenset((f, q) for f, q in functions)) for name, (s, functions) in kept.items()}
    print(f"{len(found)} tests pass without a mutant ({time.perf_counter() - begin:.0f} s)", flush=True)
    return found


def _digest(paths: Sequence[Path]) -> str:
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in paths)).hexdigest()


def _judge(file: str, mutant: Mutant, tests: Sequence[str], called: dict[str, Calls]) -> Verdict:
    function = mutant.name.partition(": ")[0]
    fit = {
        name: c.seconds for name, c in called.items()
        if name.partition("::")[0] in tests and (function in _IMPORTED or _reaches(c, file, function))
    }  # fmt: skip
    begin = time.perf_counter()
    by = killer(file, mutant.tree(), sorted(fit, key=lambda n: (fit[n], n)), sum(fit.values())) if fit else None
    return Verdict(file, mutant, by, len(fit), time.perf_counter() - begin)


#: what is executed by the import, whatever is called later
_IMPORTED = ("module",)


def _reaches(c: Calls, file: str, function: str) -> bool:
    """Whether a test called the function; the body of a class is executed by the import, so that any call of it will do."""
    return (file, function) in c.functions or any(f == file and q.startswith(f"{function}.") for f, q in c.functions)


def _line(verdict: Verdict) -> str:
    fate = "LIVES" if verdict.by is None else f"dies by {verdict.by}"
    return f"{fate}: {verdict.file}:{verdict.mutant.line} {verdict.mutant.name} ({verdict.tests} tests, {verdict.seconds:.1f} s)"


def _write(path: Path, verdicts: Sequence[Verdict]) -> None:
    rows = [
        {
            "file": v.file,
            "line": v.mutant.line,
            "mutant": v.mutant.name,
            "by": v.by,
            "tests": v.tests,
            "seconds": round(v.seconds, 1),
        }
        for v in verdicts
    ]
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")


def _summary(verdicts: Sequence[Verdict]) -> int:
    tried, lived = Counter(v.file for v in verdicts), Counter(v.file for v in verdicts if v.by is None)
    for file in tried:
        print(f"{tried[file] - lived[file]:4} of {tried[file]:4} die  {file}")
    total, dead = sum(tried.values()), sum(tried.values()) - sum(lived.values())
    share = dead / max(total, 1)
    print(f"{dead} of {total} mutants die: {share:.1%}, and {BAR:.0%} is asked for")
    for verdict in verdicts:
        if verdict.by is None:
            print(_line(verdict))
    return 0 if total and share >= BAR else 1


if __name__ == "__main__":
    os.environ.setdefault("WINDTUNNEL_CORE", "python")
    sys.exit(main())
