"""REST, /api/v1: an image in, JSON out; for programs, with a token instead of a password.

An OpenAPI document describes it, and Swagger UI shows the document and tries it.
"""

import base64
import logging
from collections.abc import Callable
from importlib import metadata
from typing import Any

from flask import Flask, Response, g, request, send_from_directory, url_for
from flask_smorest import Api, Blueprint
from marshmallow import RAISE
from sqlalchemy.exc import DBAPIError
from swagger_ui_bundle import swagger_ui_path
from werkzeug.exceptions import Unauthorized, UnsupportedMediaType

from cxr.bundle.maps import ENSEMBLE
from cxr.errors import InputError
from cxr.files import current_keys
from cxr.serve.login import public
from cxr.serve.prediction_service import FAILURES, predict_and_store, status_of, uploaded_files
from cxr.serve.problems import MEDIA_TYPE, problem
from cxr.serve.schemas import MapQuery, ModelSchema, PredictionSchema, PredictQuery, ProblemSchema
from cxr.serve.serving import read, serving, utc_now
from cxr.serve.settings import RESEARCH_USE
from cxr.serve.store.counters import count_hit
from cxr.serve.store.rows import PredictionRow
from cxr.serve.store.users import is_touch_due, token_user, touch
from cxr.serve.stored_results import forget, overlay_png, own_row
from cxr.serve.uploads import gray_map, png_bytes

log = logging.getLogger(__name__)

IMAGE_TYPES = (
    *("image/jpeg", "image/png", "image/tiff", "application/dicom", "application/octet-stream"),
)
"""Media types of an image that is the whole body; what it is is told from its bytes."""
REQUESTS_PER_MINUTE = 600
"""Of one user; images have their own, lower limit."""
FORM_OVERHEAD_BYTES = 64 * 1024
SCHEME = {"type": "http", "scheme": "bearer", "description": "A token of the account page."}
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
FIELDS = {"type": "object", "required": ["image"], "properties": {"image": BINARY["schema"]}}
BODIES = {"multipart/form-data": {"schema": FIELDS}, **dict.fromkeys(IMAGE_TYPES, BINARY)}
VIEWER = f"/api/v1/{swagger_ui_path.name}/"
"""Where script and style of Swagger UI are served from, out of the package that brings them."""
VIEWER_FILES = "'swagger-ui-bundle.js', 'swagger-ui.css'"
INTENDED_USE = (
    "Research on the classification of frontal chest radiographs into the classes named in "
    "labels. Not for diagnosis, not for the care of patients."
)

blueprint = Blueprint(
    "api", __name__, url_prefix="/api/v1", description="Images and what the model says of them"
)


def problems_of(*statuses: int) -> Callable[[Any], Any]:
    """Describe the problems that a view may answer with."""

    def decorate(view: Any) -> Any:
        described = {"schema": ProblemSchema, "content_type": MEDIA_TYPE}
        for status in statuses:
            view = blueprint.alt_response(status, **described)(view)
        return view

    return decorate


