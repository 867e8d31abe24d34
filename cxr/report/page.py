"""``report.html``: one file with everything inside it, for screen, paper and screen reader."""

import base64
import re

from cxr.evaluation.tables import Table
from cxr.report.facts import data_rows, headline, limits
from cxr.report.outside import outside_sentences
from cxr.report.parts import Picture, Pictures, Section, templates
from cxr.report.results import Results
from cxr.report.sections import build_sections, images_line, verdict_rows
from cxr.report.wording import VERDICTS, split_interval

TEMPLATE = "report.html.j2"
SHORT = 12
"""Digits of the fingerprint on the first page; the whole stands under the data."""
WIDE = 7
"""Columns from which a table is set smaller."""


def render_report(results: Results, pictures: Pictures) -> str:
    """Return the report as one HTML document without external references.

    Args:
        results: of the run.
        pictures: place to figures; "outside" stands on the first page.
    """
    environment = templates(autoescape=True)
    environment.filters |= {"cell": split_interval, "uri": data_uri, "css": css_string}
    kinds = {"table": Table, "picture": Picture, "pair": list, "section": Section}
    environment.tests |= {
        name: lambda part, kind=kind: isinstance(part, kind) for name, kind in kinds.items()
    }
    facts = [
        (name, value[:SHORT] if name == "fingerprint" else value)
        for name, value in data_rows(results)
    ]
    text = environment.get_template(TEMPLATE).render(
        name=results.name,
        note=results.note,
        facts=facts,
        headline=headline(results),
        images=images_line(results),
        verdicts=verdict_rows(results),
        story=outside_sentences(results),
        audit_missing="" if results.audit else results.not_measured("audit"),
        complete=bool(results.audit and results.audit["complete"]),
        audit_command=results.commands["audit"],
        outside=pictures.get("outside", ()),
        limits=limits(results),
        sections=build_sections(results, pictures),
        wide=WIDE,
        signs=VERDICTS,
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
