"""The pages by plain requests, as a browser without scripts sends them."""

import io
import re

import numpy as np

from cxr.serve.serving import serving

NOTICE = "Research use only, not a medical device."


def upload(client, kit, *images, **headers):
    """Send images (name, bytes) through the form."""
    form = {
        "csrf_token": kit.csrf_of(client.get("/")),
        "image": [(io.BytesIO(data), name) for name, data in images],
    }
    return client.post("/", data=form, headers=headers)


def id_of(answer) -> str:
    return re.search(r"/predictions/([^/]+)/", answer.headers["Location"])[1]


def test_a_image_becomes_a_result_with_bars_set_advice_votes_and_maps(login, kit):
    answer = upload(login, kit, ("chest.png", kit.image_bytes()))
    assert answer.status_code == 303
    page = login.get(answer.headers["Location"]).get_data(as_text=True).replace("\u00a0", " ")
    for words in (
        "Bacterial",
        "60 %",
        "chest.png",
        "Bacterial or viral, 90 %",
        "Advice",
        "mobilenetv2",
        "inceptionv3",
        "Side by side",
        NOTICE,
    ):
        assert words in page
    assert "style=" not in page
    assert "<script>" not in page


def test_the_outline_of_the_lungs_lies_over_the_map(app, login, kit):
    place = f"/predictions/{id_of(upload(login, kit, ('a.png', kit.image_bytes())))}"
    assert f"{place}/lungs.png" in login.get(f"{place}/").get_data(as_text=True)
    assert f"{place}/lungs.png" in login.get(f"{place}/print").get_data(as_text=True)

    with app.app_context():  # a result of before lungs were stored
        images = serving().images
        for file in images.folder.glob("*/*/maps.npz"):
            arrays = dict(np.load(file))
            del arrays["lungs"]
            np.savez(file, **arrays)
    assert "lungs.png" not in login.get(f"{place}/").get_data(as_text=True)
    assert login.get(f"{place}/lungs.png").status_code == 404
    assert login.get(f"{place}/download.png").status_code == 200


def test_result_pictures_and_downloads_are_served(login, kit):
    place = f"/predictions/{id_of(upload(login, kit, ('a.png', kit.image_bytes())))}"
    for name in (
        "image.png",
        "film.png",
        "thumb.png",
        "layer.png",
        "layer.png?label=viral&member=inceptionv3",
        "lungs.png",
        "download.png?label=covid",
    ):
        answer = login.get(f"{place}/{name}")
        assert answer.status_code == 200, name
        assert answer.data.startswith(b"\x89PNG")
        assert answer.headers["Cache-Control"] == "no-store"
    values = login.get(f"{place}/download.json").get_json()
    assert values["label"] == "bacterial"
    assert values["notice"] == NOTICE
    assert "attachment" in login.get(f"{place}/download.json").headers["Content-Disposition"]
    assert NOTICE in login.get(f"{place}/print").get_data(as_text=True)
    for query in ("label=tumor", "member=vgg", "label=covid&member=../x"):
        assert login.get(f"{place}/layer.png?{query}").status_code == 404


def test_view_without_scripts_is_chosen_by_the_address(login, kit):
    place = f"/predictions/{id_of(upload(login, kit, ('a.png', kit.image_bytes())))}/"
    page = login.get(f"{place}?label=covid&member=mobilenetv2&view=beside").get_data(as_text=True)
    assert 'class="stage beside"' in page
    assert "label=covid&amp;member=mobilenetv2" in page


def test_addresses_and_fields_of_version_0_1_still_work(login, kit, caplog):
    form = {
        "csrf_token": kit.csrf_of(login.get("/")),
        "film": (io.BytesIO(kit.image_bytes()), "a.png"),
    }
    answer = login.post("/", data=form)
    assert answer.status_code == 303
    assert "form field 'film' is 'image' now" in caplog.text
    page = login.get(f"/predictions/{id_of(answer)}/?view=film").get_data(as_text=True)
    assert 'class="stage image"' in page


def test_refused_image_says_why_and_shows_no_class(login, kit):
    answer = upload(login, kit, ("dark.png", kit.image_bytes(gray=0)))
    place = answer.headers["Location"]
    page = login.get(place).get_data(as_text=True)
    assert "too dark to be a chest X-ray" in page
    shown = page + login.get(f"{place}print").get_data(as_text=True)
    shown += login.get(f"{place}download.json").get_data(as_text=True)
    shown += login.get("/history").get_data(as_text=True)
    values = login.get(f"{place}download.json").get_json()
    assert not {"label", "probs", "member_probs", "prediction_set", "refer"} & set(values)
    assert "acterial" not in shown.replace('"bacterial",', "")  # but in the list of all classes
    assert "mobilenetv2</th>" not in shown
    assert login.get(f"{place}layer.png").status_code == 404
    assert login.get(f"{place}download.png").status_code == 200


def test_several_images_go_in_one_upload_and_bad_ones_are_named(login, kit):
    answer = upload(
        login,
        kit,
        ("one.png", kit.image_bytes()),
        ("two.jpg", kit.image_bytes("JPEG")),
        ("broken.png", kit.image_bytes()[:200]),
        ("words.txt", b"no image"),
    )
    assert answer.status_code == 303
    page = login.get(answer.headers["Location"]).get_data(as_text=True)
    for words in ("2 images", "one.png", "two.jpg", "broken.png", "words.txt"):
        assert words in page


