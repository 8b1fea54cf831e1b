import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, Gemma3TextConfig, Lfm2Config

from omni_avsr.model.beams import SharedSteps, beam_search
from omni_avsr.model.towers import build
from tests.support.towers import llm_config, spread

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


@pytest.mark.parametrize("beams", [1, 3])
def test_one_row_for_all_hypotheses_gives_what_a_row_for_each_does(llm, monkeypatch, beams):
    embeds, mask = prefix(llm, 40, 4, 17, 9)
    ids, scores = beam_search(llm, embeds, mask, beams, 12, EOS, PAD)
    monkeypatch.setattr(SharedSteps, "fits", lambda _: False)
    others, other_scores = beam_search(llm, embeds, mask, beams, 12, EOS, PAD)
    assert torch.equal(ids, others)
    torch.testing.assert_close(scores, other_scores)


SIZES = {
    "vocab_size": 8, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
OTHERS = [
    Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
    ),
    Lfm2Config(**SIZES, layer_types=["conv", "full_attention", "conv"]),
    BloomConfig(vocab_size=8, hidden_size=32, n_layer=2, n_head=4),
]


@torch.no_grad()
@pytest.mark.parametrize("config", OTHERS, ids=lambda config: config.model_type)
def test_other_kinds_of_layers_and_positions_are_searched_as_they_are(config):
    """Ids score what the model gives them at once; the sliding window is shorter than the prefix."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    spread(model)
    embeds, mask = prefix(model, 11)
    found, scores = beam_search(model, embeds, mask, 3, 8, EOS, PAD)
    ids = found[0].tolist()
    ids = ids[: ids.index(EOS) + 1] if EOS in ids else ids
    assert scores[0].item() == pytest.approx(score(model, embeds, ids), abs=1e-4)
