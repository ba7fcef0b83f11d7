"""``windtunnel schema``: the JSON Schemas of what people write and of what a run leaves, for editors and other programs."""

from __future__ import annotations

import click

from windtunnel.commands.common import print_json


@click.command()
@click.argument("what", type=click.Choice(["record", "scenario"]))
def schema(what: str) -> int:
    """Print the JSON Schema of a record or of a scenario file.

    An editor with a TOML language server completes and checks a scenario whose first line is "#:schema scenario.schema.json".
    """
    if what == "record":
        from windtunnel.records.schema import json_schema
    else:
        from windtunnel.scenario.schema import json_schema
    print_json(json_schema())
    return 0
