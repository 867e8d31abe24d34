"""What a section of the report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cxr.evaluation.tables import Row, Table


@dataclass(frozen=True)
class Picture:
    """A figure inside the report.

    Attributes:
        png: the file's bytes.
        alt: what it shows, for who cannot see it.
        caption: below it.
    """

    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        parts: sentences, tables and pictures in order; a list of pictures stands side by
            side; ``Section`` inside is a lower heading.
        verdict: of an audit test, else "".
    """

    title: str
    parts: tuple["str | Table | Picture | list[Picture] | Section", ...]
    verdict: str = ""


Part = str | Table | Picture | list[Picture] | Section
Pictures = Mapping[str, Sequence[Picture]]
"""Place in the report ("roc", "audit/lungs", "mistakes") to what stands there."""


def rows_table(title: str, rows: Sequence[Row]) -> Table:
    """Turn rows of equal heads into a table."""
    heads = tuple(rows[0]) if rows else ()
    return Table(title, heads, tuple(tuple(row.values()) for row in rows))


def pictures_at(pictures: Pictures, *places: str) -> list[Picture]:
    """Return the pictures of places, in order; none where there is none."""
    return [picture for place in places for picture in pictures.get(place, ())]
