"""The description of the REST service: an OpenAPI document, and a page made from it.

The page is drawn here, without scripts: the usual viewers need inline styles or a script from
elsewhere, which the pages' policy forbids.
"""

from collections.abc import Callable
from importlib import metadata
from typing import Any

from flask import Blueprint as FlaskBlueprint
from flask import Flask, Response, current_app, json, render_template
from flask_smorest import Api, Blueprint

from cxr.serve.problems import MEDIA_TYPE
from cxr.serve.schemas import ProblemSchema
from cxr.serve.settings import RESEARCH_USE

EXTENSION = "cxr_openapi"
SCHEME = {"type": "http", "scheme": "bearer", "description": "A token of the account page."}
SHOWN = ("Prediction", "Model", "Problem")
"""Objects that the page describes."""
BINARY = {"schema": {"type": "string", "format": "binary"}}


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

    def _register_doc_blueprint(self) -> None:
        """Register none: the document is served by the blueprint of the REST service."""


def problems_of(blueprint: Blueprint, *statuses: int) -> Callable[[Any], Any]:
    """Describe the problems that a view may answer with."""

    def decorate(view: Any) -> Any:
        for status in statuses:
            view = blueprint.alt_response(status, schema=ProblemSchema, content_type=MEDIA_TYPE)(
                view
            )
        return view

    return decorate


def film_body(types: tuple[str, ...]) -> dict[str, Any]:
    """Return the description of a body that is a film, in a form or by itself."""
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    return {"required": True, "content": content | dict.fromkeys(types, BINARY)}


def add_pages(blueprint: Blueprint) -> None:
    """Let a blueprint serve the document and its page, which do not describe themselves."""
    FlaskBlueprint.add_url_rule(blueprint, "/openapi.json", "openapi", openapi)
    FlaskBlueprint.add_url_rule(blueprint, "/", "reference", reference)


def register(app: Flask, blueprint: Blueprint) -> None:
    """Register the REST service with its description."""
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
    app.extensions[EXTENSION] = description


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    found: dict[str, Any] = current_app.extensions[EXTENSION].spec.to_dict()
    return found


def openapi() -> Response:
    """Serve the document."""
    return Response(json.dumps(document(), indent=1), mimetype="application/json")


def reference() -> str:
    """Show the document to people."""
    found = document()
    operations = [
        _operation(path, method, operation)
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    ]
    schemas = [(name, _members(found["components"]["schemas"][name])) for name in SHOWN]
    return render_template("api.html", operations=operations, schemas=schemas)


def _operation(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Return what the page says of an operation."""
    answers = {
        int(status): answer for status, answer in operation["responses"].items() if status.isdigit()
    }
    good = min(answers)
    return {
        "method": method.upper(),
        "path": path,
        "text": " ".join(filter(None, (operation["summary"], operation.get("description")))),
        "kinds": list(operation.get("requestBody", {}).get("content", ())),
        "status": good,
        "answer": answers[good]["description"],
        "content": next(iter(answers[good].get("content", ())), ""),
        "problems": sorted(status for status in answers if status >= 400),
        "parameters": [
            (one["name"], one["schema"].get("type", ""), one.get("description", ""))
            for one in operation.get("parameters", ())
        ],
    }


def _members(schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, kind and meaning of an object's members."""
    return [
        (
            name,
            kind.get("type", "any") + (" or null" if kind.get("nullable") else ""),
            kind.get("description", ""),
        )
        for name, kind in schema["properties"].items()
    ]
