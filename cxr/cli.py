"""The command ``cxr``: predict any number of images, show what a bundle is. Without torch.

Exit status: 0 where the run came to its end, also with images that could not be read or were
refused (their rows say so, and the last line counts them); 2 for a wrong call or input, with one
line; 130 after Ctrl-C.
"""

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cxr.errors import InputError, MissingInputError

log = logging.getLogger(__name__)

BUNDLE_VARIABLE = "CXR_BUNDLE"
"""Names the bundle where ``--bundle`` does not."""
LINE_SECONDS = 30.0
"""Without a terminal a line of progress comes so often."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with what follows its name; return the exit status."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        given.run(given)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on where this one was\n")
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cxr", description="Chest X-ray classification. Research use only.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_predict(
        commands.add_parser(
            "predict",
            allow_abbrev=False,
            help="predict images and write a table",
            description="Predict images and append a row per image to a table. The same command "
            "goes on where a stopped one was.",
            epilog="Research use only, not a medical device.",
        )
    )
    bundle = commands.add_parser("bundle", help="what a bundle is", allow_abbrev=False)
    show = bundle.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "show", help="print what a bundle is", allow_abbrev=False
    )
    show.add_argument("path", type=Path, metavar="PATH", help="folder of the bundle")
    show.set_defaults(run=show_bundle)
    return parser


def _add_predict(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="image, folder (to any depth), pattern in quotes, or a CSV with a column image",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="results.csv or results.parquet")
    add("--bundle", type=Path, metavar="DIR", help=f"the model; else {BUNDLE_VARIABLE} names it")
    add("--maps", type=Path, metavar="DIR", help="write an overlay (PNG) per image there")
    add("--level", type=float, default=0.9, metavar="P", help="of the prediction sets (0.9)")
    add(
        "--runtime",
        default="onnxruntime",
        choices=("onnxruntime", "openvino"),
        help="what runs the network (onnxruntime)",
    )
    add("--variant", default="float32", help=argparse.SUPPRESS)  # gone; refused with the reason
    add("--threads", type=int, default=0, metavar="N", help="of the runtime; 0: all processors")
    add("--workers", type=int, default=2, metavar="N", help="chunks of images in work at once (2)")
    parser.set_defaults(run=predict)


def predict(given: argparse.Namespace) -> None:
    """Run ``cxr predict``; InputError: a wrong option, nothing to predict, another run's table."""
    from cxr.bundle.batch import column_types, predict_images
    from cxr.bundle.inputs import find_images
    from cxr.bundle.predictor import Predictor, refuse_variant
    from cxr.bundle.result_files import check_parquet, write_parquet
    from cxr.reliability.drift import BATCH, DriftWindow

    table = _table_path(given.out)
    if table != given.out:
        check_parquet()
    refuse_variant(given.variant)
    _check(given)
    total = sum(1 for _ in find_images(given.paths))
    if not total:
        raise InputError(
            f"{', '.join(given.paths)} holds no image: JPEG, PNG, TIFF and DICOM are looked for"
        )
    bundle = _bundle_path(given.bundle)
    predictor = Predictor(bundle, runtime=given.runtime, threads=given.threads)
    drift = DriftWindow(predictor.info.get("drift"), size=BATCH)
    with _progress(total) as done:
        summary = predict_images(
            predictor,
            find_images(given.paths),
            table,
            level=given.level,
            maps=given.maps,
            runtime=f"{given.runtime} float32",
            workers=given.workers,
            on_image=done,
            drift=drift,
        )
    if table != given.out:
        types = column_types(predictor.labels, predictor.members, maps=given.maps is not None)
        write_parquet(table, given.out, types)
    log.info("%s", summary.sentence())
    if found := drift.compare():
        log.log(logging.WARNING if found.alarm else logging.INFO, "%s", found.sentence)
    log.info("results: %s", given.out)
    log.info("%s", predictor.note)


def show_bundle(given: argparse.Namespace) -> None:
    """Run ``cxr bundle show``; InputError: no bundle, or one that was changed."""
    from cxr.bundle.format import describe

    sys.stdout.write(f"{describe(given.path)}\n")


def _check(given: argparse.Namespace) -> None:
    for name, least in (("threads", 0), ("workers", 1)):
        if getattr(given, name) < least:
            raise InputError(f"--{name} is {getattr(given, name)}: at least {least} is needed")
    if given.maps and given.maps.exists() and not given.maps.is_dir():
        raise InputError(f"--maps {given.maps} is a file: give a folder")


def _table_path(out: Path) -> Path:
    """Return the CSV behind ``--out``: itself, or beside a Parquet the file it is made from."""
    if out.suffix not in (".csv", ".parquet"):
        raise InputError(f"--out is {str(out)!r}: its name must end in .csv or .parquet")
    return out if out.suffix == ".csv" else out.with_suffix(".csv")


def _bundle_path(given: Path | None) -> Path:
    named = given or os.environ.get(BUNDLE_VARIABLE)
    if not named:
        raise MissingInputError(
            f"no bundle is named: give --bundle DIR (an export writes it), or {BUNDLE_VARIABLE}"
        )
    return Path(named)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal, and now and then a line where there is none."""
    if sys.stderr.isatty():
        from cxr.console import images_bar

        with images_bar("predict", total) as done:
            yield done
        return
    begun, shown, count = time.monotonic(), time.monotonic(), 0

    def one() -> None:
        nonlocal shown, count
        count += 1
        now = time.monotonic()
        if now - shown > LINE_SECONDS:
            shown = now
            log.info("%d of %d images, %.1f images/s", count, total, count / (now - begun))

    yield one


if __name__ == "__main__":
    sys.exit(main())
