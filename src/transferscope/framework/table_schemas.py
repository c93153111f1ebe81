"""The name of the table that an entry of the catalog holds, for its dataset and for its validator."""

from __future__ import annotations

from typing import Any

from transferscope.experiment.names import EntryName

VALIDATOR = "transferscope.datasets.schemas.TableValidator"


def with_table_names(entries: dict[str, Any]) -> dict[str, Any]:
    """The entries of a catalog, in which those with the validator of tables say which table they hold, and where.

    Both follow from the name of the entry or pattern and from its `filepath`, and hold the same placeholders.
    """
    return {name: _with_table_name(name, entry) for name, entry in entries.items()}


def _with_table_name(name: str, entry: Any) -> Any:
    validator = entry.get("validator") if isinstance(entry, dict) else None
    if not isinstance(validator, dict) or validator.get("class") != VALIDATOR:
        return entry
    known = EntryName.parse(name)
    table = f"{known.of}.table" if known.form == "table" else known.form
    options = {"table": table, "file": str(entry.get("filepath"))}
    return entry | {"table": table, "validator": validator | {"options": options}}
