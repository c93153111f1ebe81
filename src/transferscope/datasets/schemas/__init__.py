"""Schemas of all tables of the catalog, a file per pipeline, and the validator that `conf/base/catalog.yml` names.

A schema names the columns of a table with their units and ranges, and its key. Kedro checks every table against its
schema when the catalog loads or saves it, in notebooks as well. pandera is imported when the first table is.
"""

from __future__ import annotations

from transferscope.datasets.schemas.validators import TableError, TableValidator

__all__ = ["TableError", "TableValidator"]
