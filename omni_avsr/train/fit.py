"""Training: the step of every published method as one Lightning module, and `fit`, which runs it.

A step sums passes of the LLM, one per route (a task at its rates): three when rates are sampled, as many as there are
rates otherwise. The encoders run once a step, or, when they are frozen, once in all.
"""

import json
import logging
import math
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy
import torch
from lightning.pytorch import callbacks, loggers
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch import Tensor
from torch.distributed import all_gather_object, all_reduce, get_world_size, is_initialized
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from omni_avsr import text
from omni_avsr.data import augment, loading, manifest
from omni_avsr.model import OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor, Route
from omni_avsr.run import Report, finish_run, first_process, locked, silent, start_run, write_text
from omni_avsr.settings import TrainSettings
from omni_avsr.tasks import CROP_SIZE, SAMPLE_RATE, VIDEO_FPS, Task
from omni_avsr.toy import toy_corpus
from omni_avsr.train import resume as resuming
from omni_avsr.train import shard as sharding
from omni_avsr.train.batches import Batches

log = logging.getLogger(__name__)

EXPECTED = (
    ".*(in eval mode|exists and is not empty|does not have many workers|resuming from a checkpoint|sync_dist=True).*"
)
BAD_STEPS = {"16-mixed": 20}  # in a row, while its scale comes down from 2 ** 16; else 3


def routes(config: OmniAVSRConfig, mode: str, rng: numpy.random.Generator | None = None) -> list[Route]:
    """The passes of a step: every task at its fixed, all, or one sampled rate per modality (arXiv 2511.07253)."""
    if mode == "all":
        return config.routes()
    if mode == "sampled" and rng:
        return config.routes([int(rng.choice(config.audio_rates))], [int(rng.choice(config.video_rates))])
    return config.routes(config.audio_rates[:1], config.video_rates[:1])


def route_name(task: str, audio_rate: int | None, video_rate: int | None) -> str:
    """A task at its rates, as the metrics name it: avsr(4,2)."""
    return f"{task}({','.join(str(rate) for rate in (audio_rate, video_rate) if rate)})"


@dataclass
class Spent:
    """How far a run has come, in its lives before this one too."""

    batches: int = 0
    clips: int = 0
    speech: float = 0.0  # seconds of it
    unreadable: dict[str, None] = field(default_factory=dict)  # ids
    bad: int = 0  # steps that were left out
    bad_in_a_row: int = 0
    before: float = 0.0  # seconds of the lives before
    started: float = field(default_factory=time.monotonic)

    @property
    def time(self) -> float:
        """Seconds of training."""
        return self.before + time.monotonic() - self.started


