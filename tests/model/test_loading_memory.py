"""What loading, merging and decoding hold in memory beside the model itself.

Files are mapped: their pages are no copies, and the kernel drops them when memory is short.
"""

import gc
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig, WhisperConfig
from transformers import WhisperForConditionalGeneration as Whisper

from omni_avsr.errors import InputError
from omni_avsr.model import adapters
from omni_avsr.model.towers import build
from tests.support.towers import clips

MIB = 2**20
SLACK = 12 * MIB  # for libraries that are loaded meanwhile
LLM = LlamaConfig(
    hidden_size=512,
    intermediate_size=2048,
    num_hidden_layers=4,
    num_attention_heads=8,
    vocab_size=16_000,
    tie_word_embeddings=False,
)
WHISPER = WhisperConfig(
    d_model=256,
    encoder_layers=4,
    encoder_attention_heads=4,
    encoder_ffn_dim=1024,
    decoder_layers=4,
    decoder_attention_heads=4,
)


def write(folder: Path, make: Callable[[], nn.Module]) -> Path:
    """Writes a model whose weights are zeros in float32."""
    with torch.device("meta"):
        model = make()
    model.to_empty(device="cpu")
    for weight in model.parameters():
        weight.detach().zero_()
    model.tie_weights()
    model.save_pretrained(folder)
    return folder


def bytes_of(model: nn.Module) -> int:
    """The bytes of its weights."""
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def resident(kind: str) -> int:
    """The bytes of this process that are pages of files, RssFile, or no such pages, RssAnon."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition(f"{kind}:")[2].split()[0])


class Peak:
    """The most resident memory of a kind above that at the start, looked up every millisecond."""

    def __init__(self, kind: str):
        self.kind = kind

    def __enter__(self) -> "Peak":
        gc.collect()
        self.before = self.most = resident(self.kind)
        self.ended = Event()
        self.watcher = Thread(target=self._watch)
        self.watcher.start()
        return self

    def _watch(self) -> None:
        while not self.ended.wait(0.001):
            self.most = max(self.most, resident(self.kind))

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.watcher.join()
        self.most = max(self.most, resident(self.kind))

    @property
    def bytes(self) -> int:
        """How far it was above the start."""
        return self.most - self.before


def test_an_llm_is_read_into_its_type_one_tensor_at_a_time(tmp_path):
    folder = write(tmp_path, lambda: AutoModelForCausalLM.from_config(LLM))
    with Peak("RssAnon") as peak:
        llm = build("llm", folder, torch.bfloat16)
    size = bytes_of(llm)
    assert peak.bytes < 1.2 * size, f"{peak.bytes / MIB:.0f} MiB for {size / MIB:.0f}"


def test_only_the_encoder_of_a_whisper_is_read(tmp_path):
    folder = write(tmp_path, lambda: Whisper(WHISPER))
    with Peak("RssFile") as peak:
        encoder = build("audio", folder, torch.bfloat16)
    in_file = 2 * bytes_of(encoder)
    assert peak.bytes < in_file + SLACK, f"{peak.bytes / MIB:.0f} MiB for {in_file / MIB:.0f}"


@pytest.mark.parametrize("kind", ["audio", "video", "llm"])
def test_a_tower_that_lacks_weights_is_refused(kind, tower_folders, tmp_path):
    folder = Path(tower_folders[kind])
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    weights = load_file(folder / "model.safetensors")
    lost = max(weights, key=lambda name: weights[name].numel())
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"lacks 1 weights, such as {lost}"):
        build(kind, tmp_path, torch.float32)


def test_merging_copies_only_the_weights_that_it_changes(make):
    model, _ = make()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    merged = model.merge(model.config.choose("avsr"))
    ours = adapters.plain_state_dict(model.llm)
    copied = set()
    for name, weight in merged.llm.state_dict().items():
        if weight.data_ptr() != ours[name].data_ptr():
            copied.add(name.rpartition(".self_attn.")[2])
    assert copied == {"q_proj.weight", "v_proj.weight"}
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]), name


class LargeProducts(TorchDispatchMode):
    """Notes the sizes of batched matrix products, whose factors the CPU copies."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, function, types, given=(), options=None):
        if function is torch.ops.aten.bmm.default:
            self.largest = max(self.largest, given[1].numel())
        return function(*given, **(options or {}))


def test_decoding_does_not_copy_the_head(make):
    model, processor = make()
    media = processor.media(**clips(10, 12))
    batch = processor.batch(model.encode(media), model.config.choose("avsr"))
    with LargeProducts() as products:
        model.generate(batch, 3, 4)
    head = adapters.plain(model.llm).get_output_embeddings().weight
    assert products.largest < head.numel()
