"""What keeps the server whole: headers, cookies, limits, bombs, files on disk, errors."""

import io
import os
import stat
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from sqlalchemy.exc import OperationalError

from cxr.errors import InputError
from cxr.serve import prediction_service as service
from cxr.serve.serving import serving, utc_now
from cxr.serve.settings import RESEARCH_USE, Settings, read_secret_key
from cxr.serve.stored_results import tidy
from cxr.serve.uploads import ORPHAN_AGE_S, ImageStore, StorageError, gray_map


def png_of(width: int, height: int, depth: int = 8, kind: int = 0) -> bytes:
    """Return a PNG of zeros that says it has this size: a bomb of a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        code = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", code)

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def send(client, kit, data: bytes, name: str = "a.png"):
    form = {"csrf_token": kit.csrf_of(client.get("/")), "image": (io.BytesIO(data), name)}
    return client.post("/", data=form)


def test_every_answer_carries_the_headers(login):
    for path in ("/", "/login", "/history", "/nothing", "/static/base.css", "/healthz"):
        with login.get(path) as answer:
            headers = answer.headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"
    assert login.get("/history").headers["Cache-Control"] == "no-store"  # pictures: test_pages
    assert "Strict-Transport-Security" not in login.get("/").headers
    assert "Strict-Transport-Security" in login.get("/", base_url="https://localhost").headers


def test_every_page_says_research_use_only(app, login, client):
    for path in ("/", "/history", "/account", "/model", "/nothing", "/history/delete"):
        assert RESEARCH_USE in login.get(path).get_data(as_text=True), path
    assert RESEARCH_USE in app.test_client().get("/login").get_data(as_text=True)


@pytest.mark.parametrize(
    ("rule", "address", "secure"),
    [
        ("auto", "http://localhost:5000", False),
        ("auto", "http://127.0.0.1", False),
        ("auto", "http://[::1]:5000", False),
        ("auto", "http://images.example", True),
        ("auto", "https://images.example", True),
        ("always", "http://localhost", True),
        ("never", "http://images.example", False),
    ],
)
def test_cookie_is_for_https_unless_the_machine_is_this_one(make_app, rule, address, secure):
    answer = make_app(secure_cookies=rule).test_client().get("/login", base_url=address)
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert ("Secure" in cookie) is secure
    assert ("without encryption" in answer.get_data(as_text=True)) is (
        secure and address.startswith("http:")
    )


def test_forwarded_headers_are_believed_of_trusted_proxies_alone(make_app):
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
    for hops, secure in ((0, False), (1, True)):
        client = make_app(trusted_proxies=hops).test_client()
        answer = client.get("/login", base_url="http://localhost", headers=forwarded)
        assert ("Secure" in answer.headers["Set-Cookie"]) is secure


def test_first_start_makes_a_secret_key_for_its_owner_alone(tmp_path):
    settings = Settings.load({"data_folder": tmp_path}, environ={})
    key = read_secret_key(settings)
    assert len(key) == 64
    assert read_secret_key(settings) == key
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["secret_key"]
    other = Settings.load({"data_folder": tmp_path / "other"}, environ={})
    assert read_secret_key(other) != key


def test_secret_key_comes_from_environment_or_file(tmp_path):
    (tmp_path / "key").write_text("k" * 40 + "\n")
    for name, value, key in (
        ("CXR_SECRET_KEY", "s" * 32, "s" * 32),
        ("CXR_SECRET_KEY_FILE", str(tmp_path / "key"), "k" * 40),
    ):
        assert read_secret_key(Settings.load(environ={name: value})) == key
    with pytest.raises(InputError, match="at least 32"):
        read_secret_key(Settings.load(environ={"CXR_SECRET_KEY": "short"}))
    with pytest.raises(InputError, match="cannot be read"):
        read_secret_key(Settings.load(environ={"CXR_SECRET_KEY_FILE": str(tmp_path / "none")}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nonsense": 1}, "unknown setting"),
        ({"trusted_proxies": "x"}, "trusted_proxies is 'x': allowed are a number"),
        ({"trusted_proxies": -1}, "0 and above; set CXR_TRUSTED_PROXIES"),
        ({"watch_s": 0}, "above 0"),
        ({"level": 1.0}, "0.5 to below 1"),
        ({"secure_cookies": "maybe"}, "auto, always, never"),
        ({"automatic_upgrade": "perhaps"}, "true or false"),
        ({"max_pixels": 10**9}, "1024 to"),
        ({"queue_length": 0}, "1 and above"),
    ],
)
def test_wrong_setting_is_one_line(values, words):
    with pytest.raises(InputError, match=words) as caught:
        Settings.load(values, environ={})
    assert "\n" not in str(caught.value)


def test_environment_is_read_and_a_mapping_goes_first():
    environ = {"CXR_RETENTION_DAYS": "7", "CXR_AUTOMATIC_UPGRADE": "false", "CXR_LEVEL": "0.8"}
    settings = Settings.load({"level": 0.95}, environ=environ)
    assert (settings.retention_days, settings.automatic_upgrade, settings.level) == (7, False, 0.95)


def test_password_of_the_database_comes_from_a_file(tmp_path):
    (tmp_path / "password").write_text("p@ss/word\n")
    settings = Settings.load(
        {
            "database_url": "postgresql://cxr@host/db",
            "database_password_file": str(tmp_path / "password"),
        },
        environ={},
    )
    assert settings.database == "postgresql+pg8000://cxr:p%40ss%2Fword@host/db"


@pytest.mark.parametrize(
    "data", [png_of(50_000, 50_000), png_of(20_000, 20_000, 16, 6), png_of(6_100, 6_100)]
)
def test_decompression_bomb_is_refused_before_it_unpacks(login, kit, fake_predictor, data):
    assert len(data) < 2000
    began = time.monotonic()
    answer = send(login, kit, data)
    assert answer.status_code == 422
    assert "megapixels" in answer.get_data(as_text=True)
    assert time.monotonic() - began < 5
    assert fake_predictor.calls == 0


def test_request_that_is_too_long_is_not_read(make_app, kit):
    app = make_app(upload_bytes=2000, upload_files=2)
    client = app.test_client()
    kit.sign_in(client, kit.add_account(app, "ann"))
    token = kit.csrf_of(client.get("/"))
    huge = {"CONTENT_LENGTH": str(10**12), "CONTENT_TYPE": "multipart/form-data; boundary=x"}
    answer = client.post("/", headers={"X-CSRFToken": token}, environ_overrides=huge)
    assert answer.status_code == 413
    assert "too large" in answer.get_data(as_text=True)


def test_paths_of_addresses_never_reach_the_disk(login, app):
    for name in (
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/secret_key",
        "x" * 5000,
        "\x00",
        "'; DROP TABLE users; --",
    ):
        assert login.get(f"/predictions/{name}/image.png").status_code in (308, 404)
        assert login.get(f"/static/{name}").status_code in (308, 404)
    for stem in ("../secret_key", "0" * 31, "0" * 33, "G" * 32, ""):
        with pytest.raises(FileNotFoundError):
            serving(app).images.image_path(stem)


def test_full_disk_leaves_no_row_and_no_file(login, kit, app, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cxr.serve.uploads._write", fail)
    answer = send(login, kit, kit.image_bytes())
    assert answer.status_code == 507
    assert str(serving(app).settings.data_folder) not in answer.get_data(as_text=True)
    assert not [path for path in serving(app).images.folder.rglob("*") if path.is_file()]
    assert "No image has been uploaded" in login.get("/history").get_data(as_text=True)


def test_row_that_cannot_be_written_takes_its_files_along(login, kit, app, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("INSERT", {}, Exception("gone"))

    monkeypatch.setattr(service, "save_prediction", fail)
    answer = send(login, kit, kit.image_bytes())
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert not [path for path in serving(app).images.folder.rglob("*") if path.is_file()]


def test_database_that_is_gone_is_a_page_and_back_again(login, app, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    with monkeypatch.context() as patch:
        patch.setattr("cxr.serve.store.users.session_user", fail)
        answer = login.get("/history")
        assert answer.status_code == 503
        assert "Nothing is lost" in answer.get_data(as_text=True)
    assert login.get("/history").status_code == 200


def test_bug_shows_a_number_and_no_inside(make_app, kit, monkeypatch):
    app = make_app()
    app.testing = False
    client = app.test_client()
    kit.sign_in(client, kit.add_account(app, "ann"))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr("cxr.serve.store.predictions.own_predictions", fail)
    answer = client.get("/history")
    assert answer.status_code == 500
    assert "Number of the request" in answer.get_data(as_text=True)
    assert "secret of the inside" not in answer.get_data(as_text=True)


def test_tidying_takes_old_results_orphans_and_leftovers(make_app, kit):
    app = make_app(retention_days=30)
    client, user = app.test_client(), kit.add_account(app, "ann")
    kit.sign_in(client, user)
    with app.test_request_context():
        old = service.predict_and_store(
            kit.image_bytes(), name="old", user_id=user.id, origin="api"
        )
        new = service.predict_and_store(
            kit.image_bytes(), name="new", user_id=user.id, origin="api"
        )
        here = serving()
        with here.database.write() as session:
            row = session.merge(old)
            row.created_at = utc_now().replace(year=2020)
        images = here.images
        orphan, fresh = (
            images.save(images.load_image(new.stem), None),
            images.save(images.load_image(new.stem), None),
        )
        (images.folder / ".new-left").mkdir()
        before = time.time() - ORPHAN_AGE_S - 60
        for path in (images.folder / ".new-left", images.image_path(orphan).parent):
            os.utime(path, (before, before))
        assert tidy() == (1, 2)
        kept = {path.name for path in images.folder.glob("??/*")}
        assert kept == {new.stem, fresh}
    assert "<strong>old<" not in client.get("/history").get_data(as_text=True)


def test_killed_while_writing_leaves_nothing_that_is_found(app, kit, monkeypatch):
    images = serving(app).images

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cxr.serve.uploads._thumb", killed)
        with pytest.raises(KeyboardInterrupt):
            images.save(np.zeros((64, 64), np.uint8), None)
    assert list(images.folder.glob("??/*")) == []


def test_maps_are_kept_whole_and_small(app, fake_predictor):
    image = np.zeros((900, 600), np.uint8)
    prediction = next(fake_predictor.predict_each([image + 90], maps=True))
    images = serving(app).images
    loaded = images.load_maps(images.save(image, prediction.maps))
    assert loaded.classes == prediction.maps.classes
    assert tuple(loaded.members) == fake_predictor.members
    for member in (None, *loaded.members):
        small = gray_map(loaded, "covid", member)
        assert small.shape == (192, 128)
        full = prediction.maps.of("covid", member)
        grown = np.asarray(Image.fromarray(small).resize((600, 900), Image.Resampling.BILINEAR))
        assert np.abs(grown / 255 - full).max() < 0.03


def test_storage_error_names_no_path(app, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not store") as caught:
        ImageStore(tmp_path / "file").save(np.zeros((40, 40), np.uint8), None)
    assert str(tmp_path) not in str(caught.value)
