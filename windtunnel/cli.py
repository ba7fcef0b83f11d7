"""The command line: ``windtunnel COMMAND``. Commands import what they need when they run, so that ``--help`` is instant.

The module owns how errors leave the program: one sentence on standard error and the exit code of the error's class.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

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
from windtunnel.commands.report import report
from windtunnel.commands.run import run
from windtunnel.commands.simulate import simulate
from windtunnel.commands.twins import twins
from windtunnel.commands.validate import validate
from windtunnel.errors import WindtunnelError

INTERRUPTED = 130
_COMMANDS = (
    demo,
    run,
    simulate,
    load,
    import_log,
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
    """Run the command line and return its exit code."""
    try:
        return _invoke(args)
    except BrokenPipeError:  # the reader of our output left, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
        from windtunnel.spec.strict import one_line

        print(f"windtunnel: {one_line(str(error))}", file=sys.stderr)
        return int(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("windtunnel: interrupted; finished records are kept, --resume goes on", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
