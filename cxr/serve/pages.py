"""Pages of one's own images: upload, history, deleting; and of the model."""

import contextlib
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, abort, flash, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import FileStorage

from cxr.bundle.format import set_coverage
from cxr.reliability.conformal import thresholds_of
from cxr.serve.login import current_user, go_to, wants_json
from cxr.serve.phrases import percent, sentence
from cxr.serve.prediction_service import (
    FAILURES,
    check_size,
    predict_and_store,
    status_of,
    uploaded_files,
)
from cxr.serve.serving import read, serving
from cxr.serve.store import predictions
from cxr.serve.store.rows import PredictionRow
from cxr.serve.stored_results import forget, own_row, tidy_sometimes
from cxr.serve.watched_bundle import Busy

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def upload() -> ResponseReturnValue:
    """Show the form."""
    tidy_sometimes()
    return render_template("upload.html", failures=[])


@blueprint.post("/")
def try_upload() -> ResponseReturnValue:
    """Predict the images of the form; a script sends them one by one and wants JSON."""
    files = [file for file in uploaded_files() if file.filename]
    most = serving().settings.upload_files
    if not files:
        return _failed([_failure("", "No image was chosen: choose at least one file.")])
    if len(files) > most:
        reason = f"{len(files)} files were chosen: at most {most} go at once."
        return _failed([_failure("", reason)])
    outcomes = [_predict(file) for file in files]
    rows = [outcome for outcome in outcomes if isinstance(outcome, PredictionRow)]
    failures = [outcome for outcome in outcomes if not isinstance(outcome, PredictionRow)]
    if not rows:
        return _failed(failures)
    if wants_json():
        return jsonify(images=[_summary(row) for row in rows], failures=failures)
    for failure in failures:
        flash(f"{failure['name']}: {failure['reason']}", "error")
    if len(rows) == 1 and not failures:
        return redirect(url_for("results.result", prediction_id=rows[0].id), 303)
    return redirect(url_for("pages.batch", id=[row.id for row in rows]), 303)


@blueprint.get("/uploaded")
def batch() -> ResponseReturnValue:
    """Show the results of one upload."""
    ids = request.args.getlist("id")[: serving().settings.upload_files]
    user_id = current_user().id
    rows = [row for name in ids if (row := read(predictions.own_prediction, user_id, name))]
    if not rows:
        abort(404)
    return render_template("batch.html", rows=rows)


@blueprint.get("/history")
def history() -> ResponseReturnValue:
    """Show one's own results, newest first."""
    search, outcome = request.args.get("q", "")[:100], request.args.get("outcome", "")[:64]
    user_id, number = current_user().id, request.args.get("page", 1, type=int)
    return render_template(
        "history.html",
        page=read(
            predictions.own_predictions, user_id, search=search, outcome=outcome, page=number
        ),
        search=search,
        outcome=outcome,
        outcomes=read(predictions.own_outcomes, user_id),
        keep_days=serving().settings.retention_days,
    )


@blueprint.get("/history/delete", defaults={"prediction_id": None})
@blueprint.get("/predictions/<prediction_id>/delete")
def ask_delete(prediction_id: str | None) -> ResponseReturnValue:
    """Ask before deleting a result, or everything."""
    row = None if prediction_id is None else own_row(prediction_id)
    return render_template("delete.html", row=row)


@blueprint.post("/history/delete", defaults={"prediction_id": None})
@blueprint.post("/predictions/<prediction_id>/delete")
def delete(prediction_id: str | None) -> ResponseReturnValue:
    """Delete a result, or one's whole history, and the files."""
    count = forget(prediction_id)
    words = f"{count} {'result is' if count == 1 else 'results are'} deleted."
    if prediction_id is not None:
        words = "The image and its result are deleted."
    return go_to("pages.history", words)


@blueprint.get("/model")
def model() -> ResponseReturnValue:
    """Show what answers here, what it was measured on, what it is not for."""
    try:
        predictor = serving().queue.loaded_predictor()
    except Busy as error:
        return render_template("model.html", fault=str(error), info=None), 503
    info, level = predictor.info, serving().settings.level
    thresholds = thresholds_of(info["uncertainty"], level) if "uncertainty" in info else ()
    return render_template(
        "model.html",
        info=info,
        predictor=predictor,
        thresholds=dict(zip(info["labels"], thresholds, strict=False)),
        shares=set_coverage(info, level),
        level=level,
    )


def _predict(file: FileStorage) -> PredictionRow | dict[str, Any]:
    name, user_id = predictions.clean_file_name(file.filename or ""), current_user().id
    try:
        with contextlib.closing(file):
            check_size(file.seek(0, 2) or file.tell(), serving().settings.upload_bytes)
            file.seek(0)
            return predict_and_store(file.read(), name=name, user_id=user_id, origin="page")
    except FAILURES as error:
        return _failure(name, sentence(error), *status_of(error))


def _failure(
    name: str, reason: str, status: int = 422, retry_after_s: int | None = None
) -> dict[str, Any]:
    """Return an image that got no result: its name, why, the status, when to come back."""
    return {"name": name, "reason": reason, "status": status, "retry_after_s": retry_after_s}


def _failed(failures: Sequence[dict[str, Any]]) -> ResponseReturnValue:
    """Answer an upload of which nothing became a result, with the last failure's status."""
    retry_after_s = failures[-1]["retry_after_s"]
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    if wants_json():
        return jsonify(failures=failures), failures[-1]["status"], headers
    page = render_template("upload.html", failures=failures)
    return page, failures[-1]["status"], headers


def _summary(row: PredictionRow) -> dict[str, Any]:
    share = "" if row.refused else percent(row.result["probs"][row.label])
    return {
        "name": row.name,
        "refused": row.refused,
        "refer": row.refer,
        "outcome": "refused" if row.refused else f"{row.label}, {share}",
        "id": row.id,
        "notice": row.result["notice"],
        "url": url_for("results.result", prediction_id=row.id),
        "thumb": url_for("results.thumb", prediction_id=row.id),
    }
