"""Who is late, by hand; what keeps the time of requests keeps nothing else of them."""

from __future__ import annotations

from windtunnel.engines.models.calls import Request
from windtunnel.engines.models.deadlines import Deadlines


def test_requests_that_were_answered_are_forgotten_long_before_their_deadline() -> None:
    deadlines = Deadlines(3600.0)
    for _ in range(1000):
        request = Request()
        deadlines.watch(request, 0.0)
        request.over = True
    assert len(deadlines) == 1


def test_only_what_is_late_is_given_up_and_one_look_serves_all() -> None:
    deadlines, requests = Deadlines(2.0), [Request() for _ in range(3)]
    assert [deadlines.watch(r, t) for r, t in zip(requests, (0.0, 0.5, 1.0), strict=True)] == [True, False, False]
    assert [r.deadline_s for r in requests] == [2.0, 2.5, 3.0]
    requests[1].over = True
    assert deadlines.look(2.0) == ([requests[0]], 1.0)
    assert deadlines.look(3.0) == ([requests[2]], -1.0)
    assert deadlines.watch(Request(), 4.0), "it must be armed again"
