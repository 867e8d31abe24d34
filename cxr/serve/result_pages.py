"""A result's page and what belongs to it: pictures, downloads, a page to print."""

import re
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, abort, json, render_template, request
from flask.typing import ResponseReturnValue

from cxr.bundle.maps import OPACITY, HeatMaps, colour_layer, outline_layer
from cxr.files import current_keys
from cxr.serve.serving import serving
from cxr.serve.store.rows import PredictionRow
from cxr.serve.stored_results import overlay_png, own_row
from cxr.serve.uploads import IMAGE_FILE, THUMB_FILE, gray_map, png_bytes

blueprint = Blueprint("results", __name__, url_prefix="/predictions/<prediction_id>")
OUTLINE_SIDE_PX = 1024
"""Of the outline's layer at least, so that it is a fine line over a small image too."""
VIEWS = ("over", "beside", "image")
"""The map over the image, beside it, or the image alone."""


@blueprint.get("/")
def result(prediction_id: str) -> ResponseReturnValue:
    """Show a result."""
    row, maps = _loaded(prediction_id)
    label, member = _chosen(row, maps)
    view = request.args.get("view", VIEWS[0]).replace("film", "image")
    days = serving().settings.retention_days
    return render_template(
        "result.html",
        label=label,
        member=member,
        view=view if view in VIEWS else VIEWS[0],
        expires_at=row.created_at + timedelta(days=days) if days else None,
        **_shown(row, maps),
    )


@blueprint.get("/image.png")
@blueprint.get("/film.png")  # as version 0.1 called it
def image(prediction_id: str) -> ResponseReturnValue:
    """Send the image."""
    return _stored(prediction_id, IMAGE_FILE)


@blueprint.get("/thumb.png")
def thumb(prediction_id: str) -> ResponseReturnValue:
    """Send the small picture."""
    return _stored(prediction_id, THUMB_FILE)


@blueprint.get("/layer.png")
def layer(prediction_id: str) -> ResponseReturnValue:
    """Send a map as a transparent layer, which the page lays over the image."""
    row, maps = _loaded(prediction_id)
    if maps is None:
        abort(404)
    label, member = _chosen(row, maps)
    return _png(png_bytes(colour_layer(gray_map(maps, label, member or None))))


@blueprint.get("/lungs.png")
def lungs(prediction_id: str) -> ResponseReturnValue:
    """Send the outline of the lungs as a transparent layer."""
    _, maps = _loaded(prediction_id)
    if maps is None or maps.lungs is None:
        abort(404)
    scale = max(1.0, OUTLINE_SIDE_PX / max(maps.image.shape))
    height, width = (round(scale * side) for side in maps.image.shape)
    return _png(png_bytes(outline_layer(maps.lungs, (height, width))))


@blueprint.get("/download.png")
def download_png(prediction_id: str) -> ResponseReturnValue:
    """Send the image with the chosen map and what it is, to keep."""
    row, maps = _loaded(prediction_id)
    label, member = _chosen(row, maps)
    return _attach(_png(overlay_png(row, label or None, member or None)), row, "png")


@blueprint.get("/download.json")
def download_json(prediction_id: str) -> ResponseReturnValue:
    """Send the result as JSON, to keep."""
    row = own_row(prediction_id)
    values = {
        "id": row.id,
        "name": row.name,
        "created_at": row.created_at.isoformat(),
        "width_px": row.width_px,
        "height_px": row.height_px,
        **current_keys(row.result),
    }
    body = json.dumps(values, indent=2, sort_keys=False, ensure_ascii=False)
    return _attach(Response(body, mimetype="application/json"), row, "json")


@blueprint.get("/print")
def printable(prediction_id: str) -> ResponseReturnValue:
    """Show the result on one sheet of paper."""
    return render_template("print.html", **_shown(*_loaded(prediction_id)))


def _loaded(prediction_id: str) -> tuple[PredictionRow, HeatMaps | None]:
    row = own_row(prediction_id)
    return row, serving().images.load_maps(row.stem)


def _shown(row: PredictionRow, maps: HeatMaps | None) -> dict[str, Any]:
    """Return what every page of a result shows; the members' votes only where not refused."""
    return {
        "row": row,
        "result": row.result,
        "votes": [
            {"name": name, "label": max(probs, key=probs.__getitem__), "probs": probs}
            for name, probs in row.result.get("member_probs", {}).items()
        ],
        "has_maps": maps is not None,
        "has_lungs": maps is not None and maps.lungs is not None,
        "opacity": round(100 * OPACITY),
    }


def _chosen(row: PredictionRow, maps: HeatMaps | None) -> tuple[str, str]:
    """Return class and member ("" for the ensemble) that the address asks for."""
    label, member = request.args.get("label") or row.label, request.args.get("member", "")
    if maps is None:
        return "", ""
    if label not in maps.classes or (member and member not in maps.members):
        abort(404)
    return label, member


def _stored(prediction_id: str, name: str) -> Response:
    try:
        return _png(serving().images.image_path(own_row(prediction_id).stem, name).read_bytes())
    except FileNotFoundError:
        abort(404)


def _png(data: bytes) -> Response:
    return Response(data, mimetype="image/png")


def _attach(response: Response, row: PredictionRow, ending: str) -> Response:
    """Make it a download, named after the user's file as far as that is harmless."""
    core = re.sub(r"[^A-Za-z0-9_-]+", "-", row.name.rsplit(".", 1)[0]).strip("-")[:60]
    name = f"cxr-{core or 'image'}.{ending}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
