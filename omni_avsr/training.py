"""Training: the step of every published method as one Lightning module, and `fit`, which runs it.

A step sums passes of the LLM, one per route (a task at its rates): three when rates are sampled, as many as there are
rates otherwise. The encoders run once a step, or, when they are frozen, once in all.
"""

import hashlib
import math
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy
import torch
from lightning.pytorch import callbacks, loggers
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from omni_avsr import text
from omni_avsr.data import augment, loading, manifest
from omni_avsr.data.toy import toy_corpus
from omni_avsr.model import OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor, Route
from omni_avsr.run import Report, counted, finish_run, refuse_taken, silent, start_run, write_whole
from omni_avsr.settings import TrainSettings
from omni_avsr.tasks import Task

EXPECTED = ".*(in eval mode|exists and is not empty|does not have many workers).*"  # what Lightning warns of


def routes(config: OmniAVSRConfig, mode: str, rng: numpy.random.Generator | None = None) -> list[Route]:
    """The passes of a step: every task at its fixed, all, or one sampled rate per modality (arXiv 2511.07253)."""
    if mode == "all":
        return config.routes()
    if mode == "sampled" and rng:
        return config.routes([int(rng.choice(config.audio_rates))], [int(rng.choice(config.video_rates))])
    return config.routes(config.audio_rates[:1], config.video_rates[:1])


class Training(lightning.LightningModule):
    """One step of any method; validation at every trained rate."""

    strict_loading = False  # checkpoints hold what was trained

    def __init__(self, model: OmniAVSR, processor: OmniAVSRProcessor, settings: TrainSettings):
        super().__init__()
        self.model, self.processor, self.settings = model, processor, settings
        self.started, self.clips, self.seconds = time.monotonic(), 0, 0.0  # since when, and how much was trained on

    def training_step(self, batch: dict[str, Any] | None, step: int) -> Tensor | None:
        if batch is None:
            return None
        features = self._features(batch)
        weights = self.settings.weights
        plan = routes(self.model.config, self.settings.step_rates, augment.generator(self.settings.seed, "rates", step))
        by_task: dict[str, list[Tensor]] = {}
        for task, audio_rate, video_rate in plan:
            by_task.setdefault(task, []).append(self._loss(batch, features, task, audio_rate, video_rate))
        losses = {task: torch.stack(values).mean() for task, values in by_task.items()}
        total = torch.stack([weights[Task(task)] * loss for task, loss in losses.items()]).mean()
        self._show(batch, losses)
        return total

    def _features(self, batch: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        return batch["features"] if "features" in batch else self.model.encode(**batch["media"])

    def _loss(self, batch, features, task: str, audio_rate: int | None, video_rate: int | None) -> Tensor:
        rates = self.model.config.choose(task, audio_rate, video_rate)
        tokens = self.processor.tokens(batch["media"], task, rates, batch["text"])
        tokens = {name: ids.to(self.device) for name, ids in tokens.items()}
        return self.model(**tokens, task=task, audio_rate=audio_rate, video_rate=video_rate, features=features).loss

    def _show(self, batch: dict[str, Any], losses: dict[str, Tensor]) -> None:
        self.clips, self.seconds = self.clips + len(batch["text"]), self.seconds + sum(batch["seconds"])
        elapsed = time.monotonic() - self.started
        shown: dict[str, Any] = {task: loss.detach() for task, loss in losses.items()}
        shown |= {"clips/s": self.clips / elapsed, "hours/hour": self.seconds / elapsed}
        self.log_dict(shown, prog_bar=True, batch_size=len(batch["text"]))

    def validation_step(self, batch: dict[str, Any] | None, _: int) -> None:
        if batch is None:
            return
        features = self._features(batch)
        for task, audio_rate, video_rate in routes(self.model.config, "all"):
            name = f"{task}({','.join(str(rate) for rate in (audio_rate, video_rate) if rate)})"
            loss = self._loss(batch, features, task, audio_rate, video_rate)
            rates = self.model.config.choose(task, audio_rate, video_rate)
            prefix = {
                n: ids.to(self.device) for n, ids in self.processor.tokens(batch["media"], task, rates, None).items()
            }
            ids = self.model.generate(
                **prefix, task=task, audio_rate=audio_rate, video_rate=video_rate, features=features
            )
            errors = text.total_errors(zip(batch["text"], self.processor.batch_decode(ids), strict=True))
            self.log(f"valid/loss/{name}", loss, batch_size=len(batch["text"]))
            self.log(f"valid/wer/{name}", errors.wer, batch_size=errors.words)
            self.log("valid/wer", errors.wer, batch_size=errors.words)

    def configure_optimizers(self) -> dict[str, Any]:
        trained = [w for w in self.model.parameters() if w.requires_grad]
        matrices, vectors = [w for w in trained if w.dim() > 1], [w for w in trained if w.dim() <= 1]
        assert len(matrices) + len(vectors) == len(trained)
        decay = self.settings.weight_decay
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        fused = self.device.type == "cuda"
        optimizer = torch.optim.AdamW(groups, lr=self.settings.lr, betas=(0.9, 0.98), fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        warmup, last = self.settings.warmup_steps, self.settings.max_steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, last - warmup))))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what was trained."""
        trained = {name for name, weight in self.named_parameters() if weight.requires_grad}
        checkpoint["state_dict"] = {n: w for n, w in checkpoint["state_dict"].items() if n in trained}


class Bar(callbacks.RichProgressBar):
    """Lightning's bar without what says nothing here: the number of the one epoch, and of the log's version."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"

    def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        shown = {name: value for name, value in super().get_metrics(*args, **kwargs).items() if name != "v_num"}
        return {n: f"{v:.3g}" if isinstance(v, float) else v for n, v in shown.items()}


