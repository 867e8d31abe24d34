"""How values read on a page: the templates' filters. Whole sentences are in ``_phrases.html``."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flask import Flask
from markupsafe import Markup, escape

from cxr.bundle.format import promise_words
from cxr.labels import CANONICAL
from cxr.serve.serving import serving
from cxr.serve.settings import RESEARCH_USE

NO_BREAK = "\u00a0"
MOST_SLOTS = 8
"""Colours in the style sheet; beyond them they repeat."""


def add_filters(app: Flask) -> None:
    """Give templates the filters, the limits, and the sentence that stands on every page."""
    words = (any_of, own_note, sentence, promise_words, coverage_words, interval, moment)
    for function in (*words, share, slot, tenths):
        app.add_template_filter(function)
    app.jinja_env.globals |= {"research_use": RESEARCH_USE, "limits": serving(app).settings}
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


def percent(share: float) -> str:
    """Return a share as people read it: whole percents, never a false 0 or 100."""
    if share > 0.995:
        return ">99 %"
    return "<1 %" if share < 0.005 else f"{100 * share:.0f} %"


def share(value: float) -> str:
    """Return a share in percent; the space in it breaks no line."""
    return percent(value).replace(" ", NO_BREAK)


def tenths(value: float) -> str:
    """Return a share as a number of percent for a drawing, such as 12.3."""
    return f"{100 * min(1.0, max(0.0, value)):.1f}"


def interval(entry: Mapping[str, Any]) -> str:
    """Return a metric with its interval; what is undefined is said to be."""
    values: list[Any] = [entry.get(key) for key in ("value", "low", "high")]
    if any(value is None or value != value for value in values):
        return "undefined"
    return "{:.3f} ({:.3f} to {:.3f})".format(*values)


def coverage_words(share: Mapping[str, Any]) -> str:
    """Return a share with its interval and on how many patients it rests."""
    value, low, high = (f"{100 * share[key]:.1f}" for key in ("value", "low", "high"))
    return f"{value}{NO_BREAK}% ({low} to {high}, {share['patients']:,} patients)"


def moment(value: datetime | None) -> str:
    """Return a moment as a ``time`` element, which a script may show in local time."""
    if value is None:
        return "never"
    shown = f"{value.day} {value:%b %Y, %H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(value.isoformat(), escape(shown))


def sentence(words: object) -> str:
    """Return an error or a reason as a sentence: capital, full stop."""
    text = str(words).strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def any_of(names: Sequence[str]) -> str:
    """Return names joined by commas and a last "or"."""
    return " or ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def slot(label: str, labels: Sequence[str]) -> int:
    """Return the number of a class's colour; the project's four keep theirs."""
    if label in CANONICAL:
        return CANONICAL.index(label)
    others = [name for name in labels if name not in CANONICAL]
    place = others.index(label) if label in others else 0
    return len(CANONICAL) + place % (MOST_SLOTS - len(CANONICAL))


def own_note(result: Mapping[str, Any]) -> str:
    """Return what the bundle says about itself, without what stands on the page anyway."""
    note = str(result.get("note") or "")
    for words in (RESEARCH_USE, RESEARCH_USE.rstrip(".")):
        note = note.replace(words, "")
    return note.strip(" .·;,")
