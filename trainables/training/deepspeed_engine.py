"""ShardedEngine: training under DeepSpeed's ZeRO, through accelerate.

Stage 2 splits gradients and optimizer states over the workers, stage 3 also the weights
(Rajbhandari et al. 2020). It has the methods of `engine.Engine`, which all workers call together.

DeepSpeed's checkpoints contain pickles, and it would load any. So they are read only from the run's
own folder, and only if they are exactly the files of a manifest with a valid checksum, each with
the content that it had (see checkpoint.py).
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from trainables.data.batches import Batch
from trainables.evaluation.loss import summed_loss
from trainables.methods.method import Method
from trainables.models.base import Base
from trainables.resources.step_recording import StepRecording
from trainables.spec.knobs import NO_OFFLOAD, REDUCE_BUCKET
from trainables.storage.atomic_files import digest, give_usual_mode, sync, temporary_path
from trainables.storage.errors import storage_errors
from trainables.storage.trial_folder import TrialFolder
from trainables.training import checkpoint
from trainables.training.checkpoint import rng_states, set_rng_states
from trainables.training.optimizer import Knobs, learning_rate, make_optimizer
from trainables.training.process_group import DisagreementError, ProcessGroup

SHARDS = "shards"  # DeepSpeed's tag: its folder in a checkpoint
_MODEL_FILE_BYTES = "5GB"  # of each file of a saved model


class ShardedEngine:
    """A model in training that is split over the workers of a group; it can't be given back."""

    def __init__(
        self, model: Any, base: Base, knobs: Knobs, *, total_steps: int, process_group: ProcessGroup
    ) -> None:
        self.model = model
        self.device = base.device
        self._base = base
        self._knobs = knobs
        self._total_steps = total_steps
        self._process_group = process_group
        trained = [p for p in model.parameters() if p.requires_grad]
        self.trainable_parameters = sum(parameter.numel() for parameter in trained)
        self._trained = trained
        self._recording = StepRecording(model) if base.device.type == "cpu" else None
        self._deepspeed = _prepared(model, base, knobs, trained, process_group)
        self._place: Path | None = None  # the checkpoint of the last step, if there is one

    def accumulate(self, batch: Batch, *, completion_tokens: int, is_last: bool = True) -> float:
        """As `Engine.accumulate`; DeepSpeed takes the mean over workers, hence the factor."""
        if self._recording is not None:
            self._recording.resume()
        self._deepspeed.set_gradient_accumulation_boundary(is_last)
        loss = summed_loss(self._deepspeed, batch, self._base)
        self._deepspeed.backward(loss * (self._process_group.size / completion_tokens))
        return loss.item()

    def step(self, step: int) -> None:
        """Clips the gradients and takes the optimizer's step number `step`, counted from 0."""
        for group in self._deepspeed.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self._deepspeed.step()
        self._place = None
        if self._recording is not None:
            self._recording.end_step()

    @property
    def peak_bytes(self) -> int:
        """The peak of this worker's tensors in its first steps on a CPU; 0 on a GPU, where the
        allocator measures it."""
        return 0 if self._recording is None else self._recording.peak_bytes

    def drop_gradients(self) -> None:
        """Discards the gradients that `accumulate` has added since the last step."""
        self._deepspeed.optimizer.zero_grad()

    def learning_rate(self, step: int) -> float:
        """The learning rate of the optimizer's step number `step`, counted from 0."""
        return learning_rate(self._knobs, step=step, total_steps=self._total_steps)

    def save(self, folder: TrialFolder, *, step: int, progress: Mapping[str, Any]) -> None:
        """Writes a checkpoint with the first worker's `progress`, a JSON value, atomically."""
        place = checkpoint.place_of(folder.checkpoints_folder, step)
        temporary = Path(self._process_group.broadcast(str(temporary_path(place))))
        with storage_errors(place):
            try:
                self._write(temporary)
                digests = self._digests(temporary, sorted(checkpoint.files_in(temporary)))
                if self._process_group.rank == 0:
                    state = {"progress": progress, "workers": self._process_group.size}
                    checkpoint.commit(
                        temporary,
                        place,
                        state=state,
                        digests=digests,
                        guard=folder.guard,
                        mirror=folder.mirror,
                    )
                self._process_group.barrier()
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        self._place = place

    def load_latest(self, folder: TrialFolder) -> Mapping[str, Any] | None:
        """Restores the newest checkpoint that all workers see undamaged; returns its `progress`, or
        None."""
        for name in self._process_group.broadcast(
            [p.name for p in checkpoint.places(folder.checkpoints_folder)]
        ):
            place = folder.checkpoints_folder / name
            found = sound(place, self._process_group)
            if found is not None:
                if self._recording is not None:  # an earlier attempt has measured the peak
                    self._recording.stop()
                self._read(place)
                progress: Mapping[str, Any] = found["state"]["progress"]
                return progress
        return None

    def export(self, method: Method, folder: TrialFolder, tokenizer: Any) -> None:
        """Writes the result, unsplit: DeepSpeed's zero_to_fp32 consolidates a model from the
        checkpoint of the last step; adapters are gathered."""
        if not method.saves_model:
            self._export_adapter(method, folder)
        elif self._place is None:
            raise ValueError("a model is consolidated from a checkpoint, and there is none")
        elif self._process_group.rank == 0:
            place = self._place
            folder.write_model(lambda temporary: self._consolidate(place, temporary, tokenizer))
        self._process_group.barrier()

    def _write(self, temporary: Path) -> None:
        if self._process_group.rank == 0:
            temporary.mkdir(parents=True)
        self._process_group.barrier()
        self._deepspeed.save_checkpoint(
            str(temporary), tag=SHARDS, save_latest=False, exclude_frozen_parameters=True
        )
        file = temporary / SHARDS / _rng_file(self._process_group.rank)
        save_file(rng_states(self.device), file)
        give_usual_mode(file)
        self._process_group.barrier()

    def _digests(self, place: Path, names: list[str]) -> dict[str, str | None]:
        """Flushes all files to the disk and returns their digests; each worker reads its share."""
        own = names[self._process_group.rank :: self._process_group.size]
        for name in own:
            sync(place / name)
        mine = {name: digest(place / name) for name in own}
        found: dict[str, str | None] = {}
        for rank in range(self._process_group.size):
            for name in names[rank :: self._process_group.size]:
                own_digest = (mine.get(name) or "").ljust(64).encode()
                gathered = self._process_group.gather(own_digest)
                found[name] = gathered[rank].decode().strip() or None
        return found

    def _read(self, place: Path) -> None:
        loaded, _ = self._deepspeed.load_checkpoint(
            str(place), tag=SHARDS, load_module_strict=False, load_lr_scheduler_states=False
        )
        if loaded is None:
            raise DisagreementError(f"{place}: DeepSpeed does not find its shards there")
        states = load_file(place / SHARDS / _rng_file(self._process_group.rank))
        set_rng_states(states, self.device)
        self._place = place

    def _export_adapter(self, method: Method, folder: TrialFolder) -> None:
        import deepspeed

        is_split = self._knobs["zero_stage"] == 3
        with deepspeed.zero.GatheredParameters(self._trained, enabled=is_split):
            if self._process_group.rank == 0:
                folder.write_adapter(lambda place: method.save(self.model, place))

    def _consolidate(self, place: Path, folder: Path, tokenizer: Any) -> None:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        weights = get_fp32_state_dict_from_zero_checkpoint(str(place), tag=SHARDS, lazy_mode=True)
        for name in self.model.all_tied_weights_keys:  # safetensors refuses them
            weights.pop(name, None)
        _write_weights(weights, folder)
        write_config(self.model.config, folder)
        self.model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def sound(place: Path, process_group: ProcessGroup) -> dict[str, Any] | None:
    """The manifest of an undamaged checkpoint for this number of workers.

    None for any other, which DeepSpeed must not read. The workers share the reading of its files.
    """
    found = process_group.broadcast(checkpoint.manifest(place))
    if found is None or found["state"].get("workers") != process_group.size:
        return None
    process_group.check_same(f"{place}: its files", sorted(checkpoint.files_in(place)))
    own = sorted(found["files"])[process_group.rank :: process_group.size]
    bad = sum(digest(place / name) != found["files"][name] for name in own)
    return None if process_group.sum(bad) else dict(found)


