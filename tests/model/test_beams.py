"""Beam search, compared with exhaustive search and with greedy decoding in the plain way."""

import itertools

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, BloomConfig, Gemma3TextConfig, Lfm2Config

from omni_avsr.model.beams import Generated, Search, SharedSteps, without_loop
from omni_avsr.model.towers import build
from tests.support.towers import llm_config, spread

VOCABULARY = 8
EOS, PAD = 3, 0
WORDS = [token for token in range(VOCABULARY) if token != EOS]


@pytest.fixture(scope="module")
def llm():
    torch.manual_seed(3)
    config = llm_config()
    config.vocab_size = VOCABULARY
    model = build("llm", config, torch.float32)
    spread(model)
    return model


def prefixes(llm, *lengths):
    """Random prefixes (B, L, D) and their mask (B, L), padded on the left."""
    generator = torch.Generator().manual_seed(5)
    embeds = [torch.randn(n, llm.config.hidden_size, generator=generator) for n in lengths]
    masks = [torch.ones(n, dtype=torch.long) for n in lengths]
    return (
        pad_sequence(embeds, batch_first=True, padding_side="left"),
        pad_sequence(masks, batch_first=True, padding_side="left"),
    )


def beam_search(*arguments):
    return Search(*arguments).finish()


def score(llm, embeds, ids):
    """The log-probability per token of ids after one prefix (1, L, D)."""
    answer = llm.get_input_embeddings()(torch.tensor([ids]))
    logits = llm(inputs_embeds=torch.cat([embeds, answer], 1)).logits
    predictions = logits[0, embeds.shape[1] - 1 : -1].log_softmax(-1)  # (len(ids), vocabulary)
    return predictions[range(len(ids)), ids].sum().item() / len(ids)


def assert_ids(padded, expected):
    """The row of a batch holds the expected ids, and only padding after them."""
    assert padded[: len(expected)].tolist() == expected
    assert (padded[len(expected) :] == PAD).all()


@torch.no_grad()
def test_a_wide_search_finds_the_best_of_all_sequences(llm):
    embeds, mask = prefixes(llm, 5)
    sequences = [list(words) for words in itertools.product(WORDS, repeat=3)]
    for length in range(3):
        for words in itertools.product(WORDS, repeat=length):
            sequences.append([*words, EOS])
    best = max(sequences, key=lambda ids: score(llm, embeds, ids))
    ids = beam_search(llm, embeds, mask, 4, 3, EOS, PAD).ids
    assert ids[0].tolist() == best


@torch.no_grad()
def test_one_beam_is_greedy_decoding(llm):
    embeds, mask = prefixes(llm, 6)
    expected: list[int] = []
    while len(expected) < 10 and EOS not in expected:
        answer = llm.get_input_embeddings()(torch.tensor([expected], dtype=torch.long))
        logits = llm(inputs_embeds=torch.cat([embeds, answer], 1)).logits
        expected.append(logits[0, -1].argmax().item())
    ids = beam_search(llm, embeds, mask, 1, 10, EOS, PAD).ids
    assert ids[0].tolist() == expected


def found_alone(llm, row, valid, beams, limit, pad=PAD):
    """What is found after one prefix (L, D) by itself, without its padding."""
    clip = row[valid][None]
    no_padding = torch.ones(1, clip.shape[1]).long()
    return beam_search(llm, clip, no_padding, beams, limit, EOS, pad)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_clip_is_decoded_alike_in_a_batch_and_by_itself(llm, beams):
    embeds, mask = prefixes(llm, 40, 4, 17, 9)
    together = beam_search(llm, embeds, mask, beams, 12, EOS, PAD).ids
    lengths = set()
    for row, valid, ids in zip(embeds, mask.bool(), together, strict=True):
        by_itself = found_alone(llm, row, valid, beams, 12).ids
        assert_ids(ids, by_itself[0].tolist())
        lengths.add(by_itself.shape[1])
    assert len(lengths) > 1  # some clips end earlier than others


@pytest.mark.parametrize("pad", [PAD, EOS])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("limits", [(2, 12, 5, 1), (12, 1, 1, 30), (1, 1, 1, 1)])
def test_each_clip_has_its_own_limit_whatever_it_is_batched_with(llm, limits, beams, pad):
    embeds, mask = prefixes(llm, 40, 4, 17, 9)
    found = beam_search(llm, embeds, mask, beams, limits, EOS, pad)
    for place, limit in enumerate(limits):
        alone = found_alone(llm, embeds[place], mask[place].bool(), beams, limit, pad)
        ids = alone.ids[0]
        assert torch.equal(found.ids[place, : len(ids)], ids)
        assert (found.ids[place, len(ids) :] == pad).all()
        torch.testing.assert_close(found.scores[place], alone.scores[0])
        has_ended = EOS in ids.tolist()
        assert found.is_cut[place] == alone.is_cut[0] == (not has_ended)
        assert has_ended or len(ids) == limit
    assert found.is_cut.any()


