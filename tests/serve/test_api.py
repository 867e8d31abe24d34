"""REST: who may, what comes in, what goes out, and how it says no."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from cxr.serve.serving import serving, utc_now
from cxr.serve.settings import RESEARCH_USE
from cxr.serve.store.rows import PredictionRow
from cxr.serve.store.users import create_token, set_disabled

PROBLEM = "application/problem+json"


def image_bytes(kind="PNG", *, size=(120, 100), gray=None) -> bytes:
    """Return a file that can pass for an image, or a uniformly gray one."""
    pixels = np.random.default_rng(0).integers(40, 220, size[::-1], dtype=np.uint8)
    if gray is not None:
        pixels[:] = gray
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def api(client, token):
    """Ask with a token."""

    def ask(method: str, path: str, **options):
        headers = {"Authorization": f"Bearer {token}"} | options.pop("headers", {})
        return client.open(f"/api/v1{path}", method=method, headers=headers, **options)

    return ask


@pytest.fixture
def predicted(api):
    answer = api("POST", "/predictions", data=image_bytes(), content_type="image/png")
    assert answer.status_code == 201, answer.json
    return answer.json


def is_problem(answer, status: int) -> dict:
    assert answer.status_code == status, answer.data
    assert answer.content_type == PROBLEM
    body = answer.json
    assert body["status"] == status
    assert body["notice"] == RESEARCH_USE
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert "\n" not in body["detail"]
    return body


def test_a_image_is_predicted_kept_and_shown(api, predicted):
    assert predicted["label"] == "bacterial"
    assert sum(predicted["probs"].values()) == pytest.approx(1)
    assert predicted["prediction_set"] == ["bacterial", "viral"]
    assert set(predicted["member_probs"]) == {"mobilenetv2", "inceptionv3"}
    assert predicted["notice"] == RESEARCH_USE
    assert "maps" not in predicted
    assert api("GET", f"/predictions/{predicted['id']}").json == predicted
    assert predicted["links"]["self"] == f"/api/v1/predictions/{predicted['id']}"


def test_a_form_does_as_well_and_its_file_name_stays_out_of_the_answer(api):
    form = {"file": (io.BytesIO(image_bytes("JPEG")), "../../Meier.jpg")}
    answer = api("POST", "/predictions", data=form)
    assert answer.status_code == 201
    assert "Meier" not in answer.text


@pytest.mark.parametrize("field", ["image", "film"])
def test_the_field_of_the_form_has_a_new_name_and_its_old_ones_work(api, field):
    form = {field: (io.BytesIO(image_bytes()), "a.png")}
    assert api("POST", "/predictions", data=form).status_code == 201
    form = {"file": (io.BytesIO(image_bytes()), "a.png")} | {
        field: (io.BytesIO(image_bytes()), "b.png")
    }
    assert "2 fields" in api("POST", "/predictions", data=form).json["detail"]


def test_what_version_0_1_stored_is_shown_under_todays_keys(app, api, predicted):
    coverage = {"viral": {"value": 0.9, "films": 12, "patients": 7}}
    with app.app_context(), serving().database.write() as session:
        row = session.get(PredictionRow, predicted["id"])
        row.result = row.result | {"set_coverage": coverage}
    shown = api("GET", f"/predictions/{predicted['id']}").json["set_coverage"]["viral"]
    assert shown == {"value": 0.9, "images": 12, "patients": 7}


def test_maps_come_on_request(api, predicted):
    maps = api("GET", f"/predictions/{predicted['id']}?maps=true").json["maps"]
    assert set(maps) == {"ensemble", "mobilenetv2", "inceptionv3"}
    assert list(maps["ensemble"]) == list(predicted["probs"])
    image = Image.open(io.BytesIO(base64.b64decode(maps["ensemble"]["viral"])))
    assert image.mode == "L"


def test_a_map_is_drawn_over_the_image(api, predicted):
    here = f"/predictions/{predicted['id']}/map.png"
    answer = api("GET", here)
    assert answer.content_type == "image/png"
    bare = api("GET", f"{here}?caption=false")
    size = (predicted["width_px"], predicted["height_px"])
    assert Image.open(io.BytesIO(bare.data)).size == size
    assert Image.open(io.BytesIO(answer.data)).height > size[1], "it says what it is"
    other = api("GET", f"{here}?label=viral&member=inceptionv3&opacity=1")
    assert other.status_code == 200
    assert other.data != answer.data
    assert "allowed are normal, covid" in is_problem(api("GET", f"{here}?label=flu"), 422)["detail"]
    is_problem(api("GET", f"{here}?member=flu"), 422)
    assert "opacity" in json.dumps(is_problem(api("GET", f"{here}?opacity=2"), 422)["errors"])


def test_a_refused_image_has_no_class_and_no_map(api):
    answer = api("POST", "/predictions?maps=1", data=image_bytes(gray=1), content_type="image/png")
    shown = answer.json
    assert answer.status_code == 201
    assert shown["refused"]
    assert shown["refusals"] == ["the image is too dark to be a chest X-ray"]
    assert not {"label", "probs", "member_probs", "prediction_set", "refer", "maps"} & set(shown)
    assert "bacterial" not in answer.text
    is_problem(api("GET", f"/predictions/{shown['id']}/map.png"), 409)


def test_deleted_is_gone(app, api, predicted):
    assert api("DELETE", f"/predictions/{predicted['id']}").status_code == 204
    is_problem(api("GET", f"/predictions/{predicted['id']}"), 404)
    is_problem(api("DELETE", f"/predictions/{predicted['id']}"), 404)
    with app.app_context():
        assert not list(serving().images.folder.rglob("*.png"))


def test_nobody_elses_results_are_there(app, client, predicted, kit):
    other = kit.add_account(app, "bob")
    with app.app_context(), serving().database.write() as session:
        secret, _ = create_token(session, other.id, "t", now=utc_now())
    bearer = {"Authorization": f"Bearer {secret}"}
    here = f"/api/v1/predictions/{predicted['id']}"
    for method, path in (("GET", here), ("GET", f"{here}/map.png"), ("DELETE", here)):
        is_problem(client.open(path, method=method, headers=bearer), 404)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer cxr_wrong", "Basic YTpi", "bearer\x7f x"]
)
def test_without_a_token_nothing_opens(client, header):
    headers = {} if header is None else {"Authorization": header}
    for method, path in (
        ("POST", "/predictions"),
        ("GET", "/predictions/x"),
        ("DELETE", "/predictions/x"),
        ("GET", "/predictions/x/map.png"),
        ("GET", "/model"),
    ):
        answer = client.open(f"/api/v1{path}", method=method, headers=headers, data=b"x" * 10)
        is_problem(answer, 401)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_page_session_opens_no_api(login):
    is_problem(login.get("/api/v1/model"), 401)


def test_a_disabled_account_and_an_old_token_open_nothing(app, client, user, token):
    bearer = {"Authorization": f"Bearer {token}"}
    assert client.get("/api/v1/model", headers=bearer).status_code == 200
    with app.app_context(), serving().database.write() as session:
        set_disabled(session, user.name, True)
    is_problem(client.get("/api/v1/model", headers=bearer), 401)


@pytest.mark.parametrize(
    ("data", "kind", "status", "said"),
    [
        (b"", "image/png", 422, "empty"),
        (b"no image", "image/png", 422, "the image"),
        (image_bytes()[:200], "image/png", 422, "the image"),
        (image_bytes(size=(20, 20)), "image/png", 422, "32"),
        (image_bytes(), "text/plain", 415, "multipart/form-data"),
        (image_bytes(), None, 415, "multipart/form-data"),
        ({"other": "x"}, "multipart/form-data", 422, "0 fields"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x", 422, "0 fields"),
        (b"--x\r\nbroken", "multipart/form-data", 422, "0 fields"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(api, data, kind, status, said):
    body = is_problem(api("POST", "/predictions", data=data, content_type=kind), status)
    assert said in body["detail"]


def test_two_images_at_once_are_refused(api):
    files = [(io.BytesIO(image_bytes()), f"{name}.png") for name in "ab"]
    is_problem(api("POST", "/predictions", data={"file": files}), 422)


def test_a_misspelled_parameter_is_refused(api):
    body = is_problem(api("POST", "/predictions?map=true", data=image_bytes()), 422)
    assert body["errors"] == {"query": {"map": ["Unknown field."]}}


def test_too_many_bytes_are_refused_before_they_are_read(make_app, kit):
    app = make_app(upload_bytes=20_000)
    user = kit.add_account(app, "ann")
    with app.app_context(), serving().database.write() as session:
        secret, _ = create_token(session, user.id, "t", now=utc_now())
    bearer = {"Authorization": f"Bearer {secret}"}
    for size in (30_000, 200_000):
        for options in (
            {"data": b"x" * size, "content_type": "image/png"},
            {"data": {"file": (io.BytesIO(b"x" * size), "a.png")}},
        ):
            answer = app.test_client().post("/api/v1/predictions", headers=bearer, **options)
            is_problem(answer, 413)


def test_too_many_images_in_a_minute_are_refused_with_the_time_to_wait(make_app, kit):
    app = make_app(rate_per_minute=2)
    user = kit.add_account(app, "ann")
    with app.app_context(), serving().database.write() as session:
        secret, _ = create_token(session, user.id, "t", now=utc_now())
    client = app.test_client()
    answers = [
        client.post(
            "/api/v1/predictions",
            data=image_bytes(),
            content_type="image/png",
            headers={"Authorization": f"Bearer {secret}"},
        )
        for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    body = is_problem(answers[2], 429)
    assert int(answers[2].headers["Retry-After"]) == body["retry_after_s"] > 0


def test_a_full_queue_says_when_to_come_back(app, api, fake_predictor):
    with app.app_context():
        queue = serving().queue
    queue.length = 0
    answer = api("POST", "/predictions", data=image_bytes(), content_type="image/png")
    assert int(answer.headers["Retry-After"]) == is_problem(answer, 503)["retry_after_s"]
    assert fake_predictor.calls == 0


def test_without_a_model_it_is_503(app, api):
    with app.app_context():
        queue = serving().queue
    queue.start()
    queue.model.wait(5)
    queue.model._predictor = None
    for answer in (
        api("POST", "/predictions", data=image_bytes(), content_type="image/png"),
        api("GET", "/model"),
    ):
        is_problem(answer, 503)
        assert answer.headers["Retry-After"] == "5"


def test_the_model_says_what_it_is_and_what_it_is_for(api):
    shown = api("GET", "/model").json
    assert shown["labels"] == ["normal", "covid", "bacterial", "viral"]
    assert "Not for diagnosis" in shown["intended_use"]
    assert len(shown["fingerprint"]) == 64


def test_addresses_and_methods_that_are_not_there(client, api):
    is_problem(client.get("/api/v1/nothing"), 404)
    is_problem(client.get("/api/v2/model"), 404)
    answer = api("PUT", "/predictions")
    is_problem(answer, 405)
    assert "POST" in answer.headers["Allow"]


def test_an_unexpected_error_tells_nothing_but_its_number(app, api, monkeypatch, caplog):
    def fail(*_args, **_options):
        raise RuntimeError("Meier, Anna")

    monkeypatch.setattr("cxr.serve.api.predict_and_store", fail)
    app.testing = False
    answer = api("POST", "/predictions", data=image_bytes(), content_type="image/png")
    assert "Meier" not in answer.text
    assert is_problem(answer, 500)["request_id"]
    assert any(record.message == "unexpected error" for record in caplog.records)
