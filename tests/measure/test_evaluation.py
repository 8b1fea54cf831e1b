"""Results and hypotheses, their files, and the report."""

import json
import re
from dataclasses import replace

import pytest

from omni_avsr.decode.hypothesis import Hypothesis, worst, write_hypotheses
from omni_avsr.errors import InputError
from omni_avsr.measure.evaluate import Evaluation
from omni_avsr.measure.plots import wer_in
from omni_avsr.measure.report import write_report
from omni_avsr.measure.results import (
    finest,
    grid,
    is_measured,
    read_results,
    result_of,
    write_results,
)
from omni_avsr.tasks import CLEAN, VERSION, Condition, Route, Task

FACTS = {
    "audio_seconds": 20.0,
    "decode_seconds": 1.5,
    "beams": 1,
    "seed": 3,
    "checkpoint": "runs/a<b>",
    "manifest": "test.csv",
}
ASR = Route(Task.ASR, 4)
VSR = Route(Task.VSR, None, 2)
AVSR = Route(Task.AVSR, 4, 2)
ROUTES = [  # not in the table's order
    Route(Task.AVSR, 16, 5),
    Route(Task.VSR, None, 5),
    Route(Task.ASR, 16),
    AVSR,
    ASR,
    Route(Task.AVSR, 16, 2),
    VSR,
    Route(Task.AVSR, 4, 5),
]
BABBLE = Condition(0, "babble")
COLUMNS = (
    "task audio_rate video_rate snr noise wer wer_low wer_high cer words substitutions deletions "
    "insertions clips audio_seconds decode_seconds beams normaliser seed checkpoint manifest "
    "unreadable without_text cut dtype quantize calibration_error begun doubted "
    "llm_tokens_per_second_of_speech"
)


def hypothesis(text="set red", route=ASR, reference="SET Red", id="clip", **others):
    return Hypothesis(id, reference, text, route, **others)


def result(route=ASR, wer=0.1, condition=CLEAN):
    measured = result_of([hypothesis(route=route, condition=condition)], **FACTS)
    return replace(measured, wer=wer)


