"""Table ``documents``: short texts on known topics as bytes, some of them unreadable, each row a function of seed and id alone.

A document is a few sentences made of a topic's own words in common frames, so that its topic can be told from its meaning and not
from one key word: each topic has more words than a document uses. About `DAMAGED` of them are not text. `REFERENCES` are sentences
written by hand, a few a topic, that documents are compared with. `glosses` reads WordNet's definitions instead, where Debian's
``wordnet-base`` is installed: 117,659 of them under 45 topics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from windtunnel.errors import InputError
from windtunnel.spec.workload import DatasetSpec, TableData
from windtunnel.workloads.storage import cut, even_sizes, materialise, write_table

DAMAGED = 0.02
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.binary())])
WORDNET = Path("/usr/share/wordnet")
_CHUNK_ROWS = 1024
_SENTENCES = (1, 6)  # of a document
_COMMON = 0.15  # of the sentences say nothing of the topic

#: topic → (who, what, doing, where)
TOPICS: dict[str, tuple[str, str, str, str]] = {
    "cooking": ("chef baker cook butcher waiter", "soup bread onions butter pasta gravy pie garlic cheese",
                "roasted chopped simmered baked seasoned fried", "kitchen oven restaurant bakery pantry"),
    "astronomy": ("astronomer observer cosmologist", "galaxy comet star nebula planet orbit eclipse moon telescope",
                  "observed photographed measured tracked catalogued", "observatory sky universe constellation"),
    "football": ("striker goalkeeper coach referee midfielder", "penalty goal match corner league header pass trophy",
                 "kicked scored defended tackled saved won", "stadium pitch tournament dugout terrace"),
    "finance": ("banker investor trader auditor broker", "interest shares bonds loan dividend mortgage inflation profit",
                "invested lent sold audited refinanced borrowed", "exchange bank market treasury brokerage"),
    "medicine": ("doctor nurse surgeon patient pharmacist", "fever vaccine infection diagnosis wound antibiotic blood tumour",
                 "treated vaccinated examined diagnosed prescribed healed", "hospital clinic ward laboratory surgery"),
    "sailing": ("sailor captain skipper crew helmsman", "mast anchor sail storm hull rope rudder compass tide",
                "hoisted steered moored navigated reefed anchored", "harbour ocean deck bay lighthouse"),
    "music": ("violinist composer conductor singer pianist", "symphony melody concerto rhythm chord song opera violin",
              "rehearsed composed performed tuned recorded sang", "theatre orchestra stage studio choir"),
    "gardening": ("gardener botanist florist", "roses soil seeds compost tulips hedge lawn weeds tomatoes",
                  "planted watered pruned weeded fertilised harvested", "greenhouse garden flowerbed orchard meadow"),
    "law": ("judge lawyer prosecutor juror defendant", "verdict contract testimony appeal lawsuit evidence statute sentence",
            "testified sued acquitted convicted pleaded appealed", "court trial tribunal prison hearing"),
    "railway": ("conductor driver signalman passenger", "train locomotive ticket track timetable carriage signal tunnel",
                "departed shunted coupled delayed boarded", "station platform railway junction depot"),
    "chemistry": ("chemist researcher technician", "acid molecule solution catalyst polymer crystal reaction oxide",
                  "dissolved heated oxidised distilled synthesised titrated", "flask laboratory beaker reactor refinery"),
    "computing": ("programmer administrator engineer", "compiler server bug database algorithm network processor password",
                  "compiled debugged deployed encrypted rebooted programmed", "computer datacentre terminal cluster mainframe"),
}  # fmt: skip
_FRAMES = (
    "The {who} {doing} the {what} in the {where}.", "Near the {where} a {who} {doing} one {what} after another.",
    "Before noon the {what} and the {other} were {doing} by the {who}.", "Every {who} knows what a {what} is worth at the {where}.",
    "Without the {other}, the {what} could not be {doing}.", "At the {where}, the {who} asked for the {what} and the {other}.",
)  # fmt: skip
_PLAIN = ("It was a long day.", "Nobody had expected that.", "It happened again the following week.", "The rest is well known.")
#: (topic, sentence) in order; a document's nearest one is asked for
REFERENCES: tuple[tuple[str, str], ...] = tuple(
    (topic, text) for topic, texts in (
        ("cooking", ("A recipe for a hearty meal cooked in the kitchen", "Baking bread and frying onions in butter")),
        ("astronomy", ("Stars and planets seen through a telescope", "A galaxy observed in the night sky")),
        ("football", ("A football match decided by a late goal", "The goalkeeper saved the penalty in the stadium")),
        ("finance", ("Investing money in shares and bonds", "A bank loan, interest rates and profit on the stock market")),
        ("medicine", ("A doctor treats a patient in hospital", "A vaccine against an infectious disease")),
        ("sailing", ("A ship sails across the ocean in a storm", "The crew hoisted the sail and left the harbour")),
        ("music", ("An orchestra plays a symphony in a concert hall", "A singer and a violin perform a melody")),
        ("gardening", ("Planting flowers and vegetables in the garden", "Pruning roses and watering the lawn")),
        ("law", ("A trial in court before a judge and a jury", "The lawyer appealed against the verdict")),
        ("railway", ("A train leaves the station on time", "Railway passengers wait on the platform")),
        ("chemistry", ("A chemical reaction in a laboratory flask", "Acids, molecules and catalysts")),
        ("computing", ("Software running on a computer server", "A programmer fixes a bug in the database")),
    ) for text in texts
)  # fmt: skip


def documents(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """``spec.rows`` made documents."""
    return _table(spec, folder, lambda number: document(spec.seed, number))


def glosses(spec: DatasetSpec, folder: Path) -> tuple[TableData, ...]:
    """``spec.rows`` definitions of WordNet in an order that the seed shuffles; InputError where it is not installed."""
    found = wordnet()
    order = np.random.default_rng(spec.seed).permutation(len(found))
    if (spec.rows or 0) > len(found):
        raise InputError(f"WordNet has {len(found)} definitions, not {spec.rows}; use a scale of {len(found) / 10_000:g} at most")
    return _table(spec, folder, lambda number: found[order[number]][1].encode())


def _table(spec: DatasetSpec, folder: Path, make: Callable[[int], bytes]) -> tuple[TableData, ...]:
    if spec.format not in ("parquet", "orc"):
        raise InputError(f"documents are bytes, which {spec.format} files cannot hold; use format parquet or orc")
    rows = spec.rows or 0
    if rows < 1:
        raise InputError(f"data set {spec.name!r} needs rows of at least 1, not {spec.rows}")

    def chunks() -> Iterator[pa.Table]:
        for start in range(0, rows, _CHUNK_ROWS):
            ids = range(start, min(start + _CHUNK_ROWS, rows))
            yield pa.table({"id": pa.array(ids, pa.int64()), "text": pa.array([make(i) for i in ids], pa.binary())})

    def build(scratch: Path) -> tuple[TableData, ...]:
        return (write_table(scratch, "documents", spec.format, SCHEMA, cut(chunks(), even_sizes(rows, spec.partitions))),)

    return materialise(spec, folder, build)


def document(seed: int, number: int) -> bytes:
    """The bytes of row ``number``."""
    draw = np.random.default_rng([seed, number])
    who, what, doing, where = (words.split() for words in TOPICS[topic_of(seed, number)])
    sentences = list[str]()
    for _ in range(int(draw.integers(*_SENTENCES))):
        if sentences and draw.random() < _COMMON:
            sentences.append(str(draw.choice(_PLAIN)))
            continue
        thing, other = draw.choice(what, 2, replace=False)
        words = {"who": draw.choice(who), "what": thing, "other": other, "doing": draw.choice(doing), "where": draw.choice(where)}
        sentences.append(str(draw.choice(_FRAMES)).format(**words))
    text = " ".join(sentences).encode()
    return _damaged(text, draw) if draw.random() < DAMAGED else text


def topic_of(seed: int, number: int) -> str:
    """The topic that row ``number`` is about."""
    names = tuple(TOPICS)
    return names[int(np.random.default_rng([seed, number, 1]).integers(len(names)))]


def _damaged(text: bytes, draw: np.random.Generator) -> bytes:
    """What collections hold besides texts: nothing, blanks, another encoding, an image."""
    return (b"", b" \n\t ", text.decode().encode("utf-16"), b"\x89PNG\r\n\x1a\n\xff\xd8" + text[:40])[int(draw.integers(4))]


@cache
def wordnet() -> tuple[tuple[int, str], ...]:
    """(number of its topic, definition) of each entry of WordNet's database (lexicographer files: lexnames(5WN))."""
    files = [WORDNET / f"data.{kind}" for kind in ("noun", "verb", "adj", "adv")]
    if not all(file.is_file() for file in files):
        raise InputError(f"WordNet is not in {WORDNET}; run `apt-get install wordnet-base`, or take the made documents")
    lines = (line for file in files for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("  "))
    return tuple((int(line.split(" ", 2)[1]), line.split("| ", 1)[1].strip()) for line in lines)