class Batches:
    """The data of a training run: media, or features where frozen encoders have seen every copy of a clip before."""

    def __init__(self, model: OmniAVSR, processor: OmniAVSRProcessor, settings: TrainSettings, report: Report):
        self.model, self.processor, self.settings, self.report = model, processor, settings, report
        self.streams = model.config.streams(model.config.tasks)

    def training(self, clips: Sequence[manifest.Clip]) -> DataLoader:
        """Endless shuffled batches of augmented clips."""
        settings = self.settings
        dataset = loading.ClipDataset(clips, self._augmentation(clips), settings.seed, self.streams)
        lengths = [clip.frames for clip in clips]
        sampler = loading.EndlessBatches(lengths, settings.max_frames, settings.seed)
        data = self._kept(dataset, settings.cache_copies) if settings.cache_copies else dataset
        return self._loader(data, sampler)

    def validation(self, clips: Sequence[manifest.Clip]) -> DataLoader:
        """Each clip once, as it is."""
        batches = loading.buckets([clip.frames for clip in clips], self.settings.max_frames)
        return self._loader(
            loading.ClipDataset(clips, streams=self.streams), [[(index, 0) for index in batch] for batch in batches]
        )

    def _loader(self, dataset: Dataset, batches: Iterable[loading.Batch]) -> DataLoader:
        return DataLoader(dataset, batch_sampler=batches, collate_fn=self._collate, num_workers=self.settings.workers)

    def _augmentation(self, clips: Sequence[manifest.Clip]) -> loading.Augmentation:
        noise = numpy.zeros(1)
        if self.settings.noise_probability and "audio" in self.streams:
            noise = loading.babble_of(clips, augment.generator(self.settings.seed, "babble"))
        return loading.Augmentation(
            noise=noise,
            probability=self.settings.noise_probability,
            snrs=tuple(float(snr) for snr in self.settings.noise_snr.split(",")),
            audio_mask=self.settings.audio_mask,
            video_mask=self.settings.video_mask,
        )

    def _collate(self, clips: list[dict[str, Any] | None]) -> dict[str, Any] | None:
        kept = [clip for clip in clips if clip is not None]
        if not kept:
            return None
        batch = {name: [clip[name] for clip in kept] for name in ("keys", "text", "seconds")}
        if "features" not in kept[0]:
            return {
                **batch,
                "media": self.processor.media(loading.stream(kept, "audio"), loading.stream(kept, "video")),
            }
        names = [f"{modality}_lengths" for modality in self.streams]
        lengths = {name: torch.stack([clip[name] for clip in kept]) for name in names}
        return {**batch, "media": lengths, "features": _pad([clip["features"] for clip in kept])}

    def _kept(self, dataset: loading.ClipDataset, copies: int) -> "Cached":
        """The encoded copies, of the feature cache if it has them."""
        folder = self.settings.feature_cache
        if not folder:
            return self._cached(dataset, copies)
        settings, towers = self.settings, {k: t for k, t in self.model.config.towers.items() if k != "llm"}
        augmented = (settings.noise_probability, settings.noise_snr, settings.audio_mask, settings.video_mask)
        clips = [(str(clip.video.absolute()), clip.text) for clip in dataset.clips]
        key = repr((self.streams, towers, augmented, settings.seed, settings.max_frames, copies, clips))
        file = Path(folder) / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
        if file.is_file():
            return Cached(torch.load(file, weights_only=True))
        cached = self._cached(dataset, copies)
        write_whole(file, lambda part: torch.save(cached.copies, part))
        return cached

    @torch.no_grad()
    def _cached(self, dataset: loading.ClipDataset, copies: int) -> "Cached":
        """Every clip's features in so many augmented copies."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(device)
        buckets = loading.buckets([clip.frames for clip in dataset.clips], self.settings.max_frames)
        batches = [[(index, copy) for index in bucket] for copy in range(copies) for bucket in buckets]
        cached = Cached([{} for _ in range(copies)])
        for batch in counted(self._loader(dataset, batches), "Encoding clips", len(batches), self.report):
            if batch is not None:
                media = {name: values.to(device) for name, values in batch["media"].items()}
                cached.add(batch, self.model.encode(**media))
        return cached


class Cached(Dataset):
    """Features of augmented copies of each clip, in half precision; None for a clip that could not be read."""

    def __init__(self, copies: list[dict[int, dict[str, Any]]]):
        self.copies = copies

    def add(self, batch: dict[str, Any], features: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Keeps each clip of a batch under its index and copy."""
        for i, (index, copy) in enumerate(batch["keys"]):
            clip = {name: batch[name][i] for name in ("keys", "text", "seconds")}
            lengths = {f"{name}_lengths": batch["media"][f"{name}_lengths"][i] for name in features}
            own = {m: values[i, : lengths_of[i]].half().cpu() for m, (values, lengths_of) in features.items()}
            self.copies[copy][index] = {**clip, **lengths, "features": own}

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any] | None:
        index, epoch = key
        return self.copies[epoch % len(self.copies)].get(index)


