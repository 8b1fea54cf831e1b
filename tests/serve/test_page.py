"""The page does what it says, by real clicks in Chromium. SCREENSHOTS=FOLDER keeps its pictures."""

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from omni_avsr import Transcriber
from omni_avsr.media import streams
from omni_avsr.media.faces import MODEL, MODEL_VARIABLE
from omni_avsr.serve.app import FOLDER
from omni_avsr.settings import ServeSettings
from omni_avsr.toy import lip_track, make_face
from omni_avsr.toy.portrait import render_face
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
SHARED_DETECTOR = Path(__file__).parents[3] / "shared/models" / MODEL
DETECTOR = Path(os.environ.get(MODEL_VARIABLE, SHARED_DETECTOR))
FACE = make_face(np.random.default_rng(3))


@pytest.fixture(scope="module")
def address():
    detector = DETECTOR if DETECTOR.is_file() else None
    settings = ServeSettings(detector=detector)
    with served(Transcriber("tiny", download=False), settings) as address:
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


def brightness(page, canvas):
    """The mean of what is drawn on a canvas, of red, green, blue and what is opaque."""
    return page.evaluate(
        "(name) => { const { width, height } = document.getElementById(name);"
        " const paper = document.getElementById(name).getContext('2d');"
        " const { data } = paper.getImageData(0, 0, width, height);"
        " return data.reduce((sum, one) => sum + one, 0) / data.length; }",
        canvas,
    )


def test_the_mouth_that_it_sees_is_shown(page):
    page.get_by_role("button", name="judge").click()
    transcript(page)
    page.wait_for_function("document.querySelector('#transcript .now')")
    assert brightness(page, "mouth") > 100
    page.get_by_role("radio", name="hear").check()
    page.locator("#seen").wait_for(state="hidden")


@pytest.mark.skipif(
    not DETECTOR.is_file(), reason=f"no face detector; name one in {MODEL_VARIABLE}"
)
def test_in_a_raw_video_a_square_shows_where_the_mouth_is(page, tmp_path):
    rng = np.random.default_rng(0)
    track = lip_track([(0.2 * n, 0.2 * n + 0.2, "aio"[n % 3]) for n in range(10)], 50, FACE, rng)
    video, mouths = render_face(track, seed=1)
    sound = (rng.normal(0, 2000, 32_000) * (np.arange(32_000) % 8_000 < 4_000)).astype(np.int16)
    streams.write_video(tmp_path / "face.mp4", video, sound)
    page.get_by_role("radio", name="read lips").check()
    page.set_input_files("#file", tmp_path / "face.mp4")
    page.wait_for_function("seen.length && seen[0].squares.length")
    page.wait_for_function("document.querySelector('#transcript .now')")
    keep(page, "square")
    x, y, _ = np.mean(page.evaluate("seen[0].squares"), 0)
    # The detector sees a drawn mouth some pixels beside its middle
    assert (x, y) == pytest.approx(tuple(mouths.mean(0)), abs=12)
    assert brightness(page, "square") > 0


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
