"""What the REST service takes and gives: checked by marshmallow, described in OpenAPI."""

from marshmallow import EXCLUDE, Schema, fields, validate

from cxr.serve.settings import RESEARCH_USE

Probabilities = fields.Dict(keys=fields.String(), values=fields.Float())


def _about(text: str) -> dict[str, str]:
    return {"description": text}


class PredictQuery(Schema):
    """Parameters of a prediction."""

    maps = fields.Boolean(
        load_default=False,
        metadata=_about("Whether the answer holds the class activation maps as well."),
    )


class MapQuery(Schema):
    """Which map is drawn, and how."""

    label = fields.String(metadata=_about("Class explained; the predicted one by default."))
    member = fields.String(metadata=_about("Member of the ensemble; the ensemble by default."))
    opacity = fields.Float(
        load_default=0.5,
        validate=validate.Range(0, 1),
        metadata=_about("Of the map over the image; 0 shows the image."),
    )
    caption = fields.Boolean(
        load_default=True,
        metadata=_about(
            "Whether a strip below says what is shown; without it the picture has the image's size."
        ),
    )


class PredictionSchema(Schema):
    """An image's result."""

    class Meta:
        """Options."""

        unknown = EXCLUDE

    id = fields.String(required=True, metadata=_about("Random; part of its address."))
    created_at = fields.DateTime(required=True, metadata=_about("UTC."))
    refused = fields.Boolean(
        required=True,
        metadata=_about("The image is unlike those the model was trained on: no class is given."),
    )
    refusals = fields.List(fields.String(), metadata=_about("Why, a sentence each."))
    label = fields.String(allow_none=True, metadata=_about("The most probable class."))
    probs = fields.Dict(
        keys=fields.String(),
        values=fields.Float(),
        allow_none=True,
        metadata=_about("Calibrated probability of each class."),
    )
    member_probs = fields.Dict(
        keys=fields.String(),
        values=Probabilities,
        allow_none=True,
        metadata=_about("The same of each member of the ensemble."),
    )
    level = fields.Float(
        allow_none=True, metadata=_about("Coverage of each class that the set was made for.")
    )
    prediction_set = fields.List(
        fields.String(), allow_none=True, metadata=_about("Classes that cannot be ruled out.")
    )
    set_coverage = fields.Dict(
        keys=fields.String(),
        values=fields.Dict(),
        allow_none=True,
        metadata=_about(
            "Class to share of test images whose set of this level held it, with interval and "
            "numbers of images and patients; empty where it was not measured, null where the set "
            "has one threshold for all classes (version 0.1)."
        ),
    )
    refer = fields.Boolean(
        allow_none=True, metadata=_about("A human should decide: the model is not sure enough.")
    )
    ood_score = fields.Float(
        allow_none=True, metadata=_about("How far the image is from those the model knows.")
    )
    lungs = fields.Dict(
        allow_none=True,
        metadata=_about(
            "What was found of them: count (0 to 2), score (0 to 1) and box (top, left, bottom, "
            "right as shares); null where the model does not look for lungs."
        ),
    )
    warnings = fields.List(fields.String(), metadata=_about("What was odd about the file."))
    width_px = fields.Integer(metadata=_about("Of the image."))
    height_px = fields.Integer(metadata=_about("Of the image."))
    fingerprint = fields.String(metadata=_about("Of the bundle that answered."))
    note = fields.String(metadata=_about("What the bundle says of itself."))
    notice = fields.String(required=True, metadata=_about(RESEARCH_USE))
    links = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata=_about("Addresses: self, and map where there is one."),
    )
    maps = fields.Dict(
        keys=fields.String(),
        values=fields.Dict(keys=fields.String(), values=fields.String()),
        metadata=_about(
            "Where asked for: 'ensemble' and every member, then every class, to a gray PNG in "
            "base64 that covers the image; white speaks most for the class."
        ),
    )


class ModelSchema(Schema):
    """The model that answers now."""

    labels = fields.List(fields.String(), required=True, metadata=_about("Classes, in order."))
    members = fields.List(
        fields.String(), required=True, metadata=_about("Networks of the ensemble.")
    )
    fingerprint = fields.String(required=True, metadata=_about("Digest of the bundle."))
    format = fields.Integer(allow_none=True, metadata=_about("Version of the bundle's layout."))
    synthetic = fields.Boolean(
        allow_none=True, metadata=_about("Trained on synthetic pictures: of no use on images.")
    )
    note = fields.String(metadata=_about("What the bundle says of itself."))
    intended_use = fields.String(required=True, metadata=_about("And what it is not for."))
    metrics = fields.Dict(
        allow_none=True,
        metadata=_about("On the test split, with intervals, of sets too; null: not evaluated."),
    )
    preprocess = fields.Dict(
        allow_none=True, metadata=_about("How an image becomes the square that is classified.")
    )
    notice = fields.String(required=True, metadata=_about(RESEARCH_USE))


class ProblemSchema(Schema):
    """An error, as RFC 9457 describes it."""

    type = fields.String(required=True, metadata=_about("about:blank: the status says it all."))
    title = fields.String(required=True, metadata=_about("Of the status."))
    status = fields.Integer(required=True, metadata=_about("As in the answer's first line."))
    detail = fields.String(required=True, metadata=_about("One line for people."))
    request_id = fields.String(
        allow_none=True, metadata=_about("By which the server's log can be searched.")
    )
    notice = fields.String(required=True, metadata=_about(RESEARCH_USE))
    errors = fields.Dict(metadata=_about("What is wrong with which parameter."))
    retry_after_s = fields.Integer(metadata=_about("Seconds to wait; as in Retry-After."))
