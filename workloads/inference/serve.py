"""The image model as a service: a JPEG in, its label out.

The module owns the handler that serving engines run (`work = "windtunnel.workloads.inference.serve:Labels"`); the kernels are those
of batch inference.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from windtunnel.workloads.inference.photos import photo
from windtunnel.workloads.inference.vision import Classifier, decode

SAMPLES, SEED = 16, 7


class Labels:
    """Decodes and classifies a batch in one call of the model. A file that is no photograph is answered with why."""

    def __init__(self) -> None:
        self._classify = Classifier()

    def __call__(self, bodies: Sequence[bytes]) -> list[bytes]:
        """One line of JSON each: status and label."""
        batch = pa.RecordBatch.from_pydict(
            {"id": pa.array(range(len(bodies)), pa.int64()), "jpeg": pa.array(bodies, pa.binary())}
        )
        found = self._classify(decode(batch))
        pairs = zip(found["status"].to_pylist(), found["label"].to_pylist(), strict=True)
        return [json.dumps({"status": status, "label": label}).encode() for status, label in pairs]

    def samples(self) -> list[bytes]:
        """Photographs to ask with."""
        return [photo(SEED, number) for number in range(SAMPLES)]
