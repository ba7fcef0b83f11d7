"""The command line: ``windtunnel COMMAND``. Commands import what they need when they run, so that ``--help`` is instant.

The module owns how errors leave the program: one sentence on standard error and the exit code of the error's class.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence

import click

from windtunnel import __version__, core
from windtunnel.commands.calibrate import calibrate
from windtunnel.commands.claims import claims
from windtunnel.commands.compare import compare, history
from windtunnel.commands.completion import completion
from windtunnel.commands.demo import demo
from windtunnel.commands.holdout import holdout
from windtunnel.commands.import_ import import_log
from windtunnel.commands.listing import doctor, engines, instances, workloads
from windtunnel.commands.load import load
from windtunnel.commands.plan import plan
from windtunnel.commands.replay import replay
from windtunnel.commands.report import report
from windtunnel.commands.run import run
from windtunnel.commands.schema import schema
from windtunnel.commands.simulate import simulate
from windtunnel.commands.twins import twins
from windtunnel.commands.validate import validate
from windtunnel.errors import NoRoom, WindtunnelError, refused

INTERRUPTED = 130
_COMMANDS = (
    demo,
    run,
    simulate,
    load,
    import_log,
    replay,
    plan,
    validate,
    twins,
    claims,
    calibrate,
    holdout,
    report,
    compare,
    history,
    engines,
    workloads,
    instances,
    doctor,
    schema,
    completion,
)


class _Ordered(click.Group):
    """Lists commands in the order of a first visit, and names the nearest one for a typing error."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [command.name or "" for command in _COMMANDS]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        from windtunnel.errors import nearest

        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise click.UsageError(f"there is no command {args[0]!r}{nearest(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Ordered, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="windtunnel", message=f"%(prog)s, version %(version)s, {core.kind()} core")
def cli() -> None:
    """Compare distributed execution models on identical workloads, for real and simulated."""


for _command in _COMMANDS:
    cli.add_command(_command)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code, whatever happens to streams, disks and this process."""
    _open_streams()
    with _ended_by_signals():
        try:
            return _invoke(args)
        except BrokenPipeError:  # the reader of our output left, e.g. `| head`
            _discard_output()
            return 0


def _invoke(args: Sequence[str] | None) -> int:
    try:
        result = cli.main(args=None if args is None else list(args), prog_name="windtunnel", standalone_mode=False)
        sys.stdout.flush()
        return int(result) if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code if isinstance(error, click.UsageError) else 2
    except WindtunnelError as error:
        return _told(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        if _was_writing(error):
            _discard_output()
            return _told(
                NoRoom(f"standard output cannot be written: {error.strerror or error}; what it lacks is not known to be right")
            )
        return _told(refused(error))
    except MemoryError:
        return _told(NoRoom("there is no memory left; what was finished is kept"))
    except _Ended as error:
        _say(f"ended by {error.signal.name}; finished records are kept, --resume goes on")
        return 128 + error.signal
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; finished records are kept, --resume goes on")
        return INTERRUPTED


def _told(error: WindtunnelError) -> int:
    from windtunnel.spec.strict import one_line

    _say(one_line(str(error)))
    return int(error.exit_code)


def _say(text: str) -> None:
    """One line on standard error, if that can be written."""
    with contextlib.suppress(OSError, ValueError):
        print(f"windtunnel: {text}", file=sys.stderr, flush=True)


# -- streams and signals ------------------------------------------------------------------------------------------------


class _Ended(BaseException):
    """Somebody asked the process to end; raised so that what is running is ended and removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the program as Ctrl-C does; others may call it from threads, where no signal is heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise _Ended(number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _open_streams() -> None:
    """A stream that the caller closed goes nowhere, so that no file of ours takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (as long as the process lives)


#: modules that write to standard output and open no file
_WRITERS = ("rich.console", "click.utils", "click._compat", __name__)


def _was_writing(error: OSError) -> bool:
    """Whether it was raised where results are printed, so that it is about standard output."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return not error.filename and frame.f_globals.get("__name__") in _WRITERS


def _discard_output() -> None:
    """Nothing more is written there, at the end of the interpreter neither."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
