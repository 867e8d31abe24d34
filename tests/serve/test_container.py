"""What can be said of the container's files without an engine; .ci/docker runs the image."""

import fnmatch
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()


def test_the_base_image_can_be_replaced_and_nothing_needs_a_newer_engine():
    assert DOCKERFILE.startswith("ARG BASE_IMAGE=python:3.11-slim\n")
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE_IMAGE}"}
    for newer in ("# syntax", "<<", "COPY --link", "--start-interval"):
        assert newer not in DOCKERFILE


def test_it_does_not_run_as_root_and_knows_whether_it_is_well():
    last = DOCKERFILE.rsplit("FROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert re.search(r'^VOLUME \["/data"\]$', last, re.MULTILINE)
    assert re.search(r'^CMD \["gunicorn"', last, re.MULTILINE), "no shell that eats SIGTERM"


def test_only_what_the_image_needs_is_sent_to_the_engine():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE))
    assert {name for names in copied for name in names.split()} == kept
    for name in ("outputs", "data", ".git", "secrets", "tests"):
        assert not any(fnmatch.fnmatch(name, rule) for rule in kept)


def test_compose_has_no_default_password_and_locks_the_container_down():
    assert not re.search(r"(?i)password\S*: *[^\s$/{\[]", COMPOSE)
    for word in (
        "read_only: true",
        "cap_drop: [ALL]",
        "no-new-privileges",
        ":/bundle:ro",
        "CXR_BUNDLE_FOLDER:?",
    ):
        assert word in COMPOSE
    assert "127.0.0.1:" in COMPOSE, "without a proxy it is not for the network"
