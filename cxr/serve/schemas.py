"""What the REST service takes and gives: checked by marshmallow, described in OpenAPI."""

from collections.abc import Callable
from functools import partial
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, validate

from cxr.serve.settings import RESEARCH_USE


def _described(kind: Callable[..., Any], about: str, *parts: Any, **options: Any) -> Any:
    return kind(*parts, metadata={"description": about}, **options)


_text = partial(_described, fields.String)
_count = partial(_described, fields.Integer)
_number = partial(_described, fields.Float)
_truth = partial(_described, fields.Boolean)
_texts = partial(_described, partial(fields.List, fields.String()))
_by_name = partial(_described, partial(fields.Dict, fields.String()))


class PredictQuery(Schema):
    """Parameters of a prediction."""

    maps = _truth("Whether the answer holds the class activation maps as well.", load_default=False)


class MapQuery(Schema):
    """Which map is drawn, and how."""

    label = _text("Class explained; the predicted one by default.")
    member = _text("Member of the ensemble; the ensemble by default.")
    opacity = _number(
        "Of the map over the image; 0 shows the image.",
        load_default=0.5,
        validate=validate.Range(0, 1),
    )
    caption = _truth(
        "Whether a strip below says what is shown; without it the picture has the image's size.",
        load_default=True,
    )


class PredictionSchema(Schema):
    """An image's result."""

    class Meta:
        """Options."""

        unknown = EXCLUDE

    id = _text("Random; part of its address.", required=True)
    created_at = fields.DateTime(required=True, metadata={"description": "UTC."})
    refused = _truth(
        "The image is unlike those the model was trained on: no class is given.", required=True
    )
    refusals = _texts("Why, a sentence each.")
    label = _text("The most probable class.", allow_none=True)
    probs = _by_name("Calibrated probability of each class.", fields.Float(), allow_none=True)
    member_probs = _by_name(
        "The same of each member of the ensemble.",
        fields.Dict(keys=fields.String(), values=fields.Float()),
        allow_none=True,
    )
    level = _number("Coverage of each class that the set was made for.", allow_none=True)
    prediction_set = _texts("Classes that cannot be ruled out.", allow_none=True)
    set_coverage = _by_name(
        "Class to share of test images whose set of this level held it, with interval and "
        "numbers of images and patients; empty where it was not measured, null where the set "
        "has one threshold for all classes (version 0.1).",
        fields.Dict(),
        allow_none=True,
    )
    refer = _truth("A human should decide: the model is not sure enough.", allow_none=True)
    ood_score = _number("How far the image is from those the model knows.", allow_none=True)
    lungs = fields.Dict(
        allow_none=True,
        metadata={
            "description": "What was found of them: count (0 to 2), score (0 to 1) and box (top, "
            "left, bottom, right as shares); null where the model does not look for lungs."
        },
    )
    warnings = _texts("What was odd about the file.")
    width_px = _count("Of the image.")
    height_px = _count("Of the image.")
    fingerprint = _text("Of the bundle that answered.")
    note = _text("What the bundle says of itself.")
    notice = _text(RESEARCH_USE, required=True)
    links = _by_name("Addresses: self, and map where there is one.", fields.String())
    maps = _by_name(
        "Where asked for: 'ensemble' and every member, then every class, to a gray PNG in "
        "base64 that covers the image; white speaks most for the class.",
        fields.Dict(keys=fields.String(), values=fields.String()),
    )


class ModelSchema(Schema):
    """The model that answers now."""

    labels = _texts("Classes, in order.", required=True)
    members = _texts("Networks of the ensemble.", required=True)
    fingerprint = _text("Digest of the bundle.", required=True)
    format = _count("Version of the bundle's layout.", allow_none=True)
    synthetic = _truth("Trained on synthetic pictures: of no use on images.", allow_none=True)
    note = _text("What the bundle says of itself.")
    intended_use = _text("And what it is not for.", required=True)
    metrics = _by_name(
        "On the test split, with intervals, of sets too; null: not evaluated.", allow_none=True
    )
    preprocess = _by_name("How an image becomes the square that is classified.", allow_none=True)
    notice = _text(RESEARCH_USE, required=True)


class ProblemSchema(Schema):
    """An error, as RFC 9457 describes it."""

    type = _text("about:blank: the status says it all.", required=True)
    title = _text("Of the status.", required=True)
    status = _count("As in the answer's first line.", required=True)
    detail = _text("One line for people.", required=True)
    request_id = _text("By which the server's log can be searched.", allow_none=True)
    notice = _text(RESEARCH_USE, required=True)
    errors = _by_name("What is wrong with which parameter.")
    retry_after_s = _count("Seconds to wait; as in Retry-After.")