@blueprint.before_request
def need_token() -> Response | None:
    """Let nobody in without a token, and nobody too often."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    now = utc_now()
    owner = read(token_user, secret.strip(), now) if scheme.lower() == "bearer" else None
    if owner is None:
        raise Unauthorized
    user, token = owner
    g.user_id = user.id
    predicts = request.method == "POST"  # counted by predict_and_store, once they have a place
    if predicts and not is_touch_due(token, now):
        return None
    try:
        with serving().database.write() as session:
            touch(session, token, now)
            key, limit = f"api:{user.id}", REQUESTS_PER_MINUTE
            wait_s = count_hit(session, key, limit=limit, window_s=60, now=now)
    except DBAPIError as error:  # a full disk: what is stored can be read all the same
        log.error("requests are not counted", exc_info=error)
        return None
    if wait_s:
        return problem(429, f"{limit} requests a minute are allowed", wait_s)
    return None


@blueprint.route("/predictions", methods=["POST"])
@blueprint.doc(requestBody={"required": True, "content": BODIES})
@blueprint.arguments(PredictQuery, location="query", unknown=RAISE)
@blueprint.response(201, PredictionSchema, description="Predicted, or refused; and kept")
@problems_of(401, 413, 415, 422, 429, 503, 507)
def predict(query: dict[str, Any]) -> Any:
    """Predict an image.

    The image is the form's field 'image', or the whole body under its own media type.
    """
    limit = serving().settings.upload_bytes
    request.max_content_length = limit + FORM_OVERHEAD_BYTES
    serving().queue.check_room()
    data, name = _image_of_request()
    row = predict_and_store(data, name=name, user_id=g.user_id, origin="api")
    shown = _shown(row, maps=query["maps"])
    return shown, 201, {"Location": shown["links"]["self"]}


@blueprint.route("/predictions/<prediction_id>", methods=["GET"])
@blueprint.arguments(PredictQuery, location="query", unknown=RAISE)
@blueprint.response(200, PredictionSchema, description="The result")
@problems_of(401, 404, 422, 429)
def show(query: dict[str, Any], prediction_id: str) -> Any:
    """Show a result of your own."""
    return _shown(own_row(prediction_id), maps=query["maps"])


@blueprint.route("/predictions/<prediction_id>", methods=["DELETE"])
@blueprint.response(204, description="Gone, the image too")
@problems_of(401, 404, 429)
def delete(prediction_id: str) -> Response:
    """Delete a result of your own, and its image."""
    forget(prediction_id)
    return Response(status=204)


@blueprint.route("/predictions/<prediction_id>/map.png", methods=["GET"])
@blueprint.arguments(MapQuery, location="query", unknown=RAISE)
@blueprint.response(
    200, BINARY["schema"], content_type="image/png", description="The image under the map"
)
@problems_of(401, 404, 409, 422, 429)
def heat_map(query: dict[str, Any], prediction_id: str) -> Response:
    """Draw a class activation map over an image."""
    row = own_row(prediction_id)
    if row.refused:
        return problem(409, "the image was refused: there is no map of it")
    png = overlay_png(
        row, query.get("label"), query.get("member"), query["opacity"], caption=query["caption"]
    )
    return Response(png, mimetype="image/png")


@blueprint.route("/model", methods=["GET"])
@blueprint.response(200, ModelSchema, description="The model")
@problems_of(401, 429, 503)
def model() -> Any:
    """Show what answers: classes, members, metrics on the test split, fingerprint."""
    predictor = serving().queue.loaded_predictor()
    info = predictor.info
    tested = info.get("test")
    return {
        "labels": list(predictor.labels),
        "members": list(predictor.members),
        "fingerprint": predictor.fingerprint,
        "note": predictor.note,
        "format": info.get("format"),
        "synthetic": info.get("synthetic"),
        "metrics": tested if isinstance(tested, dict) else None,
        "preprocess": info.get("preprocess"),
        "intended_use": INTENDED_USE,
        "notice": RESEARCH_USE,
    }


def _failed(error: Exception) -> Response:
    status, retry_after_s = status_of(error)
    return problem(status, str(error), retry_after_s)


for _kind in FAILURES:
    blueprint.register_error_handler(_kind, _failed)


def _image_of_request() -> tuple[bytes, str]:
    """Return the image's bytes and what it is called."""
    if request.mimetype == "multipart/form-data":
        files = uploaded_files()
        if len(files) != 1:
            raise InputError(f"the form has {len(files)} fields 'image': one image is needed")
        return files[0].read(), files[0].filename or "image"
    if request.mimetype in IMAGE_TYPES:
        return request.get_data(cache=False), "image"
    raise UnsupportedMediaType(
        f"an image is sent as multipart/form-data or as one of {', '.join(IMAGE_TYPES)}"
    )


def _shown(row: PredictionRow, *, maps: bool) -> dict[str, Any]:
    here = url_for("api.show", prediction_id=row.id)
    links = {"self": here} if row.refused else {"self": here, "map": f"{here}/map.png"}
    shown: dict[str, Any] = current_keys(row.result) | {
        "id": row.id,
        "created_at": row.created_at,
        "refused": row.refused,
        "width_px": row.width_px,
        "height_px": row.height_px,
        "fingerprint": row.fingerprint,
        "links": links,
    }
    saved = serving().images.load_maps(row.stem) if maps and not row.refused else None
    if saved is not None:
        shown["maps"] = {
            owner: {
                label: base64.b64encode(png_bytes(gray_map(saved, label, owner))).decode()
                for label in saved.classes
            }
            for owner in (ENSEMBLE, *saved.members)
        }
    return shown


class Description(Api):  # type: ignore[misc]
    """flask-smorest's document, without its handlers of errors: the application has its own."""

    ERROR_SCHEMA = ProblemSchema

    def _register_error_handlers(self) -> None:
        """Register none."""

    def _register_responses(self) -> None:
        """Describe errors that are not named as problem documents too."""
        content = {MEDIA_TYPE: {"schema": ProblemSchema}}
        self.spec.components.response(
            "DEFAULT_ERROR", {"description": "Any other error", "content": content}, lazy=True
        )


def init_app(app: Flask) -> None:
    """Register the REST service with its document and the page that shows it."""
    app.config.update(
        OPENAPI_URL_PREFIX="/api/v1",
        OPENAPI_JSON_PATH="openapi.json",
        OPENAPI_SWAGGER_UI_PATH="/",
        OPENAPI_SWAGGER_UI_URL=VIEWER,
    )
    description = Description(
        app,
        spec_kwargs={
            "title": "cxr",
            "version": "1",
            "openapi_version": "3.0.3",
            "info": {"description": f"{RESEARCH_USE} cxr {metadata.version('cxr')}."},
            "security": [{"token": []}],
        },
    )
    description.spec.components.security_scheme("token", SCHEME)
    description.register_blueprint(blueprint)

    @app.get(f"{VIEWER}<any({VIEWER_FILES}):name>")
    @public
    def viewer(name: str) -> Response:
        """Serve script and style of Swagger UI."""
        return send_from_directory(swagger_ui_path, name)