def write_config(config: Any, folder: Path) -> None:
    """Writes the config of a model whose weights are saved in float32.

    With the base's dtype, loading the model by its config would round the weights. `config` is not
    changed.
    """
    saved = copy.deepcopy(config)
    saved.dtype = torch.float32
    saved.save_pretrained(folder)


def _write_weights(weights: Mapping[str, Any], folder: Path) -> None:
    """Writes safetensors as `from_pretrained` reads them, with one file's tensors in memory at a
    time. DeepSpeed's own converter fails for a model with tied weights."""
    from deepspeed.utils.zero_to_fp32 import to_torch_tensor
    from huggingface_hub import split_torch_state_dict_into_shards

    split = split_torch_state_dict_into_shards(
        to_torch_tensor(weights, return_empty_tensor=True, dtype=torch.float32),
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=_MODEL_FILE_BYTES,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in split.filename_to_tensors.items():
        tensors = to_torch_tensor({name: weights[name] for name in names}, dtype=torch.float32)
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _rng_file(rank: int) -> str:
    return f"rng-{rank}.safetensors"


def _prepared(
    model: Any,
    base: Base,
    knobs: Knobs,
    trained: list[torch.nn.Parameter],
    process_group: ProcessGroup,
) -> Any:
    """DeepSpeed's engine of the model."""
    import deepspeed
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.utils import DeepSpeedPlugin  # type: ignore[import-untyped]

    if base.device.type == "cpu":
        _disable_compilation()
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)  # joins the existing group
    optimizer = make_optimizer(trained, knobs, base.device)  # while parameters have their shapes
    numbers = sum(parameter.numel() for parameter in trained)
    config = _configuration(base, knobs, process_group, bucket=min(numbers, REDUCE_BUCKET))
    if knobs["zero_stage"] == 3:  # before the model is moved to the device, which may be smaller
        deepspeed.zero.Init(module=model, config_dict_or_path=config, dtype=torch.float32)
    plugin = DeepSpeedPlugin(hf_ds_config=config)
    accelerator = Accelerator(deepspeed_plugin=plugin)
    accelerator.prepare(model, optimizer)
    return accelerator.deepspeed_engine_wrapped.engine


