"""Which mask reaches the attention of each tower, as that decides which kernels a GPU can run.

Torch's flash kernel takes no mask. Its memory-efficient kernel takes one of any shape: True where
a query sees a key, or numbers of the queries' type. What neither takes, it computes step by step.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

from omni_avsr.model import adapters
from omni_avsr.model.beams import SharedSteps
from omni_avsr.tasks import Route, Task
from tests.support.towers import TEXTS, clips

AVSR = Route(Task.AVSR, 4, 2)
PADDED, EVEN = (30, 12), (20, 20)  # video frames of two clips
FLASH_LIKE = "flash_attention_like"


@dataclass(frozen=True)
class Call:
    """What one call of scaled_dot_product_attention was given."""

    mask: Tensor | None
    is_causal: bool
    groups_heads: bool  # keys are not repeated for the queries that share them
    dtype: torch.dtype

    @property
    def kernel(self) -> str:
        """The best kernel of a GPU that takes it."""
        if self.mask is None:
            return "flash"
        if self.mask.dtype in (torch.bool, self.dtype):
            return "memory-efficient"
        return "none"


@pytest.fixture
def calls(monkeypatch):
    """The calls of scaled_dot_product_attention."""
    attention = F.scaled_dot_product_attention
    recorded = []

    def record(query, key, value, attn_mask=None, is_causal=False, enable_gqa=False, **options):
        recorded.append(Call(attn_mask, is_causal, enable_gqa, query.dtype))
        return attention(
            query, key, value, attn_mask, is_causal=is_causal, enable_gqa=enable_gqa, **options
        )

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    return recorded


@pytest.fixture
def small(make):
    model, processor = make()
    return model.eval(), processor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frames", [PADDED, EVEN])
def test_training_runs_the_llm_without_a_mask(make, calls, frames, dtype):
    model, processor = make(dtype=dtype)
    model.rows_together = True  # as on a GPU
    features = model.encode(processor.media(**clips(*frames)))
    calls.clear()
    model(processor.batch(features, AVSR, TEXTS[:2])).loss.backward()
    assert len(calls) == 4  # layers
    assert all(call.is_causal and call.groups_heads for call in calls)
    assert {call.kernel for call in calls} == {"flash"}


@pytest.mark.parametrize(
    ("frames", "kernel"), [(PADDED, "memory-efficient"), (EVEN, "flash"), ((15,), "flash")]
)
@pytest.mark.parametrize("modality", ["audio", "video"])
def test_encoders_have_a_mask_only_where_there_is_padding(make, calls, frames, kernel, modality):
    model, processor = make()
    media = processor.media(**{"audio": None, "video": None, modality: clips(*frames)[modality]})
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("omni_avsr.model.compress.SIMILAR", 100)  # one batch, as on a GPU
        model.encode(media)
    assert len(calls) == 2  # layers
    assert {call.kernel for call in calls} == {kernel}
    assert not any(call.is_causal for call in calls)


@pytest.mark.parametrize(
    ("frames", "beams", "prefix", "steps"),
    [
        (EVEN, 1, "flash", "flash"),
        (EVEN, 3, "flash", "memory-efficient"),
        (PADDED, 1, "memory-efficient", "memory-efficient"),
        (PADDED, 3, "memory-efficient", "memory-efficient"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoding_has_a_mask_for_padding_and_for_beams(
    make, calls, frames, beams, prefix, steps, dtype
):
    model, processor = make(dtype=dtype)
    model.eval()
    batch = processor.batch(model.encode(processor.media(**clips(*frames))), AVSR)
    calls.clear()
    model.generate(batch, beams, 3)
    first, later = calls[:4], calls[4:]
    assert {call.kernel for call in first} == {prefix}
    assert {call.kernel for call in later} == {steps}


def flash_like(module, query, key, value, attention_mask, scaling=None, is_causal=None, **_):
    """Attention that takes what flash-attention takes: no mask, or one of each key's padding."""
    queries, keys = query.shape[2], key.shape[2]
    causal = module.is_causal if is_causal is None else is_causal
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        seen = seen.tril(keys - queries)
    seen = seen[None, None]
    if attention_mask is not None:
        assert attention_mask.shape == (len(query), keys)
        seen = seen & attention_mask[:, None, None].bool()
    seen = seen | ~seen.any(-1, keepdim=True)  # padding sees something
    found = F.scaled_dot_product_attention(query, key, value, seen, scale=scaling, enable_gqa=True)
    return found.transpose(1, 2), None


@pytest.fixture
def use_flash():
    """Makes all towers of a model compute attention as flash-attention would."""
    AttentionInterface.register(FLASH_LIKE, flash_like)
    AttentionMaskInterface.register(FLASH_LIKE, flash_attention_mask)

    def use(model):
        towers = (model.audio_encoder, model.video_encoder, model.llm)
        for tower in towers:
            adapters.plain(tower).config._attn_implementation = FLASH_LIKE
            for module in tower.modules():
                if hasattr(module, "config"):
                    module.config._attn_implementation = FLASH_LIKE

    return use


@pytest.mark.parametrize("frames", [PADDED, EVEN])
def test_flash_attention_takes_our_masks_and_gives_the_same(small, use_flash, frames):
    model, processor = small
    media = processor.media(**clips(*frames))
    batch = processor.batch(media, AVSR, TEXTS[:2])
    prefix = processor.batch(media, AVSR)
    with torch.no_grad():
        loss = model(batch).loss
        ids = model.generate(prefix, 3, 6)
        use_flash(model)
        assert not SharedSteps.supports(adapters.plain(model.llm))
        torch.testing.assert_close(model(batch).loss, loss, atol=1e-4, rtol=1e-4)
        assert torch.equal(model.generate(prefix, 3, 6), ids)