class Training(lightning.LightningModule):
    """One step of any method; validation at every trained rate."""

    strict_loading = False  # checkpoints hold what was trained

    def __init__(self, model: OmniAVSR, processor: OmniAVSRProcessor, settings: TrainSettings, data: Batches):
        super().__init__()
        self.model, self.processor, self.settings, self.data = model, processor, settings, data
        self.spent = Spent()
        self.random: dict[str, Tensor] = {}  # the generators' states of a run that goes on
        names = [route_name(*route) for route in model.config.routes()]
        keys = ["wer", *(f"{what}/{name}" for what in ("loss", "wer") for name in names)]
        self.validated: Any = torch.nn.ModuleDict({key: MeanMetric() for key in keys})
        self.batch: dict[str, Any] = {}  # the one at hand, for who asks what went wrong
        self.clips: list[str] = []  # of the optimizer step at hand

    def configure_model(self) -> None:
        if self.settings.strategy == "fsdp":
            sharding.share_out(self, self.model, self.trainer.strategy.root_device.type)

    def train_dataloader(self) -> DataLoader:
        return self.data.training(self.spent.batches, self.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> DataLoader:
        if self.settings.strategy == "fsdp":  # each takes as many steps to decode as its clips are long
            return self.data.validation()
        return self.data.validation(self.global_rank, self.trainer.world_size)

    def training_step(self, batch: dict[str, Any], step: int) -> Tensor | None:
        self.batch = batch
        self.clips += [self.data.clips[index].id for index, _ in batch["keys"]]
        share = self._count(batch)
        if not batch["text"]:
            if not is_initialized():
                return None
            batch = self._silence()
        features = self._features(batch)
        weights = self.settings.weights
        plan = routes(self.model.config, self.settings.step_rates, augment.generator(self.settings.seed, "rates", step))
        by_task: dict[str, list[Tensor]] = {}
        for task, audio_rate, video_rate in plan:
            by_task.setdefault(task, []).append(self._loss(batch, features, task, audio_rate, video_rate))
        losses = {task: torch.stack(values).mean() for task, values in by_task.items()}
        total = torch.stack([weights[Task(task)] * loss for task, loss in losses.items()]).mean()
        if share:
            self._show(batch, losses)
        return share * total

    def _silence(self) -> dict[str, Any]:
        """What a process without clips computes, for nothing: the others wait for its part."""
        streams = self.model.config.streams(self.model.config.tasks)
        audio, video = torch.zeros(SAMPLE_RATE), torch.zeros(VIDEO_FPS, CROP_SIZE, CROP_SIZE)  # a second
        media = self.processor.media([audio] if "audio" in streams else None, [video] if "video" in streams else None)
        return {"media": {name: values.to(self.device) for name, values in media.items()}, "text": [""]}

    def _features(self, batch: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        return batch["features"] if "features" in batch else self.model.encode(**batch["media"])

    def _count(self, batch: dict[str, Any]) -> float:
        """Notes the batches of all processes; returns what turns their mean, which DDP takes, into one over tokens."""
        tokens = sum(len(ids) for ids in self.processor.answers(batch["text"]))
        facts, unreadable = [tokens, len(batch["text"]), sum(batch["seconds"])], [batch["unreadable"]]
        if is_initialized():
            of_all = torch.tensor(facts, dtype=torch.float32, device=self.device)
            all_reduce(of_all)
            facts, unreadable = of_all.tolist(), unreadable * get_world_size()
            all_gather_object(unreadable, batch["unreadable"])
        self.spent.clips, self.spent.speech = self.spent.clips + int(facts[1]), self.spent.speech + facts[2]
        self.spent.unreadable |= dict.fromkeys(name for names in unreadable for name in names)
        self._refuse_many_unreadable()
        return tokens * len(unreadable) / max(1.0, facts[0])

    def _refuse_many_unreadable(self) -> None:
        lost, clips = self.spent.unreadable, len(self.data.clips)
        if len(lost) > self.settings.max_unreadable * clips:
            raise ValueError(
                f"{len(lost)} of {clips} clips cannot be read, more than --max-unreadable "
                f"{self.settings.max_unreadable:g}: {', '.join(lost)}"
            )

    def _loss(self, batch, features, task: str, audio_rate: int | None, video_rate: int | None) -> Tensor:
        rates = self.model.config.choose(task, audio_rate, video_rate)
        tokens = self.processor.tokens(batch["media"], task, rates, batch["text"])
        tokens = {name: ids.to(self.device) for name, ids in tokens.items()}
        return self.model(**tokens, task=task, audio_rate=audio_rate, video_rate=video_rate, features=features).loss

    def _show(self, batch: dict[str, Any], losses: dict[str, Tensor]) -> None:
        shown: dict[str, Any] = {task: loss.detach() for task, loss in losses.items()}
        shown |= {"clips/s": self.spent.clips / self.spent.time, "hours/hour": self.spent.speech / self.spent.time}
        self.log_dict(shown, prog_bar=True, batch_size=len(batch["text"]))

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self.batch = batch
        if not batch["text"]:
            return
        features = self._features(batch)
        for task, audio_rate, video_rate in routes(self.model.config, "all"):
            name = route_name(task, audio_rate, video_rate)
            loss = self._loss(batch, features, task, audio_rate, video_rate)
            rates = self.model.config.choose(task, audio_rate, video_rate)
            prefix = {
                n: ids.to(self.device) for n, ids in self.processor.tokens(batch["media"], task, rates, None).items()
            }
            ids = self.model.generate(
                **prefix, task=task, audio_rate=audio_rate, video_rate=video_rate, features=features
            )
            errors = text.total_errors(zip(batch["text"], self.processor.batch_decode(ids), strict=True))
            self.validated[f"loss/{name}"].update(loss, len(batch["text"]))
            for key in (f"wer/{name}", "wer"):
                self.validated[key].update(errors.wer, errors.words)

    def on_validation_epoch_end(self) -> None:
        for key, mean in self.validated.items():  # over all processes
            self.log(f"valid/{key}", mean.compute())
            mean.reset()
        unreadable, bad = len(self.spent.unreadable), self.spent.bad
        if self.trainer.is_global_zero and (unreadable or bad):
            log.warning("step %d: %d clips unreadable, %d steps left out so far", self.global_step, unreadable, bad)

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

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips; a step whose gradients are not finite is left out, and some of them in a row end the run."""
        trained = [weight for group in optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.settings.clip or math.inf)
        clips, self.clips = self.clips, []
        if norm.isfinite():
            self.spent.bad_in_a_row = 0
            return
        optimizer.zero_grad()
        if is_initialized():
            everywhere = [clips] * get_world_size()
            all_gather_object(everywhere, clips)
            clips = [name for names in everywhere for name in names]
        self.spent.bad, self.spent.bad_in_a_row = self.spent.bad + 1, self.spent.bad_in_a_row + 1
        log.warning("step %d left out: its gradients are not finite; clips %s", self.global_step, ", ".join(clips))
        most = BAD_STEPS.get(self.trainer.precision, 3)
        if self.spent.bad_in_a_row == most:
            file = Path(self.settings.out) / "bad-batch.json"
            write_text(file, json.dumps(clips, indent=1) + "\n")
            raise ValueError(f"{most} steps in a row without finite gradients; the clips of the last: {file}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what was trained, and where the run stands."""
        trained = {name for name, weight in self.named_parameters() if weight.requires_grad}
        checkpoint["state_dict"] = {n: w for n, w in checkpoint["state_dict"].items() if n in trained}
        self.spent.batches = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        checkpoint["spent"] = {**vars(self.spent), "started": None, "before": self.spent.time}
        checkpoint["processes"] = self.trainer.world_size
        checkpoint["random"] = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            checkpoint["random"]["cuda"] = torch.cuda.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on from there."""
        if checkpoint["processes"] != self.trainer.world_size:
            raise ValueError(f"this run has {checkpoint['processes']} processes, not {self.trainer.world_size}")
        self.spent = Spent(**{**checkpoint["spent"], "started": time.monotonic()})
        self.random = checkpoint["random"]

    def on_train_start(self) -> None:
        if self.random:
            torch.set_rng_state(self.random["cpu"])
        if "cuda" in self.random:
            torch.cuda.set_rng_state(self.random["cuda"])


class Bar(callbacks.RichProgressBar):
    """Lightning's bar without what says nothing here: the number of the one epoch, and of the log's version."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"

    def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        shown = {name: value for name, value in super().get_metrics(*args, **kwargs).items() if name != "v_num"}
        return {n: f"{v:.3g}" if isinstance(v, float) else v for n, v in shown.items()}


def fit(settings: TrainSettings, report: Report = silent) -> Path:
    """Trains as the settings say and returns the folder of the trained model, inside the run's folder.

    A run that was cut off goes on from its last checkpoint.
    """
    if not first_process():
        return _fit(settings, report, resuming.last(settings))
    with locked(Path(settings.out)):
        return _fit(settings, report, resuming.starting_point(settings))


def _fit(settings: TrainSettings, report: Report, checkpoint: Path | None) -> Path:
    torch.manual_seed(settings.seed)
    towers = {"audio": settings.audio_encoder, "video": settings.video_encoder, "llm": settings.llm}
    model = OmniAVSR.from_towers(**towers, **settings.model_settings())
    processor = OmniAVSRProcessor.of(model)
    train, valid = _clips(settings, report)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if settings.compile:
        model.compile_layers()
    model.train()  # which Lightning leaves to us: without it no layer is recomputed
    data = Batches(model, processor, settings, report)
    data.prepare(train, valid)
    run = start_run(settings.out, settings, checkpoint) if first_process() else Path(settings.out)
    trainer = _trainer(settings, run)
    training = Training(model, processor, settings, data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=EXPECTED)
        _run(trainer, training, checkpoint)
    best = trainer.checkpoint_callback.best_model_path if settings.valid_every else None
    if best:
        weights = torch.load(best, weights_only=True, map_location=model.device)["state_dict"]
        trained = {name.removeprefix("model."): weight for name, weight in weights.items()}
        other = model.load_state_dict(trained, strict=False).unexpected_keys  # what was frozen is not in it
        assert not other, other
    if trainer.is_global_zero:
        _finish(run, training)
    return run / "model"


def _run(trainer: lightning.Trainer, training: Training, checkpoint: Path | None) -> None:
    if checkpoint and trainer.is_global_zero:
        log.warning("going on from %s", checkpoint)
        for logger in trainer.loggers[:1]:
            resuming.go_on_with(logger, checkpoint)
    try:
        with resuming.signals():
            trainer.fit(training, ckpt_path=checkpoint)
    except torch.OutOfMemoryError as error:
        seconds = training.batch.get("seconds") or [0.0]
        raise ValueError(
            f"out of memory in a batch of {len(seconds)} clips, the longest of {round(max(seconds) * VIDEO_FPS)} video "
            f"frames: lower --max-frames, now {training.settings.max_frames}, or set --gradient-checkpointing"
        ) from error


def _finish(run: Path, training: Training) -> None:
    """Writes the model, and what it took; there is nothing more to go on from."""
    training.model.save_pretrained(run / "model")
    training.processor.save_pretrained(run / "model")
    spent = training.spent
    if spent.unreadable:
        log.warning("%d clips could not be read: %s", len(spent.unreadable), ", ".join(spent.unreadable))
    facts = {"seconds": spent.time, "clips": spent.clips, "speech_seconds": spent.speech}
    finish_run(run, {**facts, "unreadable": list(spent.unreadable), "steps_left_out": spent.bad})
    for checkpoint in resuming.checkpoints(run / "checkpoints"):
        checkpoint.unlink()


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


def _strategy(settings: TrainSettings) -> str:
    """Lightning's: with several processes DDP, to which the projectors of rates that a step leaves out are no news."""
    devices = str(max(1, torch.cuda.device_count())) if settings.devices == "auto" else settings.devices
    alone = settings.strategy == "auto" and devices == "1" and settings.nodes == 1
    return "auto" if alone else "ddp_find_unused_parameters_true"


def _trainer(settings: TrainSettings, run: Path) -> lightning.Trainer:
    on_gpu = torch.cuda.is_available()
    every = settings.valid_every or settings.max_steps
    again = {"enable_version_counter": False}  # a run that goes on may write a file again
    best = callbacks.ModelCheckpoint(run / "checkpoints", "best", monitor="valid/wer", **again)
    newest = {"monitor": "step", "mode": "max", "save_top_k": settings.keep}
    latest = callbacks.ModelCheckpoint(run / "checkpoints", "{step}", **newest, **again)
    logging_to = {
        "tensorboard": lambda: [loggers.TensorBoardLogger(run, name=None, version="logs")],
        "wandb": lambda: [loggers.WandbLogger(run.name, save_dir=run)],
    }.get(settings.logger, list)()
    validates = min(every, settings.max_steps) * settings.accumulate
    slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()  # torchrun may run inside of SLURM
    keeper = resuming.Keeper(run / "checkpoints", settings.save_every, validates)
    return lightning.Trainer(
        max_steps=settings.max_steps,
        precision=settings.precision or ("bf16-mixed" if on_gpu else "32-true"),
        devices=settings.devices,
        accumulate_grad_batches=settings.accumulate,
        num_nodes=settings.nodes,
        strategy=_strategy(settings),
        plugins=[resuming.Whole(), *([SLURMEnvironment(auto_requeue=False)] if slurm else [])],
        use_distributed_sampler=False,
        val_check_interval=validates,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        logger=[loggers.CSVLogger(run, name=None, version=""), *logging_to] if settings.logger != "none" else [],
        callbacks=[best, *([latest] if settings.keep else []), keeper, Bar()],
        default_root_dir=run,
        enable_model_summary=False,
    )