def results(*conditions):
    """A result of each route in each condition; no two with the same WER."""
    found = []
    for condition in conditions:
        for route in ROUTES:
            found.append(result(route, 0.01 * len(found), condition))
    return found


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The report of two conditions."""
    measured = results(CLEAN, BABBLE)
    return report(tmp_path_factory.mktemp("report"), measured, [hypothesis("sat red")], "A title")


def report(folder, measured, hypotheses, title="T", notes=()):
    write_report(folder, Evaluation(measured, hypotheses), title, notes)
    assert [file.name for file in folder.iterdir()] == ["report.html"]
    return (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("route", "tokens"),
    [
        (ASR, 12.5),
        (Route(Task.ASR, 16), 3.125),
        (Route(Task.VSR, None, 5), 5),
        (AVSR, 25),
    ],
)
def test_tokens_per_second_of_speech_are_those_of_the_used_streams(route, tokens):
    assert route.tokens_per_second == tokens


def test_a_result_has_the_columns_of_a_results_file_and_sums():
    clips = [
        hypothesis(),
        hypothesis("set read now", reference="SET RED"),
        hypothesis("", reference="a b c d"),
    ]
    measured = result_of(clips, **FACTS)
    row = measured.as_row()
    assert list(row) == COLUMNS.split()
    assert measured.words == 8
    assert (measured.substitutions, measured.deletions, measured.insertions) == (1, 4, 1)
    assert measured.wer == 6 / 8
    assert measured.percent == 75
    assert (measured.clips, measured.normaliser, measured.seed) == (3, "lower", 3)
    assert (row["task"], row["audio_rate"], row["video_rate"]) == ("asr", 4, None)
    assert (row["snr"], row["noise"]) == (None, None)


def test_texts_are_kept_as_they_came_and_scored_normalised():
    clip = hypothesis("set  red")
    assert (clip.reference, clip.hypothesis) == ("SET Red", "set  red")
    assert clip.scored == ("set red", "set red")
    assert clip.errors.errors == 0


@pytest.mark.parametrize("normaliser", ["lower", "13a", "whisper"])
def test_clips_without_words_to_score_are_counted_and_left_out(normaliser):
    empty = {"lower": " ", "13a": "... ?", "whisper": "[laughs]"}[normaliser]
    clips = [
        hypothesis("what is not there", reference=empty, normaliser=normaliser, is_cut=True),
        hypothesis("set read", normaliser=normaliser),
    ]
    measured = result_of(clips, **FACTS)
    assert (measured.clips, measured.without_text, measured.cut) == (1, 1, 1)
    assert (measured.words, measured.wer, measured.wer_high) == (2, 0.5, 0.5)
    assert worst(clips) == clips[1:]


def test_results_of_an_older_version_can_be_read(tmp_path):
    write_results(tmp_path, [result()])
    content = json.loads((tmp_path / "results.json").read_text())
    for name in ("unreadable", "without_text", "cut", "dtype", "quantize"):
        del content["rows"][0][name]
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert read_results(tmp_path) == [result()]


def test_the_report_counts_clips_without_a_text_and_transcripts_that_were_cut(tmp_path):
    measured = replace(result(), without_text=41, unreadable=42, cut=43)
    html = report(tmp_path, [measured], [])
    assert "<dt>without text</dt><dd>41</dd>" in html
    assert "<dt>unreadable</dt><dd>42</dd>" in html
    assert "<td>43</td>" in html
    assert "<th>cut</th>" in html


def test_a_result_of_two_routes_or_of_none_is_refused():
    with pytest.raises(InputError, match=r"ASR \(4\) clean; VSR \(2\) clean"):
        result_of([hypothesis(), hypothesis(route=VSR)], **FACTS)
    with pytest.raises(InputError, match="not of: none"):
        result_of([], **FACTS)


def test_a_result_without_an_snr_is_clean_whatever_noise_is_named():
    assert result(condition=Condition(None, "babble")).condition.noise is None


def test_conditions_stand_from_clean_to_loud():
    noisy = [Condition(-5, "babble"), Condition(10, "white"), Condition(10, "babble")]
    cells = grid(results(*noisy, CLEAN, Condition(0, "white")))
    shown = [str(condition) for condition in cells.conditions]
    assert shown == ["clean", "babble 10 dB", "babble -5 dB", "white 10 dB", "white 0 dB"]


def test_two_results_for_one_cell_and_a_table_of_nothing_are_refused():
    with pytest.raises(InputError, match=r"two results for ASR \(4\), clean"):
        grid([result(), replace(result(), seed=4)])
    with pytest.raises(InputError, match="no results"):
        grid([])


def test_the_finest_routes_have_the_most_tokens():
    assert finest(ROUTES) == [ASR, VSR, AVSR]
    lopsided = [Route(Task.AVSR, 4, 25), Route(Task.AVSR, 5, 2)]
    assert finest(lopsided) == [Route(Task.AVSR, 5, 2)]


def test_the_worst_come_first_and_the_right_not_at_all():
    right = hypothesis(id="right")
    half = hypothesis("set", id="half")
    wrong = hypothesis("x y", id="wrong")
    longer = hypothesis("x y z v", reference="a b c d", id="longer")
    clips = [right, half, wrong, longer]
    assert worst(clips) == [longer, wrong, half]
    assert worst(clips, count=1) == [longer]


def test_results_are_versioned_json_without_leftovers(tmp_path):
    measured = results(CLEAN)
    folder = tmp_path / "new"
    assert not is_measured(folder)
    write_results(folder, measured)
    write_results(folder, measured)
    content = json.loads((folder / "results.json").read_text())
    assert content == {"version": VERSION, "rows": [one.as_row() for one in measured]}
    assert [file.name for file in folder.iterdir()] == ["results.json"]
    assert is_measured(folder)
    assert read_results(folder) == read_results(folder / "results.json") == measured


def test_results_that_cannot_be_written_leave_the_old_file(tmp_path):
    (tmp_path / "results.json").write_text("old")
    with pytest.raises(ValueError, match="nan"):
        write_results(tmp_path, [result(wer=float("nan"))])
    assert (tmp_path / "results.json").read_text() == "old"


def test_hypotheses_are_json_lines(tmp_path):
    clips = [
        hypothesis("set réd\n", confidence=0.5, probabilities=[0.9, None], seconds=2.0),
        hypothesis(route=AVSR, condition=BABBLE),
    ]
    write_hypotheses(tmp_path / "h.jsonl", clips)
    first, second = map(json.loads, (tmp_path / "h.jsonl").read_text().splitlines())
    columns = (
        "id reference hypothesis task audio_rate video_rate snr noise confidence cut "
        "probabilities audio_seconds errors words"
    )
    assert list(first) == list(second) == columns.split()
    assert (first["reference"], first["hypothesis"]) == ("SET Red", "set réd\n")
    assert (first["errors"], first["words"], first["confidence"]) == (1, 2, 0.5)
    assert (first["probabilities"], first["audio_seconds"]) == ([0.9, None], 2.0)
    assert (second["errors"], second["snr"], second["confidence"]) == (0, 0, None)


def test_words_are_judged_by_their_probabilities_as_far_as_they_are_known():
    clip = hypothesis("sat red now", reference="set red", probabilities=[0.4, 0.9, None])
    assert clip.judged == [(0.4, False), (0.9, True)]
    assert clip.doubt == pytest.approx(0.35)
    one_word = replace(clip, hypothesis="it's red now", normaliser="whisper")
    assert one_word.judged == []  # as it is scored by four words
    assert hypothesis("", probabilities=[]).judged == []


def test_the_report_draws_how_sure_it_is_and_underlines_doubt(tmp_path):
    clips = [hypothesis("sat red", reference="set red", probabilities=[0.2, 0.9])]
    html = report(tmp_path, results(CLEAN), clips)
    assert "How sure, and how right" in html
    assert html.count('class="pair wrong unsure"') == 1


def test_the_report_is_one_file_that_needs_no_network(html):
    assert not re.search(r"https?:|//|<link|<script|<img|@import|url\((?!#)", html)
    # Two elastic curves, one noise and two plots of error types
    assert html.count("<svg") == html.count("</svg>") == 5
    assert 'babble 0 dB</th><td class="group">12.0<' in html


def test_the_reports_svg_names_nothing_twice(html):
    names = re.findall(r' id="([^"]+)"', html)
    names = [name for name in names if not name.startswith("DejaVu")]  # glyphs may repeat
    assert len(names) == len(set(names)) > 0


def test_the_report_follows_the_pages_colours(html):
    assert "currentColor" in html
    assert not re.search(r"#010203|#000000|#ffffff|(fill|stroke): (black|white)", html)


def test_the_report_labels_each_bar_with_its_total(tmp_path, monkeypatch):
    from omni_avsr.measure import plots

    texts = []
    as_svg = plots.as_svg

    def noted(figure, caption):
        if "substitutions" in caption:
            (axes,) = figure.axes
            texts.extend(text.get_text() for text in axes.texts)
        return as_svg(figure, caption)

    monkeypatch.setattr(plots, "as_svg", noted)
    clips = [hypothesis("sat red now"), hypothesis("set red")]
    report(tmp_path, [result_of(clips, **FACTS)], clips)
    assert texts == ["50.0"]  # one substitution and one insertion in four words


def test_the_report_shows_the_worst_clips_escaped(tmp_path):
    clips = []
    for i in range(7):
        clips.append(hypothesis(f"set red{' x' * i}", id=f"<i>{i}</i>", confidence=0.25))
    clips.append(hypothesis("<script>alert(1)</script> & more & words", id="spk/1"))
    html = report(tmp_path, results(CLEAN), clips, "<b>T</b>", ["a < b"])
    assert "spk/1 · errors 5 · words 2" in html
    assert "<span>&lt;script&gt;alert(1)&lt;/script&gt;</span>" in html
    assert "&lt;i&gt;6&lt;/i&gt; · errors 6 · words 2 · confidence 0.25" in html
    assert "&lt;i&gt;2&lt;/i&gt;" not in html  # five clips, not more
    assert not re.search(r"<script|<b>|<i>", html)
    assert "<title>&lt;b&gt;T&lt;/b&gt;</title>" in html
    assert "<p>a &lt; b</p>" in html
    assert "runs/a&lt;b&gt;" in html


def test_the_report_of_a_single_result_can_be_drawn(tmp_path):
    html = report(tmp_path, [result(VSR, 0.0)], [hypothesis(route=VSR)])
    assert html.count("<svg") == 2  # nothing to compare noises with
    assert "All 1 clips are right." in html


def test_the_worst_clips_are_of_the_quietest_condition_at_the_finest_rates(tmp_path):
    quiet = hypothesis("set bed", id="quiet")
    loud = hypothesis("x", id="loud", condition=Condition(20, "babble"))
    coarse = hypothesis("y", Route(Task.ASR, 16), id="coarse")
    html = report(tmp_path, results(CLEAN), [loud, coarse, quiet])
    assert "<h3>ASR (4), clean</h3>" in html
    assert "quiet ·" in html
    assert "loud ·" not in html
    assert "coarse ·" not in html


def test_the_report_draws_each_noise_with_odd_names(tmp_path):
    odd = r"a$\b{$<"
    other = "--><b>"
    measured = results(CLEAN, Condition(5, odd), Condition(0, odd), Condition(0, other))
    html = report(tmp_path, measured, [])
    assert html.count(r"a$\b{$&lt;: WER at each") == 2
    assert html.count("--&gt;&lt;b&gt;: WER at each") == 2
    assert "<b>" not in html


def test_vsr_is_drawn_under_noise_that_it_cannot_hear():
    cells = grid([result(VSR, 0.2), result(ASR, 0.1), result(AVSR, 0.3, BABBLE)])
    assert [wer_in(cells, BABBLE, route) for route in (ASR, VSR, AVSR)] == [None, 20, 30]


def test_the_same_results_give_the_same_report(tmp_path):
    pages = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pages.append(report(tmp_path / name, results(CLEAN), []))
    assert pages[0] == pages[1]
