"""The page, chapter by chapter: text, tables and figures of one analysis in one file."""

from transferscope.report.chapters import (
    connection,
    criticality,
    feature_reuse,
    images,
    landscape,
    merging,
    mistakes,
    own,
    similarity,
    spectrum,
    training,
)

CHAPTERS = tuple(
    part.CHAPTER
    for part in (
        training,
        mistakes,
        similarity,
        landscape,
        connection,
        criticality,
        spectrum,
        feature_reuse,
        merging,
        own,
    )
)
"""In the order of the appendix, and the user's own; `images` and the runs have places of their own on the page."""

__all__ = ["CHAPTERS", "images", "training"]
