"""A real browser goes through the pages: Debian's Chromium, driven by Playwright."""

import importlib.util
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}
PATIENCE_MS = 30_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None or not any(map(shutil.which, BROWSERS)),
        reason="no browser here: pip install playwright, apt-get install chromium",
    ),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def site(app) -> Iterator[str]:
    """The application on a port of this machine."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def open_page(chromium, site):
    """Open the site in a fresh browser window; a complaint of the browser fails the test."""
    windows, complaints = [], []

    def open_(path: str = "/", size: str = "desktop", **options: Any) -> Any:
        window = chromium.new_context(viewport=SIZES[size], base_url=site, **options)
        window.set_default_timeout(PATIENCE_MS)
        page = window.new_page()
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type == "error" and "with a status of" not in message.text
                else None
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        windows.append(window)
        page.goto(path)
        return page

    yield open_
    for window in windows:
        window.close()
    assert complaints == []


def sign_in(page: Any, user: Any, password: str | None = None) -> None:
    page.get_by_label("Account").fill(user.name)
    page.get_by_label("Password").fill(password or user.password)
    page.get_by_role("button", name="Sign in").click()


def image_of(kit: Any, folder: Path, name: str = "image.jpg", **options: Any) -> str:
    path = folder / name
    path.write_bytes(kit.image_bytes("JPEG" if name.endswith("jpg") else "PNG", **options))
    return str(path)


@pytest.mark.realdata
@pytest.mark.parametrize("size", SIZES)
def test_from_login_to_logout(open_page, user, shared, size):
    jpeg = shared / "data/cxr4/images/viral"
    images = [str(min(jpeg.iterdir())), str(shared / "data/dicom/chest-pa-monochrome2-jpeg.dcm")]
    page = open_page(size=size)
    sign_in(page, user, "wrong password here")
    page.get_by_text("do not go together").wait_for()
    sign_in(page, user)
    page.get_by_label("Choose images").set_input_files(images)
    page.locator("li.image img:visible").wait_for()  # the preview of the JPEG
    assert page.locator("li.image").count() == 2
    page.get_by_role("button", name="Predict 2 images").click()
    page.get_by_text("2 of 2 images have a result").wait_for()
    page.get_by_role("link", name="chest-pa-monochrome2-jpeg.dcm").click()

    page.get_by_role("heading", name="Bacterial").wait_for()
    assert page.get_by_text("Research use only, not a medical device.").count() >= 2
    look_at_maps(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="PNG").click()
    assert download.value.suggested_filename == "cxr-chest-pa-monochrome2-jpeg.png"
    assert not overflows(page)

    page.get_by_role("link", name="History").click()
    page.get_by_label("Search").fill("monochrome2")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("1 result found").wait_for()
    page.get_by_role("link", name="Delete chest-pa").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("are deleted").wait_for()
    assert page.locator("li.image").count() == 1
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("You are signed out").wait_for()
    page.goto("/history")
    assert "/login" in page.url


def look_at_maps(page: Any) -> None:
    """Move the slider, choose class, member and view, zoom; none of it loads the page again."""
    layer = page.locator("#layer")
    page.evaluate("window.stays = true")
    slider = page.get_by_label("Opacity")
    slider.focus()
    before = float(layer.get_attribute("opacity"))
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    assert float(layer.get_attribute("opacity")) == pytest.approx(before + 0.1)
    page.get_by_role("combobox", name="Map of").select_option("covid")
    page.get_by_role("combobox", name="by").select_option("inceptionv3")
    assert layer.get_attribute("href").endswith("?label=covid&member=inceptionv3")
    page.get_by_text("Grad-CAM: covid, inceptionv3").wait_for()
    page.get_by_text("Side by side").click()
    assert page.locator(".canvas:visible").count() == 2
    page.get_by_text("Overlay").click()
    wide = page.locator("#mapped").bounding_box()["width"]
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Zoom in").click()
    assert page.locator("#mapped").bounding_box()["width"] > 1.2 * wide
    page.get_by_role("button", name="Zoom out").click()
    page.get_by_role("button", name="Zoom out").click()
    assert page.locator("#mapped").bounding_box()["width"] == pytest.approx(wide, abs=1)
    assert page.evaluate("window.stays") is True
    assert "member=inceptionv3" in page.url


def overflows(page: Any) -> bool:
    """Whether the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


@pytest.mark.realdata
def test_photograph_is_refused_without_a_class(open_page, user, shared, fake_predictor):
    fake_predictor.refuse = True
    page = open_page(size="phone")
    sign_in(page, user)
    photograph = str(shared / "data/not_cxr/cat.jpeg")
    page.get_by_label("Choose images").set_input_files(photograph)
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("heading", name="No class is given").wait_for()
    assert "acterial" not in page.locator("main").inner_text()
    assert page.locator("#layer").count() == 0


def test_bad_files_are_named_before_and_after_sending(open_page, user, kit, make_app, tmp_path):
    page = open_page()
    sign_in(page, user)
    (tmp_path / "big.png").write_bytes(bytes(33 * 1024 * 1024))
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.jpg").write_bytes(kit.image_bytes("JPEG")[:300])
    names = ("big.png", "empty.dcm", "notes.txt", "broken.jpg")
    page.get_by_label("Choose images").set_input_files([str(tmp_path / name) for name in names])
    for words in (
        "33.0 MB: at most 32.0 MB are taken",
        "The file is empty",
        "Only JPEG, PNG, TIFF and DICOM",
    ):
        page.get_by_text(words).wait_for()
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("0 of 1 image has a result").wait_for()
    assert "broken.jpg" in page.locator("li.image.bad").last.inner_text()
    assert page.locator("li.image.bad").count() == 4


