import io
import json
import re

import pytest
from rich.console import Console

from omni_avsr.measure.report import write_report
from omni_avsr.measure.results import (
    Condition,
    Hypothesis,
    Setting,
    finest,
    grid,
    result_row,
    table_one,
    tokens_per_second,
    worst,
    write_hypotheses,
    write_results,
)
from omni_avsr.tasks import VERSION, Task

FACTS = {
    "audio_seconds": 20.0,
    "decode_seconds": 1.5,
    "beams": 1,
    "seed": 3,
    "checkpoint": "runs/a<b>",
    "manifest": "test.csv",
}
SETTINGS = [  # not in the table's order
    ("avsr", 16, 5),
    ("vsr", None, 5),
    ("asr", 16, None),
    ("avsr", 4, 2),
    ("asr", 4, None),
    ("avsr", 16, 2),
    ("vsr", None, 2),
    ("avsr", 4, 5),
]
CONTRACT = (
    "task audio_rate video_rate snr noise wer wer_low wer_high cer words substitutions deletions insertions clips "
    "audio_seconds decode_seconds llm_tokens_per_second_of_speech beams normaliser seed checkpoint manifest"
)


def hypothesis(heard="set red", setting=("asr", 4, None), said="SET Red", **others):
    return Hypothesis(others.pop("id", "clip"), said, heard, *setting, **others)


def row(setting, wer=0.1, snr=None, noise=None, **others):
    measured = result_row([hypothesis(setting=setting, snr=snr, noise=noise)], **FACTS)
    return measured | {"wer": wer} | others


def rows(*conditions):
    """A row of each setting and condition; no two with one WER."""
    places = [(setting, condition) for condition in conditions for setting in SETTINGS]
    return [row(setting, wer=0.01 * i, snr=snr, noise=noise) for i, (setting, (snr, noise)) in enumerate(places)]


