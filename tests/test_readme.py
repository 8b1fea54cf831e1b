"""The README's Python runs as it stands, on a folder of the name that it uses."""

import re
from pathlib import Path

import numpy as np
import pytest

from omni_avsr.media import streams as media

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_readmes_python_runs(make, tower_folders, tmp_path, monkeypatch, capsys, block):
    model, processor = make()
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("my-model")
    processor.save_pretrained("my-model")
    noise = np.random.default_rng(0).integers(256, size=(25, 96, 96, 1), dtype=np.uint8)
    media.write_video("talk.mp4", noise[..., 0], noise.ravel()[:16_000].astype(np.int16) * 50)
    for kind, hub_id in {
        "audio": "openai/whisper-medium.en",
        "video": "avhubert-large",
        "llm": "meta-llama/Llama-3.2-1B",
    }.items():
        block = block.replace(hub_id, tower_folders[kind])
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_readme_shows_the_model_in_ten_lines():
    assert any("from_pretrained" in b and ".loss" in b and len(b.strip().splitlines()) <= 10 for b in BLOCKS)


def test_every_folder_and_module_of_the_readmes_picture_exists():
    picture = re.search(r"```\n(cli\.py.*?)```", README, re.DOTALL)[1]
    root, parent, missing = Path(__file__).parents[1], "", []
    for line in picture.splitlines():
        name = line.split()[0]
        parent = parent if line.startswith(" ") else ""
        if not (root / parent / name).exists():
            missing.append(name)
        if not line.startswith(" ") and name.endswith("/"):
            parent = name
    assert missing == []