@pytest.mark.parametrize("beams", [1, 3])
def test_hypotheses_that_share_a_row_get_what_a_row_for_each_gives(llm, monkeypatch, beams):
    embeds, mask = prefixes(llm, 40, 4, 17, 9)
    assert SharedSteps.supports(llm)
    ids, scores, *_ = beam_search(llm, embeds, mask, beams, 12, EOS, PAD)
    monkeypatch.setattr(SharedSteps, "supports", lambda _: False)
    monkeypatch.setattr(SharedSteps, "advance", None)
    other_ids, other_scores, *_ = beam_search(llm, embeds, mask, beams, 12, EOS, PAD)
    assert torch.equal(ids, other_ids)
    torch.testing.assert_close(scores, other_scores)


@pytest.mark.parametrize("beams", [1, 3])
def test_clips_that_join_a_search_get_what_they_get_by_themselves(llm, beams):
    embeds, mask = prefixes(llm, 40, 4, 17, 9, 25, 3)
    limits = (12, 5, 30, 12, 20, 12)
    expected = beam_search(llm, embeds, mask, beams, limits, EOS, PAD)
    found = {}

    def begun(first, last):
        longest = int(mask[first:last].sum(1).max())
        search = Search(
            llm,
            embeds[first:last, -longest:],
            mask[first:last, -longest:],
            beams,
            limits[first:last],
            EOS,
            PAD,
            first,
        )
        take(search)
        return search

    def take(search):
        clips, done = search.step()
        for clip, *of_clip in zip(clips, *done, strict=True):
            found[clip] = of_clip

    search = begun(0, 2)
    for first, last in ((2, 3), (3, 6)):
        take(search)
        take(search)
        assert search.clips
        search.join(begun(first, last))
    while search.clips:
        take(search)
    assert sorted(found) == list(range(6))
    for clip, (ids, score_, is_cut, sums) in found.items():
        length = min(len(ids), expected.ids.shape[1])
        assert torch.equal(ids[:length], expected.ids[clip, :length])
        assert (ids[length:] == PAD).all()
        torch.testing.assert_close(score_, expected.scores[clip])
        assert is_cut == expected.is_cut[clip]
        length = min(length, int((expected.ids[clip] != PAD).sum()))
        torch.testing.assert_close(sums[:length], expected.sums[clip, :length])


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
OTHERS = [
    Gemma3TextConfig(
        **SIZES,
        head_dim=8,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    Lfm2Config(**SIZES, layer_types=["conv", "full_attention", "conv"]),
    BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
]


@torch.no_grad()
@pytest.mark.parametrize("config", OTHERS, ids=lambda config: config.model_type)
def test_llms_with_other_layers_or_positions_score_what_one_pass_gives_them(config):
    """The sliding window is shorter than the prefix."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    spread(model)
    assert not SharedSteps.supports(model)
    embeds, mask = prefixes(model, 11)
    found, scores, _, sums = beam_search(model, embeds, mask, 3, 8, EOS, PAD)
    ids = found[0].tolist()
    if EOS in ids:
        ids = ids[: ids.index(EOS) + 1]
    assert scores[0].item() == pytest.approx(score(model, embeds, ids), abs=1e-4)
    for length in range(1, 1 + len(ids)):
        expected = length * score(model, embeds, ids[:length])
        assert sums[0, length - 1].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([4, 5, 6, 7, 6, 7, 6, 7], [4, 5, 6, 7]),
        ([4, 6, 7, 6, 7, 6, 7, 6], [4, 6, 7]),  # cut within the loop
        ([5, 5, 5, 5, 5], [5]),
        ([4, 5, 4, 5], [4, 5, 4, 5]),  # twice may be meant
        ([5, 5, 5, 6, 7], [5, 5, 5, 6, 7]),  # not at the end
        ([4, 5, 6, 7, 4, 6, 5], [4, 5, 6, 7, 4, 6, 5]),
        ([4], [4]),
    ],
)
def test_what_the_end_repeats_stands_there_once(ids, kept):
    assert ids[: without_loop(ids)] == kept


def test_only_transcripts_that_were_cut_lose_their_loops():
    ids = torch.tensor([[6, 7, 6, 7, 6, 7], [5, 5, 5, 5, 5, EOS], [4, 4, 4, PAD, PAD, PAD]])
    found = Generated(ids, torch.zeros(3), torch.tensor([True, False, True]), torch.zeros(3, 6))
    left = found.without_loops(PAD).ids.tolist()
    assert left == [[6, 7, PAD, PAD, PAD, PAD], [5, 5, 5, 5, 5, EOS], [4, PAD, PAD, PAD, PAD, PAD]]
