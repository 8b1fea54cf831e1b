"""The page does what it says, by real clicks in Chromium. SCREENSHOTS=FOLDER keeps its pictures."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from omni_avsr import Transcriber
from omni_avsr.serve.app import FOLDER
from tests.support.serving import served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or not importlib.util.find_spec("playwright"),
    reason="needs Chromium and playwright",
)
ARGUMENTS = [
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
LONG = 20_000  # ms


@pytest.fixture(scope="module")
def address():
    with served(Transcriber("tiny", download=False)) as address:
        yield f"http://{address}"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1100, "height": 860})
    page.set_default_timeout(LONG)
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_function("document.getElementById('model').textContent === 'tiny'")
    yield page
    page.close()
    assert errors == []
    assert all(url.startswith((address, "blob:", "data:")) for url in requests)


def transcript(page, changed_from=None):
    """The transcript once it is another than it was."""
    page.wait_for_function(
        "(before) => { const text = document.getElementById('transcript').innerText.trim();"
        " return text && text !== before; }",
        arg=changed_from,
    )
    return page.inner_text("#transcript").strip()


def keep(page, name):
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_a_clip_is_a_click_away_and_its_captions_follow_it(page):
    page.get_by_role("button", name="judge").click()
    assert transcript(page) == "my happy judge danced quickly beside the town"
    page.wait_for_function("document.querySelector('#caption .now')")
    keep(page, "page")
    # The word that is marked is the one that is said
    word, start, end, now = page.evaluate(
        "() => { const word = document.querySelector('#transcript .now');"
        " return [word.textContent, +word.dataset.start, +word.dataset.end,"
        " document.querySelector('video').currentTime]; }"
    )
    assert word in "my happy judge danced quickly beside the town"
    assert start - 0.2 <= now <= end + 0.3


def test_what_it_hears_and_sees_can_be_chosen(page):
    page.get_by_role("button", name="coins").click()
    both = transcript(page)
    assert "25.0 tokens per second" in page.inner_text("#rates-text")
    page.get_by_role("radio", name="hear").check()
    page.wait_for_function("document.getElementById('cost').innerText.startsWith('ASR')")
    assert transcript(page) == both
    page.locator("#noise").fill("7")
    noisy = transcript(page, changed_from=both)
    assert "-10 dB" in page.inner_text("#noise-text")
    keep(page, "noise")
    page.get_by_role("radio", name="read lips").check()
    assert transcript(page, changed_from=noisy) == both
    assert "12.5 tokens per second" in page.inner_text("#rates-text")
    page.locator("#rates").fill("0")
    page.get_by_label("as coarse as it is sure").check()
    assert page.locator("#rates").is_disabled()


def test_files_are_taken_and_transcripts_given(page, tmp_path):
    page.set_input_files("#file", FOLDER / "clips" / "command.mp4")
    text = transcript(page)
    for name, ending in (("SRT", "srt"), ("VTT", "vtt"), ("JSON", "json"), ("TXT", "txt")):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        assert download.value.suggested_filename == f"command.{ending}"
        assert text.split()[0] in Path(download.value.path()).read_text()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    page.set_input_files("#file", broken)
    page.wait_for_function("document.getElementById('error').innerText")
    assert "the file cannot be read" in page.inner_text("#error")
    assert page.locator("#progress").is_hidden()


def test_what_is_said_here_is_captioned_and_recorded(page):
    page.get_by_role("radio", name="hear").check()
    with page.expect_websocket() as opened:
        page.get_by_role("button", name="Live captions").click()
    opened.value.wait_for_event("framereceived")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Live captions").wait_for()
    page.get_by_role("button", name="Record a clip").click()
    page.get_by_role("button", name="Stop and transcribe").wait_for()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop and transcribe").click()
    page.wait_for_function(
        "document.getElementById('cost').innerText.includes('ASR')"
        " || document.getElementById('error').innerText"
    )
    assert page.inner_text("#error") == ""


def test_it_fits_a_phone_and_can_be_used_by_keyboard(page):
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.id || document.activeElement.textContent")
        )
    assert {"file", "record", "live", "rates", "noise", "key", "coins"} <= reached