def _disable_compilation() -> None:
    """Keeps DeepSpeed from compiling collectives over shared memory on a CPU.

    Only its inference uses them; compiling takes minutes and a compiler, and a killed process
    leaves a lock behind.
    """
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _configuration(
    base: Base, knobs: Knobs, process_group: ProcessGroup, *, bucket: int
) -> dict[str, Any]:
    """DeepSpeed's configuration: float32 weights, products in the compute dtype, as in Engine."""
    zero: dict[str, Any] = {
        "stage": knobs["zero_stage"],
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "stage3_prefetch_bucket_size": bucket,
    }
    if knobs.get("offload", NO_OFFLOAD) != NO_OFFLOAD:
        zero["offload_optimizer"] = {"device": knobs["offload"], "pin_memory": False}
    mixed = base.compute_dtype != torch.float32
    autocast = {"enabled": mixed, "dtype": str(base.compute_dtype).removeprefix("torch.")}
    return {
        "train_micro_batch_size_per_gpu": knobs["batch_size"],
        "gradient_accumulation_steps": 1,  # `accumulate` says where a step ends
        "train_batch_size": knobs["batch_size"] * process_group.size,
        "gradient_clipping": knobs["max_gradient_norm"],
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's own runs on a CPU too, with no compiler
        **({"torch_autocast": autocast} if mixed else {}),
        "steps_per_print": 2**62,
    }
