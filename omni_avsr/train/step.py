"""The training step of every published method, as one Lightning module.

A step averages the losses of several passes of the LLM, one per route: one per task when rates are
fixed or sampled, and all routes when all rates are trained. The encoders run once per step; with
cached features their frozen layers have run before the training begins.
"""

import json
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed import all_reduce, is_initialized
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from omni_avsr.data.seed import generator
from omni_avsr.errors import InputError
from omni_avsr.files import write_text
from omni_avsr.model import Features, Media, OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor
from omni_avsr.model.precision import chosen_dtype
from omni_avsr.settings import TrainSettings
from omni_avsr.tasks import CROP_SIZE, SAMPLE_RATE, VIDEO_FPS, Route, Task
from omni_avsr.text import total_errors
from omni_avsr.train import resume, shard
from omni_avsr.train.batches import Batches, TrainingBatch
from omni_avsr.train.processes import flattened, gathered

log = logging.getLogger(__name__)

MAX_BAD_STEPS = 3  # consecutive steps with non-finite gradients that end a run
# 16-mixed needs more patience while its loss scale comes down from 2 ** 16
MAX_BAD_STEPS_OF_PRECISION = {"16-mixed": 20}


def routes_of_step(
    config: OmniAVSRConfig, rates: str, rng: np.random.Generator | None = None
) -> list[Route]:
    """The passes of a step: every task at its fixed rates, at all rates, or at sampled ones.

    Sampling draws one rate per modality (arXiv 2511.07253).
    """
    if rates == "all":
        return config.routes()
    if rates == "sampled" and rng:
        audio_rate = int(rng.choice(config.audio_rates))
        video_rate = int(rng.choice(config.video_rates))
        return config.routes([audio_rate], [video_rate])
    return config.routes(config.audio_rates[:1], config.video_rates[:1])


@dataclass
class Spent:
    """How far a run has come, including its time before it was resumed."""

    batches: int = 0
    clips: int = 0
    speech: float = 0.0  # seconds
    unreadable: dict[str, None] = field(default_factory=dict)  # ids, as an ordered set
    bad: int = 0  # steps that were skipped
    bad_in_a_row: int = 0
    before: float = 0.0  # seconds of training before the run was resumed
    started: float = field(default_factory=time.monotonic)

    @property
    def time(self) -> float:
        """Seconds of training."""
        return self.before + time.monotonic() - self.started


