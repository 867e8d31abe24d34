"""The server as it runs: processes, figures, logs, reloads, the end."""

import json
import signal
import threading
import time

import pytest

pytestmark = pytest.mark.long


def test_two_processes_share_accounts_limits_and_figures(server):
    server.settings |= {"CXR_PROCESSES": "2", "CXR_RATE_PER_MINUTE": "5"}
    server.start()
    server.until(lambda: server.figure("cxr_model_loaded") == 2)
    server.account()
    statuses = [server.predict(seed)[0] for seed in range(8)]
    assert statuses == [201] * 5 + [429] * 3
    assert server.figure("cxr_predictions_total") == 5
    assert len(server.images) == 5
    status, headers, body = server.ask(
        "POST",
        "/api/v1/predictions",
        b"x",
        Authorization=f"Bearer {server.token}",
        **{"Content-Type": "image/png"},
    )
    assert status == 429
    # Five at the very start of a window have faded to four 12 s into the next one.
    assert 1 <= int(headers["Retry-After"]) <= 73
    assert json.loads(body)["retry_after_s"] == int(headers["Retry-After"])
    assert server.stop() == 0
    assert not list(server.root.glob("cxr-metrics-*")), "figures of an ended server stay nowhere"


def test_the_log_is_json_and_names_neither_image_nor_token_nor_address(server):
    server.start()
    server.account()
    server.ask(
        "POST",
        "/api/v1/predictions?maps=Meier",
        b"--x\r\nContent-Disposition: form-data; "
        b'name="file"; filename="Meier_Anna.png"\r\n\r\nno image\r\n--x--\r\n',
        Authorization=f"Bearer {server.token}",
        **{"Content-Type": "multipart/form-data; boundary=x", "X-Request-ID": "from-outside-1"},
    )
    shown = server.predict()[1]
    server.ask("GET", "/api/v1/predictions/Meier_Anna")
    server.stop()
    text = (server.root / "log").read_text()
    assert "Meier" not in text
    assert server.token not in text
    assert shown["id"] not in text
    requests = [line for line in server.lines() if line["message"] == "request"]
    # While the server started it may have answered the probe that it is not ready, which is logged.
    requests = [line for line in requests if (line["route"], line["status"]) != ("/readyz", 503)]
    assert {line["status"] for line in requests} == {201, 401, 422}
    assert any(line["request_id"] == "from-outside-1" for line in requests)
    assert "/api/v1/predictions/<prediction_id>" in {line["route"] for line in requests}
    assert not [line for line in requests if line["route"] in ("/healthz", "/readyz")]


def test_sighup_takes_the_new_bundle_and_keeps_the_old_one_where_it_is_bad(server):
    server.settings |= {"CXR_WATCH_S": "3600"}
    server.start()
    server.account()
    before = server.workers()
    server.model("second")
    assert server.api("GET", "/model")[1]["fingerprint"] == "first"
    server.process.send_signal(signal.SIGHUP)
    server.until(lambda: server.api("GET", "/model")[1]["fingerprint"] == "second")
    server.model("third", bad=True)
    server.process.send_signal(signal.SIGHUP)
    server.until(lambda: any(line["message"] == "bundle refused" for line in server.lines()))
    assert server.api("GET", "/model")[1]["fingerprint"] == "second"
    assert server.predict()[0] == 201
    assert server.get("/readyz")[0] == 200
    assert server.workers() == before, "no process ended for it"


def test_sigterm_answers_who_was_admitted(server):
    server.model("slow", delay_s=1.0)
    server.start()
    server.account()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(server.predict()))
    asking.start()
    server.until(lambda: server.figure("cxr_images_in_work") == 1)
    assert server.stop() == 0
    asking.join()
    assert answers[0][0] == 201
    assert len(server.images) == 1


def test_beyond_the_places_503_comes_at_once(server):
    server.model("slow", delay_s=1.0)
    server.settings |= {"CXR_QUEUE_LENGTH": "2"}
    server.start()
    server.account()
    answers = []

    def ask() -> None:
        began = time.monotonic()
        answers.append((server.predict()[0], time.monotonic() - began))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    assert server.get("/healthz")[0] == 200, "health answers while images wait"
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in answers) == [201, 201, 503, 503, 503, 503]
    assert max(seconds for status, seconds in answers if status == 503) < 1.0
