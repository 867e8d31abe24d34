"""Take the README's screenshots of a running application.

    make train && make app                    # in one terminal
    make account NAME=ann                     # in another
    python docs/images/make.py ann IMAGE... [--address http://127.0.0.1:5000]

IMAGE are images of the phantom (outputs/phantom/images-*/images), so that no patient is shown. Asks
for the password. Needs the development extra and a Chromium.
"""

import argparse
import getpass
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    """Log in, upload, open the first result, and picture each page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--address", default="http://127.0.0.1:5000")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{given.address}/login")
        page.fill("[name=name]", given.name)
        page.screenshot(path=given.out / "login.png")
        page.fill("[name=password]", getpass.getpass())
        page.click("button.main")
        page.wait_for_url(f"{given.address}/")
        page.set_input_files("#image", given.images)
        page.wait_for_timeout(1500)
        page.screenshot(path=given.out / "upload.png")
        page.click("#send")
        page.get_by_text("have a result").wait_for(timeout=90_000)
        page.click("ul.images li:first-child a")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=given.out / "result.png")
        browser.close()


if __name__ == "__main__":
    main()
