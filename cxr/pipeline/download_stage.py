"""Stage 0: fetch the public sources of cxr4 and build their manifest."""

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cxr.console import log
from cxr.data.sources.cxr4 import get_cxr4
from cxr.data.sources.download import SOURCES, Source
from cxr.pipeline.config import DownloadConfig


def download_stage(config: DownloadConfig, *, sources: tuple[Source, ...] = SOURCES) -> Path:
    """Fetch what is missing, unpack it and write the manifest.

    Args:
        config: of the script.
        sources: where the archives come from.

    Returns:
        Path of the manifest.

    Raises:
        InputError: a site cannot be reached; the line says what to fetch by hand.
    """
    root = Path(config.root)
    for source in sources:
        log.info(
            "%s (%s): by fetching it you accept %s", source.name, source.home_page, source.license
        )
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        table = get_cxr4(root, on_progress=show, sources=sources)
    manifest = root / "manifest.csv"
    counts = Counter(zip(table["source"], table["label"], strict=True))
    for (name, label), images in counts.items():
        log.info("%s: %d %s images", name, images, label)
    log.info("manifest: %s; next: make train DATA=cxr4 DATA_ROOT=%s", manifest, root)
    return manifest
