"""Weight files with one key spoiled, and what must hold: converted rightly, or refused."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from omni_avsr.convert.official import convert_official
from omni_avsr.errors import InputError
from tests.support.official import AS_PUBLISHED, official_state

State = dict[str, object]


def _with_nan(weight: Tensor) -> Tensor:
    spoiled = weight.clone()
    spoiled.view(-1)[-1] = torch.nan
    return spoiled


def _transposed(weight: Tensor) -> Tensor:
    """The weight with its first and last axes exchanged, unless no shape would show it."""
    if weight.dim() < 2 or weight.shape[0] == weight.shape[-1]:
        return weight
    return weight.transpose(0, -1).contiguous()


MUTATIONS: dict[str, Callable[[Tensor], object]] = {
    "None": lambda _: None,
    "a list": lambda weight: weight.tolist(),
    "a dictionary": lambda weight: {"weight": weight},
    "0-d": lambda weight: weight.flatten()[0].clone(),
    "whole numbers": lambda weight: weight.to(torch.int32),
    "truth values": lambda weight: weight > 0,
    "complex": lambda weight: weight.to(torch.complex64),
    "half precision": lambda weight: weight.half(),
    "double precision": lambda weight: weight.double(),
    "flat": lambda weight: weight.flatten().clone(),
    "one dimension more": lambda weight: weight[None],
    "transposed": lambda weight: _transposed(weight),
    "longer": lambda weight: torch.cat([weight, weight]) if weight.dim() else weight,
    "empty": lambda weight: weight.flatten()[:0],
    "sparse": lambda weight: weight.to_sparse() if weight.dim() else weight,
    "without values": lambda weight: weight.to("meta"),
    "NaN": lambda weight: _with_nan(weight) if weight.is_floating_point() else weight,
}


WAYS = (*MUTATIONS, "missing", "renamed")
# What sizes are read from may be named as the one that is right, and the others as wrong.
MAY_BLAME_OTHERS = ("longer", "transposed")


def spoiled(state: dict[str, Tensor], name: str, way: str) -> State:
    """The state with a key spoiled."""
    others: State = {key: weight for key, weight in state.items() if key != name}
    if way == "missing":
        return others
    if way == "renamed":
        return {**others, f"{name}x": state[name]}
    return {**others, name: MUTATIONS[way](state[name])}


class Trial:
    """Converts spoiled states of a small published Omni-AVSR-ST."""

    def __init__(self, state: dict[str, Tensor], convert: Callable[..., object], folder: Path):
        self.state = state
        self.convert = convert
        self.folder = folder
        torch.save(state, folder / "whole.pth")
        convert(folder / "whole.pth", folder / "expected")

    def __call__(self, name: str, way: str) -> bool:
        """Whether a spoiled state is converted; then rightly, to the precision of a half.

        Otherwise an InputError names file and key, and nothing is written.
        """
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        file = work / "spoiled.pth"
        torch.save(spoiled(self.state, name, way), file)
        message = self._refusal(file, work / "out")
        if message is None:
            self._compare(work / "out")
            return True
        assert list(work.iterdir()) == [file], "something was written"
        assert str(file) in message, message
        assert name in message or way in MAY_BLAME_OTHERS, message
        return False

    def _refusal(self, file: Path, out: Path) -> str | None:
        try:
            self.convert(file, out)
        except InputError as error:
            return str(error)
        return None

    def _compare(self, out: Path) -> None:
        for path in (self.folder / "expected").rglob("*.safetensors"):
            wanted = load_file(path)
            found = load_file(out / path.relative_to(self.folder / "expected"))
            assert found.keys() == wanted.keys(), path
            for key, weight in wanted.items():
                torch.testing.assert_close(found[key], weight, rtol=1e-3, atol=1e-3, msg=key)


def trial(make, tower_folders, folder: Path) -> Trial:
    """The trial of the tests' small towers."""
    model, processor = make(**AS_PUBLISHED)
    heads = folder / "heads.json"
    heads.write_text(json.dumps({"encoder_attention_heads": 2, "layer_norm_first": True}))
    convert = partial(
        convert_official,
        llm=tower_folders["llm"],
        audio_encoder=tower_folders["audio"],
        audio_rates=(4, 16),
        video_rates=(2, 5),
        video_config=heads,
    )
    return Trial(official_state(model, processor), convert, folder)