def test_printed_result_is_one_sheet(open_page, user, kit, tmp_path):
    page = open_page()
    sign_in(page, user)
    page.get_by_label("Choose images").set_input_files(image_of(kit, tmp_path, size=(900, 1200)))
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("link", name="Print page").click()
    page.get_by_role("button", name="Print or save as PDF").wait_for()
    sheet = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", sheet)) == 1


def test_dropped_images_are_taken(open_page, user, kit, tmp_path):
    page = open_page()
    sign_in(page, user)
    page.locator("#drop").wait_for()
    handle = page.evaluate_handle(
        """(bytes) => { const moved = new DataTransfer();
           moved.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
           return moved; }""",
        list(kit.image_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": handle})
    page.get_by_text("dropped.png").wait_for()
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("heading", name="Bacterial").wait_for()


def test_busy_server_is_asked_again(open_page, user, kit, tmp_path, app):
    line = app.extensions["cxr"].queue
    places, line.length = line.length, 0
    page = open_page()
    sign_in(page, user)
    page.get_by_label("Choose images").set_input_files(image_of(kit, tmp_path))
    page.get_by_role("button", name="Predict").click()
    page.get_by_text("The server is busy; trying again").wait_for()
    line.length = places
    page.get_by_role("heading", name="Bacterial").wait_for()


def test_everything_but_slider_and_drop_works_without_scripts(open_page, user, kit, tmp_path):
    page = open_page(java_script_enabled=False)
    sign_in(page, user)
    page.get_by_label("Choose images").set_input_files(image_of(kit, tmp_path))
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("heading", name="Bacterial").wait_for()
    assert not page.locator("#opacity").is_visible()
    page.get_by_role("combobox", name="Map of").select_option("viral")
    page.get_by_text("Side by side").click()
    page.get_by_role("button", name="Show").click()
    page.get_by_text("Grad-CAM: viral, ensemble").wait_for()
    assert page.locator(".canvas:visible").count() == 2
    page.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("are deleted").wait_for()


def test_login_and_upload_by_keyboard_alone(open_page, user, kit, tmp_path):
    page = open_page("/login")
    # Chromium must know that its file dialog is listened for before a key can open it.
    page.on("filechooser", lambda chooser: None)
    page.keyboard.type(user.name)  # the first field has the focus
    page.keyboard.press("Tab")
    page.keyboard.type(user.password)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Upload chest X-rays").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "image"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(image_of(kit, tmp_path))
    page.get_by_role("button", name="Predict").press("Enter")
    page.get_by_role("heading", name="Bacterial").wait_for()


def test_a_request_is_tried_out_on_the_page_of_the_service(open_page, kit, token, tmp_path):
    page = open_page("/api/v1/")
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".auth-container input").fill(token)
    page.locator(".auth-container").get_by_role("button", name="Authorize").click()
    page.get_by_role("button", name="Close").click()
    predict = page.locator(".opblock-post").first
    predict.locator(".opblock-summary").click()
    predict.get_by_role("button", name="Try it out").click()
    predict.locator("input[type=file]").set_input_files(image_of(kit, tmp_path))
    predict.get_by_role("button", name="Execute").click()
    predict.locator(".live-responses-table .response-col_status", has_text="201").wait_for()
    assert "bacterial" in predict.locator(".live-responses-table").inner_text()
    assert not overflows(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_named_labelled_readable_and_no_wider_than_a_phone(
    open_page, app, kit, tmp_path, scheme
):
    page = open_page(size="phone", color_scheme=scheme)
    sign_in(page, kit.add_account(app, "boss", "admin"))
    page.get_by_label("Choose images").set_input_files(image_of(kit, tmp_path, "f" * 120 + ".jpg"))
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("heading", name="Bacterial").wait_for()
    result = re.sub(r"\?.*", "", page.url)
    for path in (
        result,
        f"{result}print",
        f"{result}delete",
        "/",
        "/history",
        "/account",
        "/users",
        "/model",
        "/nothing",
    ):
        page.goto(path)
        assert page.locator("h1").count() == 1, path
        assert page.get_by_text("Research use only, not a medical device.").first.is_visible()
        assert not overflows(page), path
        assert page.evaluate(UNNAMED) == [], path
        assert page.evaluate(FAINT) == [], path


UNNAMED = """() => [...document.querySelectorAll("input, select, button, a, img, svg[role=img]")]
  .filter((node) => node.type !== "hidden" && !node.closest("[hidden]"))
  .filter((node) => !(node.labels?.length || node.getAttribute("aria-label")
                      || node.textContent.trim() || node.hasAttribute("alt")))
  .map((node) => node.outerHTML)"""
"""Finds what a screen reader could not name."""

FAINT = """() => {
  const parts = (colour) => (colour.match(/[0-9.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const ground = (node) => { for (; node; node = node.parentElement) {
    const colour = parts(getComputedStyle(node).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour; } return [255, 255, 255]; };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("svg, :disabled, .skip, option")) continue;
    const [a, b] = [light(parts(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(1)} ${node.className} ${node.textContent.trim()}`);
  }
  return found; }"""
"""Finds words with less contrast than 4.5 to 1 (WCAG 2.2, 1.4.3)."""
