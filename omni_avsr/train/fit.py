"""`fit` runs a training: it reads the clips, builds the model, and trains, resumes and saves it."""

import logging
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch import callbacks, loggers
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from omni_avsr.data.default import MakeCorpus, no_corpus
from omni_avsr.data.workers import told_of_workers
from omni_avsr.errors import InputError
from omni_avsr.files import locked
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.adapters import leave_casting_to_autocast
from omni_avsr.model.aligner import characters_of
from omni_avsr.model.precision import (
    Dtypes,
    allow_tf32,
    chosen_dtype,
    chosen_precision,
    dtype_name,
)
from omni_avsr.run import Progress, finish_run, is_first_process, no_progress, start_run
from omni_avsr.settings import TrainSettings
from omni_avsr.tasks import VIDEO_FPS, Row
from omni_avsr.train import resume
from omni_avsr.train.batches import Batches
from omni_avsr.train.clips import RunClips, clips_of_run
from omni_avsr.train.start import as_started, load_start
from omni_avsr.train.step import Training

log = logging.getLogger(__name__)

EXPECTED_WARNINGS = (
    ".*(in eval mode|exists and is not empty|does not have many workers"
    "|resuming from a checkpoint|sync_dist=True).*"
)


def fit(
    settings: TrainSettings, progress: Progress = no_progress, corpus: MakeCorpus = no_corpus
) -> Path:
    """Trains and returns the folder of the model, which is inside the run's folder.

    An interrupted run is resumed from its last checkpoint. `corpus` makes the clips where the
    settings name no label files.
    """
    if not is_first_process():
        return _fit(settings, progress, corpus, resume.starting_point_of_first(settings))
    with locked(settings.out):
        return _fit(settings, progress, corpus, resume.starting_point(settings))


