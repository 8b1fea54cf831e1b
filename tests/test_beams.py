import itertools

import pytest
import torch
from conftest import llm_config, spread

from omni_avsr.model.beams import beam_search
from omni_avsr.model.towers import build

EOS, PAD = 3, 0


@pytest.fixture(scope="module")
def llm():
    torch.manual_seed(3)
    config = llm_config()
    config.vocab_size = 8
    model = build("llm", config, torch.float32)
    spread(model)
    return model


def prefix(llm, *lengths):
    """Random prefixes, padded left."""
    generator = torch.Generator().manual_seed(5)
    embeds = [torch.randn(n, llm.config.hidden_size, generator=generator) for n in lengths]
    pad = {"batch_first": True, "padding_side": "left"}
    masks = [torch.ones(n, dtype=torch.long) for n in lengths]
    return (torch.nn.utils.rnn.pad_sequence(x, **pad) for x in (embeds, masks))


def score(llm, embeds, ids):
    """Log-probability per token of ids after a prefix."""
    answer = llm.get_input_embeddings()(torch.tensor([ids]))
    logits = llm(inputs_embeds=torch.cat([embeds, answer], 1)).logits[0, embeds.shape[1] - 1 : -1]
    return logits.log_softmax(-1)[range(len(ids)), ids].sum().item() / len(ids)


@torch.no_grad()
def test_a_wide_search_finds_the_best_of_all_sequences(llm):
    embeds, mask = prefix(llm, 5)
    ended = [[*s, EOS] for n in range(3) for s in itertools.product([i for i in range(8) if i != EOS], repeat=n)]
    running = [list(s) for s in itertools.product([i for i in range(8) if i != EOS], repeat=3)]
    best = max(ended + running, key=lambda ids: score(llm, embeds, ids))
    assert beam_search(llm, embeds, mask, 4, 3, EOS, PAD)[0][0].tolist() == best


@torch.no_grad()
def test_one_beam_is_greedy(llm):
    embeds, mask = prefix(llm, 6)
    expected: list[int] = []
    while len(expected) < 10 and expected[-1:] != [EOS]:
        answer = llm.get_input_embeddings()(torch.tensor([expected], dtype=torch.long))
        expected.append(llm(inputs_embeds=torch.cat([embeds, answer], 1)).logits[0, -1].argmax().item())
    assert beam_search(llm, embeds, mask, 1, 10, EOS, PAD)[0][0].tolist() == expected


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_gives_what_its_clips_give_alone(llm, beams):
    embeds, mask = prefix(llm, 40, 4, 17, 9)
    together, _ = beam_search(llm, embeds, mask, beams, 12, EOS, PAD)
    lengths = set()
    for row, valid, ids in zip(embeds, mask.bool(), together, strict=True):
        alone = beam_search(llm, row[valid][None], torch.ones(1, int(valid.sum())).long(), beams, 12, EOS, PAD)[0][0]
        lengths.add(len(alone))
        assert ids[: len(alone)].tolist() == alone.tolist()
        assert (ids[len(alone) :] == PAD).all()
    assert len(lengths) > 1  # clips that end early are among them


def test_what_a_sliding_window_does_not_hold_is_refused(llm, monkeypatch):
    monkeypatch.setattr(llm.config, "sliding_window", 20, raising=False)
    beam_search(llm, *prefix(llm, 12, 9), 2, 8, EOS, PAD)
    with pytest.raises(ValueError, match="13 tokens and 8 new ones are more than the 20 that this LLM's"):
        beam_search(llm, *prefix(llm, 13), 2, 8, EOS, PAD)
