"""Stage 0: fetch public sources and build their manifests."""

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
from cxr.data.sources.public_sets import SETS, Sets, get_set
from cxr.errors import InputError, command
from cxr.pipeline.config import DownloadConfig


def download_stage(config: DownloadConfig, *, sets: Sets = SETS) -> list[Path]:
    """Fetch what is missing, unpack it, and write a manifest for each part of the set.

    Raises:
        InputError: data of another name, or a site that cannot be reached; the line says what to
            fetch by hand.
    """
    data = config.data
    if data.name not in sets or not data.root:
        raise InputError(
            f"data={data.name} with data.root={data.root} is not fetched: data=cxr4 is and "
            "data=cxr4plus is, into any data.root=PATH"
        )
    root = Path(data.root)
    archives = {a.name: a for part in sets[data.name].values() for a in part.archives()}
    wrong = sorted(set(config.without) - set(archives))
    if wrong or not set(archives) - set(config.without) - {"lung_masks"}:
        raise InputError(
            f"without={wrong[0] if wrong else list(config.without)} cannot be left out of "
            f"{data.name}: it has {', '.join(archives)}, and needs one source of images"
        )
    for one in (a for name, a in archives.items() if name not in config.without):
        log.info(
            *("%s (%s): by fetching it you accept %s (%s)", one.name, one.home_page),
            *(one.license, one.credit),
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

        tables = get_set(data.name, root, on_progress=show, sets=sets, without=config.without)
    for manifest, table in tables.items():
        for (name, label), images in Counter(
            zip(table["source"], table["label"], strict=True)
        ).items():
            log.info("%s: %d %s images", name, images, label)
        log.info("manifest: %s", manifest)
    log.info("next: %s", command("train", data=data.name, **{"data.root": str(root)}))
    return list(tables)
