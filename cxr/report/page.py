"""``report.html``: one file with everything inside it, for screen, paper and screen reader."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cxr.evaluation.adults import adult_rows
from cxr.evaluation.confidence import calibration_table, referral_sentences, sets_table
from cxr.evaluation.cross_validation import fold_table
from cxr.evaluation.set_coverage import sets_sentences
from cxr.evaluation.tables import (
    class_table,
    difference_sentences,
    difference_table,
    few_note,
    partly_known_note,
    show_patients,
    summary_table,
)
from cxr.report.facts import (
    data_rows,
    headline,
    licence_table,
    limits,
    made_by,
    source_table,
    training_table,
)
from cxr.report.outside import outside_sentences
from cxr.report.results import Results
from cxr.report.wording import VERDICTS, count, show_table, split_interval, templates

ROWS = (
    *(adult_rows, calibration_table, class_table, difference_sentences, difference_table),
    *(few_note, fold_table, partly_known_note, referral_sentences, sets_sentences, sets_table),
    *(show_patients, summary_table, count, data_rows, headline, licence_table, limits, made_by),
    *(source_table, training_table, outside_sentences, show_table),
)
"""What the template asks for rows and sentences, by its name."""
SHORT = 12
"""Digits of the fingerprint on the first page; the whole stands under the data."""
WIDE = 7
"""Columns from which a table is set smaller."""


class Picture(NamedTuple):
    """A plot inside the report: the PNG file's bytes, and what it shows for who cannot see it."""

    png: bytes
    alt: str


Pictures = Mapping[str, Sequence[Picture]]
"""Place in the report ("roc", "audit/lungs", "mistakes") to what stands there."""


def render_report(results: Results, pictures: Pictures) -> str:
    """Return the report as one HTML document without external references.

    Args:
        results: of the run; a section for which nothing was measured is left out.
        pictures: those at hand; "outside" stands on the first page.
    """
    environment = templates(autoescape=True)
    environment.filters |= {"cell": split_interval, "uri": data_uri, "css": css_string}
    environment.globals |= {function.__name__: function for function in ROWS}
    text = environment.get_template("report.html.j2").render(
        results=results, pictures=pictures, signs=VERDICTS, titles=[], short=SHORT, wide=WIDE
    )
    return re.sub(r"\n\s*\n+", "\n", text)


def data_uri(png: bytes) -> str:
    """Return a PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def css_string(text: str) -> str:
    """Return text that cannot leave a quoted CSS string, nor the style element around it."""
    return "".join(
        sign if re.match(r"[A-Za-z0-9 ,.:;/-]", sign) else f"\\{ord(sign):x} " for sign in text
    )
