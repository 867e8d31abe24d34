"""The description of the REST service: an OpenAPI document, and Swagger UI to read and try it."""

from collections.abc import Callable
from importlib import metadata
from typing import Any

from flask import Flask, Response, send_from_directory
from flask_smorest import Api, Blueprint
from swagger_ui_bundle import swagger_ui_path

from cxr.serve.login import public
from cxr.serve.problems import MEDIA_TYPE
from cxr.serve.schemas import ProblemSchema
from cxr.serve.settings import RESEARCH_USE

SCHEME = {"type": "http", "scheme": "bearer", "description": "A token of the account page."}
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
VIEWER = f"/api/v1/{swagger_ui_path.name}/"
"""Where script and style of Swagger UI are served from, out of the package that brings them."""
VIEWER_FILES = "'swagger-ui-bundle.js', 'swagger-ui.css'"


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


def problems_of(blueprint: Blueprint, *statuses: int) -> Callable[[Any], Any]:
    """Describe the problems that a view may answer with."""

    def decorate(view: Any) -> Any:
        described = {"schema": ProblemSchema, "content_type": MEDIA_TYPE}
        for status in statuses:
            view = blueprint.alt_response(status, **described)(view)
        return view

    return decorate


def image_body(types: tuple[str, ...]) -> dict[str, Any]:
    """Return the description of a body that is an image, in a form or by itself."""
    properties = {"image": BINARY["schema"]}
    form = {"type": "object", "required": ["image"], "properties": properties}
    content = {"multipart/form-data": {"schema": form}, **dict.fromkeys(types, BINARY)}
    return {"required": True, "content": content}


def register(app: Flask, blueprint: Blueprint) -> None:
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
