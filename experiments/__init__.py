"""What uses the package to answer a question; it knows nothing of them.

A result file holds typed values, and under ``shown`` what people read of them: ``title``,
``sentences`` and a ``table`` of ``title``, ``columns`` and ``rows``. The report shows
that as it is.
"""

from collections.abc import Mapping
from typing import Any

from cxr.console import log, print_table


def show(shown: Mapping[str, Any]) -> None:
    """Print what a result file holds under ``shown``."""
    table = shown["table"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    print_table(f"{shown['title']} · {table['title']}", rows)
    for sentence in shown["sentences"]:
        log.info("%s", sentence)
