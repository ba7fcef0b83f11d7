"""How a foreign engine's exception is told: the user's kernel first, else the line that says most."""

from __future__ import annotations

import pytest

from windtunnel.engines.failures import KernelFailed, unwrap
from windtunnel.errors import OutOfMemory

DEAD = """An error occurred while calling o324.getResult.
: org.apache.spark.SparkException: Exception thrown in awaitResult:
\tat org.apache.spark.util.ThreadUtils$.awaitResult(ThreadUtils.scala:53)
Caused by: org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)
\tat org.apache.spark.api.python.BasePythonRunner.compute(PythonRunner.scala:637)
Caused by: java.io.EOFException
\tat java.base/java.io.DataInputStream.readInt(DataInputStream.java:397)
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (DEAD, "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)"),
        ("An error occurred while calling o1.x.\n: java.lang.IllegalStateException: closed\n\tat a.b(C.java:1)\n",
         "java.lang.IllegalStateException: closed"),
        ("An error occurred while calling o1.x", "An error occurred while calling o1.x"),
        ("\n  first\nCaused by: a: b\n", "first"),
        ("", "no message"),
    ],
)  # fmt: skip
def test_the_line_that_says_most(text: str, told: str) -> None:
    assert str(unwrap("spark", RuntimeError(text))) == f"spark: RuntimeError: {told}"


def test_a_kernel_and_memory_are_found_in_any_text() -> None:
    kernel = unwrap("spark", RuntimeError(f"{DEAD}{KernelFailed('clean', 3, 'ValueError: no')}"))
    assert (kernel.operator, kernel.partition, str(kernel)) == (
        "clean",
        3,
        "operator 'clean', partition 3 failed: ValueError: no",
    )
    assert isinstance(
        unwrap("spark", RuntimeError("An error occurred while calling o1.x.\n: OutOfMemoryError: heap")), OutOfMemory
    )