class Training(lightning.LightningModule):
    """One step of any method, and validation at every trained rate."""

    strict_loading = False  # checkpoints hold only what was trained

    def __init__(
        self,
        model: OmniAVSR,
        processor: OmniAVSRProcessor,
        settings: TrainSettings,
        data: Batches,
    ):
        super().__init__()
        self.model = model
        self.processor = processor
        self.settings = settings
        self.data = data
        self.spent = Spent()
        self.random: dict[str, Tensor] = {}  # states of the generators of a resumed run
        self.batch: TrainingBatch | None = None  # the current one, for error messages
        self.clips: list[str] = []  # ids of the current optimizer step
        self.tokens: list[float] = []  # of each batch of the current optimizer step
        keys = ["wer", "cut"]  # the share of transcripts that reached their limit
        for route in model.config.routes():
            keys += [f"loss/{route.key}", f"wer/{route.key}"]
        # What the current validation has measured
        self.validated: Any = nn.ModuleDict({key: MeanMetric() for key in keys})

    def configure_model(self) -> None:
        if self.settings.strategy == "fsdp":
            device = self.trainer.strategy.root_device
            dtype = chosen_dtype(self.settings.dtype, device.type)
            shard.shard_llm(self, self.model, device, dtype)

    def train_dataloader(self) -> DataLoader:
        with resume.ended_by_signals():
            self.data.encode()
        self.spent.started = time.monotonic()  # encoding is no training
        return self.data.training(self.spent.batches, self.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> DataLoader:
        if self.settings.strategy == "fsdp":  # layers are gathered: all decode the same clips
            return self.data.validation()
        return self.data.validation(self.global_rank, self.trainer.world_size)

    # Training

    def training_step(self, batch: TrainingBatch, step: int) -> Tensor | None:
        self.batch = batch
        self.clips += batch.ids
        tokens = sum(len(answer) for answer in self.processor.answers(batch.texts))
        totals = self._add_up(batch, tokens)
        self._note(totals)
        self.tokens.append(totals.tokens)
        if not batch.texts:
            if not is_initialized():
                return None
            # A batch that weighs nothing, as DDP's other processes wait for this one's gradients
            batch = self._silence()
        features = self._features(batch)
        losses = self._losses(features, batch.texts, step)
        weights = self.settings.weights
        weighted = [weights[task] * loss for task, loss in losses.items()]
        if tokens:
            self._show(losses, len(batch.texts))
        # DDP averages over processes; weighted by its tokens, each batch counts by its length.
        # Those of the step's first batch are the unit until the tokens of all are known
        share = tokens * totals.processes / max(1.0, self.tokens[0])
        aligner_loss = self._aligner_loss(features, batch.texts, tokens)
        return share * (sum(weighted) / max(1, len(weighted)) + aligner_loss)

    def _add_up(self, batch: TrainingBatch, tokens: int) -> "Totals":
        """Sums over the batches of all processes."""
        facts = [float(tokens), float(len(batch.texts)), sum(batch.seconds)]
        if is_initialized():
            of_all = torch.tensor(facts, dtype=torch.float32, device=self.device)
            all_reduce(of_all)
            facts = of_all.tolist()
        unreadable = gathered(batch.unreadable)
        return Totals(facts[0], int(facts[1]), facts[2], flattened(unreadable), len(unreadable))

    def _note(self, totals: "Totals") -> None:
        """Adds a step to the run's totals; ends the run if too many clips are unreadable."""
        self.spent.clips += totals.clips
        self.spent.speech += totals.seconds
        self.spent.unreadable |= dict.fromkeys(totals.unreadable)
        unreadable = self.spent.unreadable
        clips = len(self.data.clips)
        share = self.settings.max_unreadable
        if len(unreadable) > share * clips:
            raise InputError(
                f"{len(unreadable)} of {clips} clips cannot be read, more than "
                f"--max-unreadable {share:g}: {', '.join(unreadable)}"
            )

    def _silence(self) -> TrainingBatch:
        """One second of silence and blank video, for a process whose clips are all unreadable."""
        modalities = self.model.config.streams
        audio = [torch.zeros(SAMPLE_RATE)] if "audio" in modalities else None
        video = [torch.zeros(VIDEO_FPS, CROP_SIZE, CROP_SIZE)] if "video" in modalities else None
        media = self.processor.media(audio, video, training=True)
        return TrainingBatch(texts=[""], media=media).to(self.device)

    def _features(self, batch: TrainingBatch) -> Features:
        if batch.features is not None:
            return self.model.encode_rest(batch.features)
        return self.model.encode(batch.media or Media())

    def _losses(self, features: Features, texts: Sequence[str], step: int) -> dict[Task, Tensor]:
        """The loss of each task: the mean over its routes in this step."""
        if self.settings.aligner == "only":
            return {}
        rng = generator(self.settings.seed, "rates", step)
        of_routes: dict[Task, list[Tensor]] = {}
        for route in routes_of_step(self.model.config, self.settings.step_rates, rng):
            loss = self._loss(features, route, texts)
            of_routes.setdefault(route.task, []).append(loss)
        return {task: torch.stack(losses).mean() for task, losses in of_routes.items()}

    def _aligner_loss(self, features: Features, texts: Sequence[str], tokens: int) -> Tensor:
        """The loss of the aligner per token, if there is one."""
        aligner = self.model.aligner
        if aligner is None or self.settings.aligner == "no":
            return torch.zeros((), device=self.device)
        loss = aligner.loss(features, texts) / max(1, tokens)
        self.log("aligner", loss.detach(), batch_size=len(texts))
        return loss

    def _loss(self, features: Features, route: Route, texts: Sequence[str]) -> Tensor:
        batch = self.processor.batch(features, route, texts).to(self.device)
        return self.model(batch).loss

    def _show(self, losses: dict[Task, Tensor], clips: int) -> None:
        shown = {str(task): loss.detach() for task, loss in losses.items()}
        speeds = {
            "clips/s": self.spent.clips / self.spent.time,
            "hours/hour": self.spent.speech / self.spent.time,
        }
        for name, speed in speeds.items():
            # Lightning would copy a number to the GPU, which the CPU has to wait for
            shown[name] = torch.full((), speed, device=self.device)
        self.log_dict(shown, prog_bar=True, batch_size=clips)

    # Validation

    def validation_step(self, batch: TrainingBatch, _: int) -> None:
        self.batch = batch
        if not batch.texts:
            return
        features = self._features(batch)
        for route in self.model.config.routes():
            loss = self._loss(features, route, batch.texts)
            prefix = self.processor.batch(features, route).to(self.device)
            # Compiled, decoding would take two more graphs of each layer for each set of adapters
            with torch.compiler.set_stance("force_eager"):
                found = self.model.generate_with_scores(
                    prefix, max_new_tokens=self.settings.max_new_tokens
                )
            said_once = found.without_loops(self.processor.config.pad_token_id)
            transcripts = self.processor.batch_decode(said_once.ids)
            errors = total_errors(zip(batch.texts, transcripts, strict=True))
            self.validated[f"loss/{route.key}"].update(loss, len(batch.texts))
            self.validated[f"wer/{route.key}"].update(errors.wer, errors.words)
            self.validated["wer"].update(errors.wer, errors.words)
            self.validated["cut"].update(found.is_cut.float())

    def on_validation_epoch_end(self) -> None:
        for key, mean in self.validated.items():  # over all processes
            self.log(f"valid/{key}", mean.compute())
            mean.reset()
        unreadable = len(self.spent.unreadable)
        skipped = self.spent.bad
        if self.trainer.is_global_zero and (unreadable or skipped):
            log.warning(
                "step %d: %d clips unreadable and %d steps skipped so far",
                self.global_step,
                unreadable,
                skipped,
            )

    def on_validation_start(self) -> None:
        if self.global_step >= self.settings.max_steps and self.trainer.is_global_zero:
            self.save_model()  # before the last validation, which may fail

    def save_model(self) -> None:
        """Writes the model as it is now to the run's folder."""
        folder = self.settings.out / "model"
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    # Optimizer

    def configure_optimizers(self) -> dict[str, object]:
        settings = self.settings
        groups = optimizer_groups(self.model.parameters(), settings.weight_decay)
        # A fused optimizer unscales gradients itself, which is after they are clipped
        fused = self.device.type == "cuda" and self.trainer.precision != "16-mixed"
        optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _learning_rate(self, step: int) -> float:
        """The learning rate as a fraction of its peak: a linear warm-up, then a cosine to zero."""
        warmup = self.settings.warmup_steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        passed = (step - warmup) / max(1, self.settings.max_steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, passed)))

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, *_: object, **__: object
    ) -> None:
        """Clips the gradient; a step whose gradients are not finite is skipped."""
        trained = [weight for group in optimizer.param_groups for weight in group["params"]]
        self._weight_batches_by_tokens(trained)
        norm = self._clipped(trained)
        clips = self.clips
        self.clips = []
        if norm.isfinite():
            self.spent.bad_in_a_row = 0
            return
        optimizer.zero_grad()
        self._note_bad_step(flattened(gathered(clips)))

    def _clipped(self, trained: Sequence[nn.Parameter]) -> Tensor:
        """Clips the gradient, and that of the aligner by itself; returns the larger norm."""
        aligner = self.model.aligner
        apart = list(aligner.parameters()) if aligner is not None else []
        others = [weight for weight in trained if not any(weight is one for one in apart)]
        limit = self.settings.clip or math.inf
        parts = [part for part in (others, apart) if part]
        norms = [nn.utils.clip_grad_norm_(part, limit) for part in parts]
        return torch.stack(norms).max()

    def _weight_batches_by_tokens(self, trained: list[nn.Parameter]) -> None:
        """Makes the mean over the batches of a step, which Lightning has taken, one over tokens."""
        tokens, self.tokens = self.tokens, []
        if len(tokens) < 2:
            return
        scale = len(tokens) * max(1.0, tokens[0]) / max(1.0, sum(tokens))
        for weight in trained:
            if weight.grad is not None:
                weight.grad *= scale

    def _note_bad_step(self, clips: list[str]) -> None:
        """Counts a skipped step; too many in a row end the run, with the clips of the last."""
        self.spent.bad += 1
        self.spent.bad_in_a_row += 1
        names = ", ".join(clips)
        log.warning(
            "step %d skipped: its gradients are not finite; clips %s", self.global_step, names
        )
        most = MAX_BAD_STEPS_OF_PRECISION.get(self.trainer.precision, MAX_BAD_STEPS)
        if self.spent.bad_in_a_row == most:
            file = self.settings.out / "bad-batch.json"
            write_text(file, json.dumps(clips, indent=1) + "\n")
            raise InputError(
                f"{most} steps in a row without finite gradients; {file} lists the clips of one"
            )

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keeps only what was trained, and adds how far the run has come."""
        trained = self._trained()
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: weights[name] for name in weights if name in trained}
        # Batches that were started; the sampler continues after them
        self.spent.batches = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        checkpoint["spent"] = {**asdict(self.spent), "started": None, "before": self.spent.time}
        checkpoint["processes"] = self.trainer.world_size
        checkpoint["random"] = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            checkpoint["random"]["cuda"] = torch.cuda.get_rng_state()

    def _trained(self) -> dict[str, nn.Parameter]:
        """The weights that are trained, by their names."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Restores what on_save_checkpoint stored."""
        processes = checkpoint["processes"]
        if processes != self.trainer.world_size:
            raise InputError(f"this run has {processes} processes, not {self.trainer.world_size}")
        if _shapes(checkpoint["state_dict"]) != _shapes(self._trained()):
            raise InputError("the checkpoint is that of a run that trains another model")
        self.spent = Spent(**{**checkpoint["spent"], "started": time.monotonic()})
        self.random = checkpoint["random"]

    def on_train_start(self) -> None:
        if "cpu" in self.random:
            torch.set_rng_state(self.random["cpu"])
        if "cuda" in self.random:
            torch.cuda.set_rng_state(self.random["cuda"])


@dataclass(frozen=True)
class Totals:
    """Sums over the batches of all processes in a step."""

    tokens: float  # of the transcripts
    clips: int
    seconds: float  # of speech
    unreadable: list[str]
    processes: int


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}


def optimizer_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict]:
    """The trainable parameters in two groups: matrices decay, norms and biases do not."""
    trained = [weight for weight in parameters if weight.requires_grad]
    matrices = [weight for weight in trained if weight.dim() > 1]
    vectors = [weight for weight in trained if weight.dim() <= 1]
    assert len(matrices) + len(vectors) == len(trained)
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
