"""Opening what somebody else wrote: compressed or not, whole or cut off, read in pieces of bounded size.

The module owns how bytes become lines, and how a file that ends too early is told. It knows no format of a log.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from windtunnel.errors import InputError

CHUNK = 1 << 20
#: no line of a log, and no document that is read whole, may be longer
LONGEST_LINE = 64 << 20
LONGEST_DOCUMENT = 512 << 20
#: magic bytes → codec
_MAGIC = {
    b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip", b"\x04\x22\x4d\x18": "lz4", b"LZ4Block": "lz4_block",
    b"\x82SNAPPY\x00": "snappy", b"ZV": "lzf",
}  # fmt: skip
#: net.jpountz.lz4.LZ4BlockOutputStream (lz4-java 1.x): magic, token, compressed and original length, checksum
_LZ4_HEAD = struct.Struct("<8sBiiI")
_LZ4_RAW = 0x10
_LARGEST_BLOCK = 64 << 20
#: org.xerial.snappy.SnappyOutputStream (snappy-java 1.1): magic of 8 bytes, two version numbers, then blocks with their length
_SNAPPY_HEAD = 16


@dataclass(slots=True)
class Ending:
    """How a stream ended: ``cut`` is None where it is whole, else a sentence that says where it breaks off."""

    cut: str | None = None


class Broken(Exception):
    """A compressed stream breaks off or is damaged."""


def codec_of(head: bytes) -> str | None:
    """The codec that a file's first bytes tell, None for plain text."""
    return next((codec for magic, codec in _MAGIC.items() if head.startswith(magic)), None)


def head_of(path: Path, size: int = 1 << 16) -> bytes:
    """The first bytes of what a file holds, decompressed. Raises InputError for a file that cannot be read."""
    ending, found = Ending(), b""
    for chunk in chunks(path, ending, most=size):
        found += chunk
        if len(found) >= size:
            break
    return found[:size]


def chunks(path: Path, ending: Ending, most: int = CHUNK) -> Iterator[bytes]:
    """What a file holds, decompressed, in pieces of bounded size; a stream that breaks off says so in ``ending``.

    Raises InputError for what is no regular file, cannot be read, or is packed in a way that is not known here.
    """
    try:
        if not path.is_file():
            what = "does not exist" if not path.exists() else "is not a regular file"
            raise InputError(f"{path} {what}")
        with path.open("rb") as file:
            head = file.read(16)
            file.seek(0)
            codec = codec_of(head)
            if codec == "lzf":
                raise InputError(
                    f"{path} is compressed with LZF, which is not read here; unpack it first, or let Spark write logs with "
                    f"spark.eventLog.compression.codec=zstd"
                )
            try:
                yield from _CODECS[codec](file, min(most, CHUNK))
            except Broken as error:
                ending.cut = f"its {codec} stream {error}"
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def lines(path: Path, ending: Ending) -> Iterator[tuple[int, bytes]]:
    """Lines of a file with their numbers, from 1. A last line without its end is given too; the reader may find it cut."""
    number, rest = 0, b""
    for chunk in chunks(path, ending):
        pieces = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        rest = pieces.pop()
        for line in pieces:
            number += 1
            yield number, line
        if len(rest) > LONGEST_LINE:
            raise InputError(f"{path}, line {number + 1}: is longer than {LONGEST_LINE >> 20} MiB, which no event of a log is")
    if rest:
        yield number + 1, rest


def document(path: Path) -> bytes:
    """A whole file of at most 512 MiB. Raises InputError where it is larger, or its compressed stream is damaged."""
    ending, parts, size = Ending(), [], 0
    for chunk in chunks(path, ending):
        parts.append(chunk)
        size += len(chunk)
        if size > LONGEST_DOCUMENT:
            raise InputError(f"{path} holds more than {LONGEST_DOCUMENT >> 20} MiB in one document, which is not read here")
    if ending.cut:
        raise InputError(f"{path}: {ending.cut}")
    return b"".join(parts)


# -- codecs -----------------------------------------------------------------------------------------------------------


def _plain(file: BufferedReader, most: int) -> Iterator[bytes]:
    while chunk := file.read(most):
        yield chunk


def _gzip(file: BufferedReader, most: int) -> Iterator[bytes]:
    stream = gzip.GzipFile(fileobj=file)
    while True:
        try:
            chunk = stream.read1(most)
        except (EOFError, gzip.BadGzipFile, zlib.error, struct.error) as error:
            raise Broken(f"breaks off or is damaged ({error})") from error
        if not chunk:
            return
        yield chunk


def _arrow(codec: str) -> Callable[[BufferedReader, int], Iterator[bytes]]:
    def read(file: BufferedReader, most: int) -> Iterator[bytes]:
        import pyarrow as pa

        stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)
        while True:
            try:
                chunk = stream.read(most)
            except (OSError, pa.ArrowInvalid) as error:
                raise Broken(f"breaks off or is damaged ({error})") from error
            if not chunk:
                return
            yield chunk

    return read


def _lz4_block(file: BufferedReader, most: int) -> Iterator[bytes]:
    while head := file.read(_LZ4_HEAD.size):
        if len(head) < _LZ4_HEAD.size:
            raise Broken("breaks off in the head of a block")
        magic, token, packed, size, _ = _LZ4_HEAD.unpack(head)
        if magic != b"LZ4Block" or not (0 <= packed <= _LARGEST_BLOCK and 0 <= size <= _LARGEST_BLOCK):
            raise Broken("is damaged in the head of a block")
        data = _exactly(file, packed)
        yield from _cut(data if token & 0xF0 == _LZ4_RAW else _unpack("lz4_raw", data, size), most)


def _snappy(file: BufferedReader, most: int) -> Iterator[bytes]:
    _exactly(file, _SNAPPY_HEAD)
    while head := file.read(4):
        if len(head) < 4:
            raise Broken("breaks off in the head of a block")
        if head == b"\x82SNA":  # streams may follow each other
            _exactly(file, _SNAPPY_HEAD - 4)
            continue
        (packed,) = struct.unpack(">I", head)
        if packed > _LARGEST_BLOCK:
            raise Broken("is damaged in the head of a block")
        data = _exactly(file, packed)
        yield from _cut(_unpack("snappy", data, _snappy_size(data)), most)


def _snappy_size(data: bytes) -> int:
    """The length that a snappy block says it unpacks to: a number of 7 bits a byte."""
    size = 0
    for place, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    if size > _LARGEST_BLOCK:
        raise Broken("is damaged in the head of a block")
    return size


def _unpack(codec: str, data: bytes, size: int) -> bytes:
    import pyarrow as pa

    if not size:
        return b""
    try:
        unpacked: Any = pa.Codec(codec).decompress(data, decompressed_size=size, asbytes=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise Broken(f"holds a damaged block ({error})") from error
    return bytes(unpacked)


def _exactly(file: BufferedReader, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise Broken("breaks off in the middle of a block")
    return data


def _cut(data: bytes, most: int) -> Iterator[bytes]:
    for begin in range(0, len(data), most):
        yield data[begin : begin + most]


_CODECS: dict[str | None, Callable[[BufferedReader, int], Iterator[bytes]]] = {
    None: _plain, "gzip": _gzip, "zstd": _arrow("zstd"), "lz4": _arrow("lz4"), "lz4_block": _lz4_block, "snappy": _snappy,
}  # fmt: skip