def printed(table, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The report of two conditions."""
    measured = rows((None, None), (0, "babble"))
    return report(tmp_path_factory.mktemp("report"), measured, [hypothesis("sat red")], "A title")


def report(tmp_path, *arguments, **options):
    write_report(tmp_path / "report.html", *arguments, **options)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    return (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("setting", "tokens"),
    [(("asr", 4, None), 12.5), (("asr", 16, None), 3.125), (("vsr", None, 5), 5), (("avsr", 4, 2), 25)],
)
def test_tokens_per_second_of_speech_are_those_of_the_used_streams(setting, tokens):
    assert tokens_per_second(*setting) == tokens


def test_a_task_without_its_rate_is_refused():
    with pytest.raises(ValueError, match="avsr needs a rate of 1 or more for video, not None"):
        tokens_per_second(Task.AVSR, 4, None)


def test_a_row_has_the_contracts_keys_and_sums():
    clips = [hypothesis(), hypothesis("set read now", ("asr", 4, None), "SET RED"), hypothesis("", said="a b c d")]
    measured = result_row(clips, **FACTS)
    assert list(measured) == CONTRACT.split()
    assert measured["words"] == 8
    assert (measured["substitutions"], measured["deletions"], measured["insertions"]) == (1, 4, 1)
    assert measured["wer"] == 6 / 8
    assert (measured["clips"], measured["normaliser"], measured["seed"]) == (3, "lower", 3)
    assert (measured["task"], measured["audio_rate"], measured["video_rate"]) == ("asr", 4, None)
    assert (measured["snr"], measured["noise"]) == (None, None)


def test_texts_are_kept_as_they_came_and_scored_normalised():
    clip = hypothesis("set  red", said="SET Red")
    assert (clip.reference, clip.hypothesis, clip.errors) == ("SET Red", "set  red", 0)
    assert clip.scored == ("set red", "set red")


def test_a_row_of_two_settings_or_of_none_is_refused():
    with pytest.raises(ValueError, match=r"ASR \(4\) clean; VSR \(2\) clean"):
        result_row([hypothesis(), hypothesis(setting=("vsr", None, 2))], **FACTS)
    with pytest.raises(ValueError, match="are of: none"):
        result_row([], **FACTS)


def test_a_row_without_an_snr_is_clean_whatever_noise_is_named():
    assert result_row([hypothesis(noise="babble")], **FACTS)["noise"] is None


def test_table_one_has_the_papers_layout():
    lines = printed(table_one(rows((0, "babble"), (None, None))))
    assert lines == [
        "│ ASR │ VSR │ AVSR",
        "WER % │ (4) (16) │ (2) (5) │ (4,2) (4,5) (16,2) (16,5)",
        "clean │ 12.0 10.0 │ 14.0 9.0 │ 11.0 15.0 13.0 8.0",
        "babble 0 dB │ 4.0 2.0 │ 6.0 1.0 │ 3.0 7.0 5.0 0.0",
    ]


def test_table_one_fits_a_terminal_of_80_columns():
    assert printed(table_one(rows((None, None), (-5, "babble"))), 80) == printed(
        table_one(rows((None, None), (-5, "babble"))), 200
    )


def test_table_one_shows_what_was_not_measured_as_a_dash():
    lines = printed(table_one([row(("asr", 3, None), 0.5), row(("vsr", None, 7), 1.234, 2.5, "[b]wind")]))
    assert lines[1] == "WER % │ (3) │ (7)"
    assert lines[2:] == ["clean │ 50.0 │ -", "[b]wind 2.5 dB │ - │ 123.4"]


def test_conditions_stand_from_clean_to_loud():
    conditions = [(-5, "babble"), (10, "white"), (None, None), (10, "babble"), (0, "white")]
    shown = [str(condition) for condition in grid(rows(*conditions)).conditions]
    assert shown == ["clean", "babble 10 dB", "babble -5 dB", "white 10 dB", "white 0 dB"]


def test_a_cell_claimed_twice_and_a_table_of_nothing_are_refused():
    with pytest.raises(ValueError, match=r"two rows for ASR \(4\), clean"):
        table_one([row(("asr", 4, None)), row(("asr", 4, None), seed=4)])
    with pytest.raises(ValueError, match="no results rows"):
        table_one([])


def test_the_finest_settings_have_the_most_tokens():
    settings = [Setting(Task(task), *rates) for task, *rates in SETTINGS]
    assert [str(setting) for setting in finest(settings)] == ["ASR (4)", "VSR (2)", "AVSR (4,2)"]
    lopsided = [Setting(Task.AVSR, 4, 25), Setting(Task.AVSR, 5, 2)]
    assert finest(lopsided) == [Setting(Task.AVSR, 5, 2)]


def test_the_worst_come_first_and_the_right_not_at_all():
    right, half, all_wrong = hypothesis(id="r"), hypothesis("set", id="h"), hypothesis("x y", id="w")
    longer = hypothesis("x y z v", said="a b c d", id="l")
    assert [h.id for h in worst([right, half, all_wrong, longer])] == ["l", "w", "h"]
    assert [h.id for h in worst([right, half, all_wrong, longer], n=1)] == ["l"]


def test_results_are_versioned_json_without_leftovers(tmp_path):
    measured = rows((None, None))
    write_results(tmp_path / "new" / "results.json", measured)
    write_results(tmp_path / "new" / "results.json", measured)
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == {"version": VERSION, "rows": measured}
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["results.json"]


def test_results_that_cannot_be_written_leave_the_old_file(tmp_path):
    (tmp_path / "results.json").write_text("old")
    with pytest.raises(ValueError, match="nan"):
        write_results(tmp_path / "results.json", [row(("asr", 4, None), float("nan"))])
    assert (tmp_path / "results.json").read_text() == "old"


def test_hypotheses_are_json_lines_of_the_contract(tmp_path):
    clips = [hypothesis("set réd\n", confidence=0.5), hypothesis(setting=("avsr", 4, 2), snr=0, noise="babble")]
    write_hypotheses(tmp_path / "h.jsonl", clips)
    lines = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    contract = {"id", "reference", "hypothesis", "task", "audio_rate", "video_rate", "confidence", "errors", "words"}
    assert all(set(line) == contract | {"snr", "noise"} for line in lines)
    assert (lines[0]["reference"], lines[0]["hypothesis"]) == ("SET Red", "set réd\n")
    assert (lines[0]["errors"], lines[0]["words"], lines[0]["confidence"]) == (1, 2, 0.5)
    assert (lines[1]["errors"], lines[1]["snr"], lines[1]["confidence"]) == (0, 0, None)


def test_the_report_is_one_file_that_needs_no_network(html):
    assert not re.search(r"https?:|//|<link|<script|<img|@import|url\((?!#)", html)
    assert html.count("<svg") == html.count("</svg>") == 5  # twice the elastic curve and the error types, the noise
    assert 'babble 0 dB</th><td class="group">12.0<' in html


def test_the_reports_svg_names_nothing_twice(html):
    names = [name for name in re.findall(r' id="([^"]+)"', html) if not name.startswith("DejaVu")]  # glyphs may repeat
    assert len(names) == len(set(names)) > 0


def test_the_report_follows_the_pages_colours(html):
    assert "currentColor" in html
    assert not re.search(r"#010203|#000000|#ffffff|(fill|stroke): (black|white)", html)


def test_the_report_shows_the_worst_clip_escaped(tmp_path):
    clips = [
        hypothesis(f"set red{' x' * i}", id=f"<i>{i}</i>", said=said, confidence=0.25)
        for i, said in enumerate(["SET RED"] * 7)
    ]
    clips.append(hypothesis("<script>alert(1)</script> & more & words", id="spk/1"))
    html = report(tmp_path, rows((None, None)), clips, "<b>T</b>", ["a < b"])
    assert "spk/1 · errors 5 · words 2" in html
    assert "<span>&lt;script&gt;alert(1)&lt;/script&gt;</span>" in html
    assert "&lt;i&gt;6&lt;/i&gt; · errors 6 · words 2 · confidence 0.25" in html
    assert "&lt;i&gt;2&lt;/i&gt;" not in html  # five clips, not more
    assert not re.search(r"<script|<b>|<i>", html)
    assert "<p>a &lt; b</p>" in html
    assert "runs/a&lt;b&gt;" in html


def test_the_report_of_a_single_row_can_be_drawn(tmp_path):
    html = report(tmp_path, [row(("vsr", None, 5), 0.0)], [hypothesis(setting=("vsr", None, 5))], "One")
    assert html.count("<svg") == 2  # nothing to compare noises with
    assert "All 1 clips are right." in html


def test_the_reports_worst_clips_are_of_the_quietest_condition_at_the_finest_rates(tmp_path):
    quiet, loud = hypothesis("set bed", id="quiet"), hypothesis("x", id="loud", snr=20, noise="babble")
    coarse = hypothesis("y", ("asr", 16, None), id="coarse")
    html = report(tmp_path, rows((None, None)), [loud, coarse, quiet], "T")
    assert "<h3>ASR (4), clean</h3>" in html
    assert "quiet ·" in html
    assert "loud ·" not in html
    assert "coarse ·" not in html


def test_the_report_draws_each_noise_with_odd_names(tmp_path):
    html = report(tmp_path, rows((None, None), (5, r"a$\b{$<"), (0, r"a$\b{$<"), (0, "--><b>")), [], "Noises")
    assert html.count(r"a$\b{$&lt;: WER at each") == html.count("--&gt;&lt;b&gt;: WER at each") == 2
    assert "<b>" not in html


def test_vsr_is_drawn_under_noise_that_it_cannot_hear():
    from omni_avsr.measure.report import _heard

    cells = grid([row(("vsr", None, 2), 0.2), row(("asr", 4, None), 0.1), row(("avsr", 4, 2), 0.3, 0, "babble")])
    noisy, (asr, vsr, avsr) = Condition(0, "babble"), cells.settings
    assert [_heard(cells, noisy, setting) for setting in (asr, vsr, avsr)] == [None, 20, 30]


def test_labels_of_near_points_do_not_overlap():
    from omni_avsr.measure.report import _place_labels, new_axes

    figure, axes = new_axes(3.3)
    points = [(12 + 0.3 * i, 2 + 0.05 * i, f"(16,{i})", "blue") for i in range(5)]
    axes.plot([x for x, *_ in points], [y for _, y, *_ in points])
    axes.set(xlim=(0, 30), ylim=(0, 40))
    _place_labels(figure, axes, points)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5
    assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))


def test_the_same_results_give_the_same_report(tmp_path):
    write_report(tmp_path / "a.html", rows((None, None)), [], "T")
    write_report(tmp_path / "b.html", rows((None, None)), [], "T")
    assert (tmp_path / "a.html").read_text() == (tmp_path / "b.html").read_text()
