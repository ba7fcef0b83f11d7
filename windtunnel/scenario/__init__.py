"""How a scenario file becomes specs: the shape of the file, its tables and its sweep."""

from windtunnel.scenario.generated import check_rows, generated_table, no_tables

__all__ = ("check_rows", "generated_table", "no_tables")
