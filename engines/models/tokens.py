"""Continuous batching of a language model, pure: which sequences an iteration computes, and what memory their keys and values take.

The rules are those of vLLM's scheduler since its version 1 (``vllm/v1/core/sched/scheduler.py``, 0.11): an iteration has a budget of
tokens; running sequences take one each, oldest first, then prompts take what is left in chunks, first come first served. When
memory is full the youngest sequence gives its own back and is computed again later, with what it had generated as part of its
prompt. Memory is counted in tokens, not in blocks. Emulated: no model runs, and the length of an answer is known beforehand.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from windtunnel.spec.serving import TokenSpec

Key = TypeVar("Key")


@dataclass(slots=True, eq=False)
class Sequence(Generic[Key]):
    """A request's tokens. ``held``: tokens whose keys and values lie in memory; ``to_compute``: of its prompt, and, after it lost its
    memory, of what it had generated."""

    key: Key
    prompt: int
    output: int
    generated: int = 0
    held: int = 0
    to_compute: int = 0

    @property
    def finished(self) -> bool:
        """Whether all tokens are there."""
        return self.generated >= self.output


@dataclass(slots=True)
class Step(Generic[Key]):
    """One iteration: sequences that get their next token, and chunks of prompts."""

    decode: list[Sequence[Key]] = field(default_factory=list)
    prefill: list[tuple[Sequence[Key], int]] = field(default_factory=list)


def fits(spec: TokenSpec, prompt: int, output: int) -> bool:
    """Whether memory can ever hold a sequence of this size; what it cannot is refused before it waits."""
    return spec.kv_tokens is None or prompt + output - 1 <= spec.kv_tokens


class Batcher(Generic[Key]):
    """``running`` sequences have memory, oldest first; ``waiting`` ones have none. ``preempted`` counts memory taken back."""

    def __init__(self, spec: TokenSpec) -> None:
        self._spec = spec
        self.capacity = spec.kv_tokens
        self.used = 0
        self.preempted = 0
        self.running: list[Sequence[Key]] = []
        self.waiting: deque[Sequence[Key]] = deque()

    def fits(self, prompt: int, output: int) -> bool:
        """Whether a sequence of this size can be computed at all."""
        return fits(self._spec, prompt, output)

    def add(self, key: Key, prompt: int, output: int) -> None:
        """A request has come."""
        self.waiting.append(Sequence(key, prompt, output, to_compute=prompt))

    def drop(self, key: Key) -> None:
        """Nobody waits for it any more."""
        for sequence in [s for s in self.running if s.key is key]:
            self.running.remove(sequence)
            self.used -= sequence.held
        self.waiting = deque(s for s in self.waiting if s.key is not key)

    def plan(self) -> Step[Key] | None:
        """The next iteration; None when there is nothing to do. Its memory is taken at once."""
        step: Step[Key] = Step()
        budget = self._spec.batch_tokens
        for sequence in [s for s in self.running if not s.to_compute]:
            if budget > 0 and sequence in self.running and self._room_for_one(sequence, step):
                self._take(sequence, 1)
                step.decode.append(sequence)
                budget -= 1
        for sequence in [s for s in self.running if s.to_compute]:
            budget -= self._chunk(step, sequence, budget)
        while self.waiting and budget > 0 and len(self.running) < self._spec.max_batch:
            sequence = self.waiting[0]
            if not self._admits(sequence):
                break
            self.waiting.popleft()
            self.running.append(sequence)
            budget -= self._chunk(step, sequence, budget)
        return step if step.decode or step.prefill else None

    def _admits(self, sequence: Sequence[Key]) -> bool:
        """Memory for all that is to be computed, so that a prompt does not stop half way."""
        promised = sum(s.to_compute for s in self.running)
        return self.capacity is None or self.used + promised + sequence.to_compute <= self.capacity

    def _chunk(self, step: Step[Key], sequence: Sequence[Key], budget: int) -> int:
        free = budget if self.capacity is None else min(budget, self.capacity - self.used)
        chunk = min(sequence.to_compute, free)
        if chunk <= 0:
            return 0
        self._take(sequence, chunk)
        sequence.to_compute -= chunk
        step.prefill.append((sequence, chunk))
        return chunk

    def _room_for_one(self, sequence: Sequence[Key], step: Step[Key]) -> bool:
        """Take memory back from the youngest until there is a token's room; False when that is the sequence itself."""
        while self.capacity is not None and self.used >= self.capacity:
            youngest = self.running.pop()
            self.used -= youngest.held
            youngest.to_compute, youngest.held = youngest.prompt + youngest.generated, 0
            self.preempted += 1
            self.waiting.appendleft(youngest)
            if youngest in step.decode:
                step.decode.remove(youngest)
            if youngest is sequence:
                return False
        return True

    def _take(self, sequence: Sequence[Key], tokens: int) -> None:
        sequence.held += tokens
        self.used += tokens

    def seconds(self, step: Step[Key]) -> float:
        """What an iteration takes: a fixed part, and one for each sequence and each token of a prompt."""
        spec = self._spec
        return spec.iteration_s + spec.decode_s * len(step.decode) + spec.prefill_s * sum(n for _, n in step.prefill)

    def done(self, step: Step[Key]) -> tuple[list[Key], list[Key]]:
        """The iteration is over: whose first token is there, and who has all. Finished sequences give their memory back."""
        first = []
        for sequence, _ in step.prefill:
            if not sequence.to_compute:
                if not sequence.generated:
                    first.append(sequence.key)
                sequence.generated += 1
        for sequence in step.decode:
            sequence.generated += 1
        finished = [s for s in self.running if s.finished and not s.to_compute]
        for sequence in finished:
            self.running.remove(sequence)
            self.used -= sequence.held
        return first, [s.key for s in finished]
