"""The OpenAPI document against the service, by schemathesis: no 500, and nothing undescribed."""

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.long

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    ignored_auth,
    negative_data_rejection,
]
OPERATIONS = [
    ("POST", "/api/v1/predictions"),
    ("GET", "/api/v1/predictions/{prediction_id}"),
    ("DELETE", "/api/v1/predictions/{prediction_id}"),
    ("GET", "/api/v1/predictions/{prediction_id}/map.png"),
    ("GET", "/api/v1/model"),
]
FUZZ = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_that_fits_or_misfits_breaks_the_service(make_app, kit, method, path):
    from cxr.serve.serving import serving, utc_now
    from cxr.serve.store.users import create_token

    app = make_app(rate_per_minute=100_000)
    app.testing = False
    user = kit.add_account(app, "fuzz")
    with app.app_context(), serving().database.write() as session:
        token = create_token(session, user.id, "fuzz", now=utc_now())[0]
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)
    operation = schema[path][method]

    @FUZZ
    @given(case=operation.as_strategy())
    def fits(case):
        case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=CHECKS)

    @FUZZ
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    def misfits(case):
        case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=CHECKS)

    fits()
    misfits()


def test_every_operation_is_fuzzed(client):
    document = client.get("/api/v1/openapi.json").json
    found = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if method != "parameters"
    }
    assert found == set(OPERATIONS)