def _fit(
    settings: TrainSettings, progress: Progress, corpus: MakeCorpus, checkpoint: Path | None
) -> Path:
    given = settings
    clips = clips_of_run(settings, progress, corpus)
    torch.manual_seed(settings.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = chosen_dtype(settings.dtype, device)
    precision = chosen_precision(settings.precision, dtype, device)
    allow_tf32()
    sharded: Dtypes = {"audio": dtype, "video": dtype, "llm": None}  # it is read as it is sharded
    model, processor = _model(settings, sharded if settings.strategy == "fsdp" else dtype)
    if precision != "32-true":
        leave_casting_to_autocast(model)
    if settings.from_ is not None:
        settings = as_started(settings.from_, settings, model.config)
    clips = clips.that_fit(settings, model.config.longest_sound)
    _set_aligner(model, clips, settings)
    if checkpoint:
        resume.refuse_other_clips(settings, clips.digest)
    data = Batches(model, processor, settings, progress)
    data.prepare(clips.train, clips.valid)
    if is_first_process():
        start_run(settings.out, given, checkpoint, clips.digest)
    trainer = _trainer(settings, precision)
    training = Training(model, processor, settings, data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=EXPECTED_WARNINGS)
        _run(trainer, training, checkpoint)
    if settings.valid_every:
        _load_best(model, trainer)
    if trainer.is_global_zero:
        _finish(settings.out, training, {"dtype": dtype_name(dtype), "precision": precision})
    return settings.out / "model"


def _model(settings: TrainSettings, dtype: Dtypes) -> tuple[OmniAVSR, OmniAVSRProcessor]:
    """The model before its first step, and its processor."""
    if settings.from_ is not None:
        model, processor = load_start(settings.from_, settings, dtype)
    else:
        model = OmniAVSR.from_towers(
            audio=settings.audio_encoder,
            video=settings.video_encoder,
            llm=settings.llm,
            dtype=dtype,
            quantize=settings.quantize,
            **settings.model_settings(),
        )
        processor = OmniAVSRProcessor.of(model)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if settings.compile:
        model.compile_layers()
    model.train()  # Lightning leaves this to us; without it no layer is recomputed
    return model, processor


def _set_aligner(model: OmniAVSR, clips: RunClips, settings: TrainSettings) -> None:
    """Gives the model an aligner for the characters of its clips, unless none is to be learned."""
    if settings.aligner == "no":
        if model.aligner is not None:
            model.aligner.requires_grad_(False)
        return
    missing = set(characters_of(clip.text for clip in clips.train)) - set(model.config.characters)
    if missing:
        model.add_aligner("".join(sorted({*model.config.characters, *missing})))
    if settings.aligner == "only" and model.aligner is not None:
        model.requires_grad_(False)
        model.aligner.requires_grad_(True)


def _run(trainer: lightning.Trainer, training: Training, checkpoint: Path | None) -> None:
    if checkpoint and trainer.is_global_zero:
        log.warning("resuming from %s", checkpoint)
        for logger in trainer.loggers[:1]:
            resume.keep_metrics(logger, checkpoint)
    try:
        with resume.restored_signals(), told_of_workers():
            trainer.fit(training, ckpt_path=checkpoint)
    except torch.OutOfMemoryError as error:
        seconds = training.batch.seconds if training.batch else []
        frames = round(max(seconds, default=0.0) * VIDEO_FPS)
        raise InputError(
            f"out of memory in a batch of {len(seconds)} clips, the longest of {frames} video "
            f"frames: lower --max-frames, now {training.settings.max_frames}, "
            "or set --gradient-checkpointing"
        ) from error


def _load_best(model: OmniAVSR, trainer: lightning.Trainer) -> None:
    """Gives the model the weights of the best validation."""
    best = trainer.checkpoint_callback.best_model_path
    if not best:
        return
    if not Path(best).is_file():  # the disk was full
        log.error("%s is missing: the model is that of the last step, not the best one", best)
        return
    state = torch.load(best, weights_only=True, map_location=model.device)
    trained = {}
    for name, weight in state["state_dict"].items():
        trained[name.removeprefix("model.")] = weight
    unknown = model.load_state_dict(
        trained, strict=False
    ).unexpected_keys  # frozen ones are missing
    assert not unknown, unknown


def _finish(run: Path, training: Training, numbers: Row) -> None:
    """Writes the model and what it took, and removes the checkpoints to resume from."""
    training.save_model()
    spent = training.spent
    if spent.unreadable:
        unreadable = ", ".join(spent.unreadable)
        log.warning("%d clips could not be read: %s", len(spent.unreadable), unreadable)
    trained = {
        **numbers,  # as auto depends on the device
        "seconds": spent.time,
        "clips": spent.clips,
        "speech_seconds": spent.speech,
        "unreadable": list(spent.unreadable),
        "steps_left_out": spent.bad,
    }
    finish_run(run, trained)
    for checkpoint in resume.checkpoints(run / "checkpoints"):
        checkpoint.unlink()


def _trainer(settings: TrainSettings, precision: str) -> lightning.Trainer:
    run = settings.out
    validates_every = min(settings.valid_every or settings.max_steps, settings.max_steps)
    validates_every *= settings.accumulate  # in batches
    return lightning.Trainer(
        precision=precision,
        callbacks=_callbacks(settings, validates_every),
        max_steps=settings.max_steps,
        devices=settings.devices,
        accumulate_grad_batches=settings.accumulate,
        num_nodes=settings.nodes,
        strategy=_strategy(settings),
        plugins=_plugins(),
        use_distributed_sampler=False,
        val_check_interval=validates_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        logger=_loggers(settings.logger, run),
        default_root_dir=run,
        enable_model_summary=False,
    )


def _strategy(settings: TrainSettings) -> str:
    """Lightning's strategy: DDP for several processes.

    A step leaves out the projectors of rates that it did not sample, which DDP has to find.
    """
    devices = settings.devices
    if devices == "auto":
        devices = str(max(1, torch.cuda.device_count()))
    one_process = settings.strategy == "auto" and devices == "1" and settings.nodes == 1
    return "auto" if one_process else "ddp_find_unused_parameters_true"


def _callbacks(settings: TrainSettings, validates_every: int) -> list[lightning.Callback]:
    folder = settings.out / "checkpoints"
    # A resumed run may write a file again
    best = resume.BestCheckpoint(folder, "best", monitor="valid/wer", enable_version_counter=False)
    chosen: list[lightning.Callback] = [best]
    if settings.keep:
        latest = callbacks.ModelCheckpoint(
            folder,
            "{step}",
            monitor="step",
            mode="max",
            save_top_k=settings.keep,
            enable_version_counter=False,
        )
        chosen.append(latest)
    chosen.append(resume.ResumeCheckpoints(folder, settings.save_every, validates_every))
    chosen.append(Bar())
    return chosen


def _loggers(name: str, run: Path) -> list[loggers.Logger]:
    if name == "none":
        return []
    chosen: list[loggers.Logger] = [loggers.CSVLogger(run, name=None, version="")]
    if name == "tensorboard":
        chosen.append(loggers.TensorBoardLogger(run, name=None, version="logs"))
    if name == "wandb":
        chosen.append(loggers.WandbLogger(run.name, save_dir=run))
    return chosen


def _plugins() -> list[object]:
    chosen: list[object] = [resume.AtomicCheckpoints()]
    in_torchrun = TorchElasticEnvironment.detect()  # which may run inside of SLURM
    if SLURMEnvironment.detect() and not in_torchrun:
        chosen.append(SLURMEnvironment(auto_requeue=False))
    return chosen


class Bar(callbacks.RichProgressBar):
    """Lightning's progress bar without the epoch, of which there is one, and the log's version."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"

    def get_metrics(self, *args: object, **kwargs: object) -> dict[str, int | str | float]:
        shown = super().get_metrics(*args, **kwargs)
        shown.pop("v_num", None)
        for name, value in shown.items():
            if isinstance(value, float):
                shown[name] = f"{value:.3g}"
        return shown
