"""The gRPC door of the host: one unary method on bytes, and one that answers in pieces, without generated code.

``/windtunnel.Serving/Ask`` takes bytes and gives bytes, ``/windtunnel.Serving/Stream`` gives a stream of them. A call's own deadline
counts where it is shorter than the host's. The module owns the translation of answers into gRPC's status codes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from windtunnel.engines.serving.messages import Answer, Asked, Request
from windtunnel.engines.serving.wire import SERVICE, TRACE

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT, 408: grpc.StatusCode.DEADLINE_EXCEEDED, 413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL, 503: grpc.StatusCode.RESOURCE_EXHAUSTED,
}  # fmt: skip


class GrpcDoor:
    """A gRPC server that asks a host."""

    def __init__(self, host: Asked, address: str, port: int) -> None:
        most = host.most_bytes
        limits = (("grpc.max_receive_message_length", most), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0))
        self._host = host
        self._server = grpc.aio.server(options=limits)
        handlers = {
            "Ask": grpc.unary_unary_rpc_method_handler(self._ask),
            "Stream": grpc.unary_stream_rpc_method_handler(self._stream),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self._server.add_insecure_port(f"{address}:{port}")

    async def open(self) -> None:
        """Listen."""
        await self._server.start()

    async def close(self, seconds: float) -> None:
        """Answer what is inside, then end."""
        await self._server.stop(seconds)

    async def _ask(self, body: bytes, context: Any) -> bytes:
        parts: list[bytes] = []
        answer = await self._answer(self._request(body, context, parts.append), context)
        return b"".join(parts) or answer.body

    async def _stream(self, body: bytes, context: Any) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        request = self._request(body, context, queue.put_nowait)
        task = asyncio.create_task(self._answer(request, context))
        task.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            sent = False
            while (part := await queue.get()) is not None:
                sent = True
                yield part
            answer = await task
            if not sent:
                yield answer.body
        finally:
            task.cancel()

    def _request(self, body: bytes, context: Any, part: Any) -> Request:
        left = context.time_remaining()
        trace = any(name == TRACE for name, _ in context.invocation_metadata() or ())
        return Request(body=body, trace=trace, part=part, most_s=left)

    async def _answer(self, request: Request, context: Any) -> Answer:
        request.task = asyncio.current_task()
        answer = await self._host.answer(request)
        if answer.status != 200:
            await context.abort(_CODES.get(answer.status, grpc.StatusCode.UNKNOWN), answer.body.decode().strip())
        if answer.more:
            context.set_trailing_metadata(tuple(tuple(line.split(": ", 1)) for line in answer.more))
        return answer
