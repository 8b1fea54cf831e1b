"""Characters are found in the frames where they are named, whatever a clip is batched with."""

import itertools

import numpy as np
import pytest
import torch

from omni_avsr import OmniAVSR
from omni_avsr.model.aligner import BLANK, Aligner, characters_of, spans
from omni_avsr.model.batch import Features

CLASSES = 4


def best_path(log_probs, classes):
    """The likeliest of all paths that say these classes, by trying them."""

    def said(path):
        runs = [one for one, _ in itertools.groupby(path)]
        return [one for one in runs if one != BLANK]

    paths = itertools.product(range(CLASSES), repeat=len(log_probs))
    fitting = [path for path in paths if said(path) == list(classes)]
    scores = [sum(log_probs[range(len(path)), path]) for path in fitting]
    return fitting[int(np.argmax(scores))] if fitting else None


@pytest.mark.parametrize("classes", [[1], [1, 2], [2, 2], [3, 1, 3], [1, 1, 2], [2, 2, 2, 2]])
@pytest.mark.parametrize("seed", range(5))
def test_characters_are_where_the_likeliest_path_has_them(classes, seed):
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(CLASSES), 6))
    expected = best_path(log_probs, classes)
    found = spans(log_probs, classes)
    if expected is None:  # four equal characters need seven frames
        assert found is None
        return
    rebuilt = np.full(6, BLANK)
    for (first, end), character in zip(found, classes, strict=True):
        rebuilt[first:end] = character
    assert tuple(rebuilt) == expected


def test_without_characters_there_is_nothing_to_find():
    assert spans(np.zeros((3, CLASSES)), []) == []


def test_a_text_that_fills_all_frames_is_found_and_a_longer_one_is_not():
    log_probs = np.log(np.full((3, CLASSES), 1 / CLASSES))
    assert spans(log_probs, [1, 2, 3]) == [(0, 1), (1, 2), (2, 3)]
    assert spans(log_probs, [1, 2, 3, 1]) is None


def test_characters_are_letters_marks_and_digits_in_lower_case():
    assert (
        characters_of(["It's 5, \u00d1!", "\u0434\u0430\u0301"]) == "5ist\u00f1\u0301\u0430\u0434"
    )


@pytest.fixture
def aligner():
    torch.manual_seed(0)
    return Aligner({"audio": 6, "video": 4}, "abc")


def features(*frames):
    """Random features of clips of these lengths in video frames, padded with noise."""
    longest = max(frames)
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(len(frames), longest, 4, generator=generator)
    audio = torch.randn(len(frames), 2 * longest, 6, generator=generator)
    lengths = torch.tensor(frames)
    return Features(audio, 2 * lengths, video, lengths)


def test_a_clip_is_named_alike_in_a_batch_and_by_itself(aligner):
    together = features(9, 4)
    named = aligner.named(together)
    assert [rows.shape for rows in named] == [(18, 4), (8, 4)]
    (alone,) = aligner.named(together.of_clips(1, 2))
    np.testing.assert_allclose(named[1], alone, atol=1e-6)


def test_the_voice_and_the_lips_are_heard_together_even_if_one_ends_early(aligner):
    both = features(5)
    audio = Features(both.audio[:, :9], torch.tensor([9]))
    video = Features(video=both.video, video_lengths=both.video_lengths)
    (heard,), (seen,) = aligner.named(audio), aligner.named(video)
    together = Features(audio.audio, audio.audio_lengths, video.video, video.video_lengths)
    (named,) = aligner.named(together)
    assert len(seen) == 10
    np.testing.assert_allclose(named, heard + seen[:9], atol=1e-6)


def test_only_the_aligner_learns_from_its_loss(aligner):
    given = features(9, 4)
    given.audio.requires_grad_()
    aligner.loss(given, ["ab c", "A"]).backward()
    assert given.audio.grad is None
    assert all(weight.grad is not None for weight in aligner.parameters())


@pytest.mark.parametrize("text", ["", "xyz", "abcabcabcabcabc"])
def test_a_text_that_cannot_be_found_does_not_spoil_the_loss(aligner, text):
    loss = aligner.loss(features(4, 4), ["ab", text])
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in aligner.parameters())


def test_the_aligner_learns_to_find_what_is_said():
    torch.manual_seed(0)
    aligner = Aligner({"audio": 3}, "abc")
    sounds = torch.eye(3).repeat_interleave(8, 0)[None]  # a, then b, then c, of eight frames each
    given = Features(sounds, torch.tensor([24]))
    optimizer = torch.optim.Adam(aligner.parameters(), 0.01)
    for _ in range(60):
        loss = aligner.loss(given, ["abc"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (named,) = aligner.named(given)
    for place, (first, end) in enumerate(spans(named, aligner.classes_of("abc"))):
        assert 8 * place - 2 <= first < end <= 8 * place + 10


def test_new_characters_leave_what_is_known(aligner):
    wider = Aligner({"audio": 6, "video": 4}, "0abc\u00f1")
    wider.learn_from(aligner)
    given = features(9)
    known = [0, 2, 3, 4]  # of the five characters, and the blank
    for name, head in wider.heads.items():
        values, lengths = given.of(name)
        expected = aligner.heads[name](values, lengths)
        found = head(values, lengths)[..., known].log_softmax(-1)  # among those that both know
        torch.testing.assert_close(found, expected)


def test_it_is_saved_with_its_model_and_kept_when_a_task_is_merged(make, tmp_path):
    model, _ = make()
    assert model.aligner is None
    model.add_aligner("abc")
    model.save_pretrained(tmp_path, full=True)
    loaded = OmniAVSR.from_pretrained(tmp_path)
    assert loaded.aligner.characters == "abc"
    merged = loaded.merge(loaded.config.choose("vsr"))
    assert list(merged.aligner.heads) == ["video"]
    for name, weight in merged.aligner.state_dict().items():
        assert torch.equal(weight, model.aligner.state_dict()[name])


def test_where_nobody_speaks_no_character_of_a_text_is_heard():
    aligner = Aligner({}, "ab")
    silent = np.log(np.tile([0.8, 0.1, 0.1], (40, 1)))
    said = silent.copy()
    said[10:12, 1] = said[20, 2] = 0.0
    assert aligner.heard(said, "ab") == 1
    assert aligner.heard(said, 4 * "ab") == 0.25
    assert aligner.heard(silent, "ab") == 0
    assert aligner.heard(silent, "xyz") == 1  # that cannot be told