def test_upload_that_gives_nothing_says_why_with_its_status(make_app, kit, fake_predictor):
    app = make_app(upload_bytes=100_000)
    login = app.test_client()
    kit.sign_in(login, kit.add_account(app, "ann"))
    cases = [
        (("big.png", kit.image_bytes() + bytes(100_000)), 413, "at most"),
        (("empty.png", b""), 422, "empty"),
        (("words.txt", b"no image at all"), 422, "words.txt"),
    ]
    for image, status, words in cases:
        answer = upload(login, kit, image)
        assert answer.status_code == status
        assert words in answer.get_data(as_text=True)
    form = {"csrf_token": kit.csrf_of(login.get("/"))}
    assert login.post("/", data=form).status_code == 422
    assert fake_predictor.calls == 0


def test_script_gets_json(login, kit):
    wanted = {"Accept": "application/json"}
    answer = upload(login, kit, ("a.png", kit.image_bytes()), **wanted)
    image = answer.get_json()["images"][0]
    assert image["outcome"] == "bacterial, 60 %"
    assert image["notice"] == NOTICE
    answer = upload(login, kit, ("a.png", b"x"), **wanted)
    assert answer.status_code == 422
    assert answer.get_json()["failures"][0]["name"] == "a.png"


def test_too_many_images_in_a_minute_are_told_to_wait(make_app, kit):
    app = make_app(rate_per_minute=2)
    client, user = app.test_client(), kit.add_account(app, "ann")
    kit.sign_in(client, user)
    for _ in range(2):
        assert upload(client, kit, ("a.png", kit.image_bytes())).status_code == 303
    answer = upload(client, kit, ("a.png", kit.image_bytes()))
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 120


def test_history_is_searched_and_paged(login, kit, app):
    for name in ("left lung.png", "Right_LUNG.png", "100%.png"):
        upload(login, kit, (name, kit.image_bytes()))
    upload(login, kit, ("dark.png", kit.image_bytes(gray=0)))

    def found(query: str) -> list[str]:
        page = login.get(f"/history?{query}").get_data(as_text=True)
        return sorted(re.findall(r"<strong>([^<]+)</strong>", page))

    assert len(found("")) == 4
    assert found("q=lung") == ["Right_LUNG.png", "left lung.png"]
    assert found("q=lung+right") == ["Right_LUNG.png"]
    assert found("q=%25") == ["100%.png"]
    assert found("q=_") == ["Right_LUNG.png"]
    assert found("outcome=refused") == ["dark.png"]
    assert len(found("outcome=bacterial")) == 3
    assert found("q=nothing+such") == []
    assert len(found("page=99")) == 4


def test_deleting_takes_row_and_files(login, kit, app):
    place = f"/predictions/{id_of(upload(login, kit, ('a.png', kit.image_bytes())))}"
    folder = serving(app).images.folder
    assert len(list(folder.glob("*/*/film.png"))) == 1
    token = kit.csrf_of(login.get(f"{place}/delete"))
    assert login.post(f"{place}/delete", data={"csrf_token": token}).status_code == 303
    assert login.get(f"{place}/").status_code == 404
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_whole_history_is_deleted_and_usage_stays(login, kit, app):
    for _ in range(3):
        upload(login, kit, ("a.png", kit.image_bytes()))
    token = kit.csrf_of(login.get("/history/delete"))
    page = login.post("/history/delete", data={"csrf_token": token}, follow_redirects=True)
    assert "3 results are deleted" in page.get_data(as_text=True)
    admin = kit.add_account(app, "boss", "admin")
    other = app.test_client()
    kit.sign_in(other, admin)
    row = re.search(r"<th scope=\"row\">ann.*?</tr>", other.get("/users").get_data(as_text=True))
    assert re.findall(r'class="number">(\d+)', row[0]) == ["3", "3", "0", "0"]


def test_hostile_names_are_harmless(login, kit, app):
    names = (
        "../../etc/passwd",
        "..\\..\\boot.ini",
        "<script>alert(1)</script>.png",
        "a%0d%0aSet-Cookie: x=1.png",
        "x" * 4000 + ".png",
        "\u202egnp.exe",
        "nul\x00l.png",
    )
    for name in names:
        answer = upload(login, kit, (name, kit.image_bytes()))
        assert answer.status_code == 303, name
        place = answer.headers["Location"]
        page = login.get(place).get_data(as_text=True)
        assert "<script>alert" not in page
        heading = login.get(f"{place}download.json").headers["Content-Disposition"]
        assert re.fullmatch(r'attachment; filename="cxr-[A-Za-z0-9_-]+\.json"', heading)
    data = serving(app).settings.data_folder
    allowed = r"[0-9a-f]{32}/(film|thumb)\.png|[0-9a-f]{32}/maps\.npz"
    for path in (data / "films").rglob("*"):
        if path.is_file():
            assert re.fullmatch(allowed, f"{path.parent.name}/{path.name}")


def test_kept_image_has_no_metadata(login, kit, app):
    from PIL import Image

    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "JANE DOE 1960"
    Image.open(io.BytesIO(kit.image_bytes())).save(stream, "JPEG", exif=exif, comment=b"JANE DOE")
    assert b"JANE DOE" in stream.getvalue()
    upload(login, kit, ("a.jpg", stream.getvalue()))
    kept = next(serving(app).images.folder.glob("*/*/film.png")).read_bytes()
    assert b"JANE" not in kept
    assert Image.open(io.BytesIO(kept)).info == {}


def test_model_page_shows_what_answers(login):
    page = login.get("/model").get_data(as_text=True)
    assert "mobilenetv2, weight 0.60" in page
    assert "not evaluated" in page
