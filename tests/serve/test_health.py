"""Alive, ready, measured; and what the log keeps to itself."""

import json
import logging
import re
import time

import pytest

from cxr.serve import monitoring as metrics
from cxr.serve.logs import JsonFormatter, config
from cxr.serve.serving import serving


def ready(client):
    """Ask until the model's first load is over."""
    for _ in range(100):
        answer = client.get("/readyz")
        if answer.json["checks"]["model"] != "the model is being loaded":
            break
        time.sleep(0.02)
    return answer


def test_alive_without_model_and_database(app, client, monkeypatch):
    with app.app_context():
        monkeypatch.setattr(serving().database, "ping", lambda: 1 / 0)
    assert client.get("/healthz").json == {"status": "alive"}
    answer = ready(client)
    assert answer.status_code == 503
    assert answer.json["checks"] == {"model": "ok", "database": "ZeroDivisionError"}


def test_ready_once_the_model_is_loaded_and_the_database_answers(client):
    answer = ready(client)
    assert answer.status_code == 200
    assert answer.json == {"status": "ready", "checks": {"model": "ok", "database": "ok"}}


def test_not_ready_without_a_bundle_and_it_says_why(app, client, monkeypatch):
    with app.app_context():
        queue = serving().queue

    def refuse(_):
        raise FileNotFoundError("/secret/place")

    monkeypatch.setattr(queue.model, "_load", refuse)
    answer = ready(client)
    assert answer.status_code == 503
    assert answer.json["checks"]["model"] == "the bundle cannot be used: FileNotFoundError"


def test_metrics_are_for_this_machine_alone_unless_a_token_says_otherwise(client, make_app):
    text = client.get("/metrics").text
    for name in ("cxr_images_in_work", "cxr_films_in_work"):  # and as version 0.1 called it
        assert re.search(rf"^{name} 0\.0$", text, re.MULTILINE)
    assert "# TYPE cxr_batch_films histogram" in text
    assert client.get("/metrics", environ_base={"REMOTE_ADDR": "10.0.0.9"}).status_code == 403
    assert client.get("/metrics", headers={"X-Forwarded-For": "1.2.3.4"}).status_code == 403
    guarded = make_app(metrics_token="a-token-for-prometheus").test_client()
    assert guarded.get("/metrics").status_code == 403
    far = {"REMOTE_ADDR": "10.0.0.9"}
    token = {"Authorization": "Bearer a-token-for-prometheus"}
    assert guarded.get("/metrics", headers=token, environ_base=far).status_code == 200


def test_requests_are_counted_by_route_not_by_address(client):
    client.get("/api/v1/predictions/somebody")
    text = metrics.exposition().decode()
    assert 'route="/api/v1/predictions/<prediction_id>",status="401"' in text
    assert "somebody" not in text


@pytest.mark.parametrize(
    ("name", "kept"),
    [("cxr.serve.watched_bundle", True), ("pydicom", False), ("sqlalchemy.pool", False)],
)
def test_the_text_of_other_packages_is_withheld(name, kept):
    record = logging.LogRecord(name, logging.WARNING, "", 0, "Meier %s", ("Anna",), None)
    line = json.loads(JsonFormatter().format(record))
    assert ("Meier" in line["message"]) is kept
    assert line["level"] == "warning"


def test_an_exception_is_logged_by_kind_and_place_alone():
    try:
        int("Meier")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("cxr.serve", logging.ERROR, "", 0, "failed", (), info)
    line = json.loads(JsonFormatter().format(record))
    assert line["error"] == "ValueError"
    assert "test_an_exception_is_logged" in line["places"][0]
    assert "Meier" not in json.dumps(line)


def test_the_logging_configuration_can_be_used():
    import logging.config as logging_config

    before = logging.getLogger("cxr").level, logging.getLogger().handlers[:]
    try:
        logging_config.dictConfig(config() | {"incremental": False})
    finally:
        for name in ("cxr", "gunicorn.error", "gunicorn.access"):
            logging.getLogger(name).handlers = []
            logging.getLogger(name).propagate = True
        logging.getLogger("cxr").setLevel(before[0])
        logging.getLogger().handlers = before[1]