def _pad(clips: Sequence[dict[str, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Features (T, D) of several clips as the model takes them: (B, T, D) and lengths (B,) for each modality."""
    rows = {modality: [clip[modality].float() for clip in clips] for modality in clips[0]}
    lengths = {modality: torch.tensor([len(row) for row in values]) for modality, values in rows.items()}
    return {m: (torch.nn.utils.rnn.pad_sequence(values, batch_first=True), lengths[m]) for m, values in rows.items()}


def fit(settings: TrainSettings, report: Report = silent) -> Path:
    """Trains as the settings say and returns the folder of the trained model, inside the run's folder."""
    refuse_taken(settings.out)
    torch.manual_seed(settings.seed)
    towers = {"audio": settings.audio_encoder, "video": settings.video_encoder, "llm": settings.llm}
    model = OmniAVSR.from_towers(**towers, **settings.model_settings())
    processor = OmniAVSRProcessor.of(model)
    train, valid = _clips(settings, report)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if settings.compile:
        model.compile_layers()
    data = Batches(model, processor, settings, report)
    batches = data.training(train), data.validation(valid)
    run = start_run(settings.out, settings)
    trainer = _trainer(settings, run)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=EXPECTED)
        training = Training(model, processor, settings)
        trainer.fit(training, *batches)
    best = trainer.checkpoint_callback.best_model_path if settings.valid_every else None
    if best:
        weights = torch.load(best, weights_only=True, map_location=model.device)["state_dict"]
        model.load_state_dict({**model.state_dict(), **{n.removeprefix("model."): w for n, w in weights.items()}})
    model.save_pretrained(run / "model")
    processor.save_pretrained(run / "model")
    spent = {"seconds": time.monotonic() - training.started, "clips": training.clips}
    finish_run(run, {**spent, "speech_seconds": training.seconds})
    return run / "model"


def _clips(settings: TrainSettings, report: Report) -> tuple[list[manifest.Clip], list[manifest.Clip]]:
    if (settings.data is None) != (settings.valid is None):
        raise ValueError("give both data and valid, or neither for the toy corpus")
    files: dict[str, Any] = {"train": settings.data, "valid": settings.valid, "test": settings.test}
    if settings.data is None:
        files = toy_corpus(settings.toy_world, settings.toy_clips, report)
    where = (settings.root, settings.format, settings.tokens)
    clips = {split: manifest.read(file, *where) for split, file in files.items() if file}
    if not settings.validate_on_test and {c.video for c in clips["valid"]} & {c.video for c in clips.get("test", [])}:
        raise ValueError(
            f"{files['valid']} validates on clips of the test file {files['test']}; --validate-on-test allows it"
        )
    if {c.video for c in clips["valid"]} == {c.video for c in clips["train"]}:
        raise ValueError(f"{files['valid']} holds the training clips")
    kept = loading.within_budget(clips["train"], settings.max_frames)
    return kept, loading.within_budget(clips["valid"], settings.max_frames)[: settings.valid_clips]


def _trainer(settings: TrainSettings, run: Path) -> lightning.Trainer:
    on_gpu = torch.cuda.is_available()
    every = settings.valid_every or settings.max_steps
    best = callbacks.ModelCheckpoint(run / "checkpoints", "best", monitor="valid/wer", save_last=True)
    newest = {"monitor": "step", "mode": "max", "save_top_k": settings.keep}
    latest = callbacks.ModelCheckpoint(run / "checkpoints", "{step}", **newest)
    logging_to = {
        "tensorboard": lambda: [loggers.TensorBoardLogger(run, name=None, version="logs")],
        "wandb": lambda: [loggers.WandbLogger(run.name, save_dir=run)],
    }.get(settings.logger, list)()
    return lightning.Trainer(
        max_steps=settings.max_steps,
        precision=settings.precision or ("bf16-mixed" if on_gpu else "32-true"),
        devices=settings.devices,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip,
        val_check_interval=min(every, settings.max_steps) * settings.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        logger=[loggers.CSVLogger(run, name=None, version=""), *logging_to] if settings.logger != "none" else [],
        callbacks=[best, *([latest] if settings.keep else []), Bar()],
        default_root_dir=run,
        enable_model_summary=False,
    )
