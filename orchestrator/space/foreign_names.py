"""What the settings of other programs are called here: Transformers, PEFT, TRL, Axolotl and others.

A row is a name and its counterpart, as the end of the sentence "Here that is ...".
"""

from __future__ import annotations

from collections.abc import Collection

from trainables.errors import did_you_mean
from trainables.spec.knobs import KNOBS

_MODEL = "space.model"
_METHOD = "space.method: lora or full"
_QUANTIZATION = "space.quantization"
_FOUR_BITS = "space.quantization: nf4 or fp4"
_COMPUTE_DTYPE = "space.compute_dtype"
_LENGTH = "space.sequence_length"
_BATCH_SIZE = "space.batch_size"
_STEP = "space.effective_batch_size, with space.batch_size: auto"
_ACCUMULATION = "space.gradient_accumulation"
_RANK, _ALPHA, _DROPOUT = "space.rank", "space.alpha", "space.dropout"
_MODULES = "space.target_modules"
_LEARNING_RATE = "space.learning_rate"
_WARMUP = "space.warmup, a fraction of the steps"
_CLIPPING = "space.max_gradient_norm"
_CHECKPOINTING = "space.gradient_checkpointing"
_SEED = "budget.seed, or space.seed to vary it"
_EXAMPLES = "budget.train_examples, which counts examples (an epoch is all of train, once)"
_SHARDING = "space.zero_stage, with space.workers (docs/full.md)"
_WORKERS = "space.workers"
_DATA = "data.train, data.selection and data.report"
_PROMPT = "space.prompt"
_STOPPING = "scheduler"
_CHECKPOINTS = "execution.checkpoint_minutes"
_TRIALS = "search.trials"
_COMPLETIONS = "nothing to set: the loss is always that of completions only"
_TRACKING = "nothing to set: MLflow is always written, to --tracking-uri"
_GPUS = "resources.gpus of the whole sweep, or space.workers of one trial"
_RUNGS = "scheduler: at its rungs trials are evaluated"
_FOLDER = "no key but options of the command: --storage and --name"

FOREIGN_NAMES = {
    "adapter": _METHOD,
    "base_model": _MODEL,
    "base_model_name_or_path": _MODEL,
    "finetuning_type": _METHOD,
    "model_id": _MODEL,
    "model_name": _MODEL,
    "model_name_or_path": _MODEL,
    "models": _MODEL,
    "peft_type": _METHOD,
    "pretrained_model_name_or_path": _MODEL,
    "use_lora": _METHOD,
    "use_peft": _METHOD,
    "do_sample": "space.decoding: sample",
    "num_beams": "space.beams, inside space.decoding: beam",
    "num_return_sequences": "space.votes, inside space.decoding: sample",
    "bits": _QUANTIZATION,
    "bnb_4bit_compute_dtype": _COMPUTE_DTYPE,
    "bnb_4bit_quant_type": _FOUR_BITS,
    "bnb_4bit_use_double_quant": "space.double_quantization",
    "double_quant": "space.double_quantization",
    "load_in_4bit": _FOUR_BITS,
    "load_in_8bit": "space.quantization: int8",
    "quant_type": _QUANTIZATION,
    "quantization_bit": _QUANTIZATION,
    "quantization_config": _QUANTIZATION,
    "quantize": _QUANTIZATION,
    "bf16": "space.compute_dtype: bfloat16",
    "bfloat16": "space.compute_dtype: bfloat16",
    "dtype": _COMPUTE_DTYPE,
    "float16": "space.compute_dtype: float16",
    "fp16": "space.compute_dtype: float16",
    "mixed_precision": _COMPUTE_DTYPE,
    "precision": _COMPUTE_DTYPE,
    "torch_dtype": _COMPUTE_DTYPE,
    "block_size": _LENGTH,
    "context_length": _LENGTH,
    "cutoff_len": _LENGTH,
    "max_length": _LENGTH,
    "max_seq_len": _LENGTH,
    "max_seq_length": _LENGTH,
    "model_max_length": _LENGTH,
    "seq_len": _LENGTH,
    "seq_length": _LENGTH,
    "sequence_len": _LENGTH,
    "auto_find_batch_size": "space.batch_size: auto",
    "bs": _BATCH_SIZE,
    "global_batch_size": _STEP,
    "micro_batch_size": _BATCH_SIZE,
    "per_device_batch_size": _BATCH_SIZE,
    "per_device_train_batch_size": _BATCH_SIZE,
    "per_gpu_train_batch_size": _BATCH_SIZE,
    "total_batch_size": _STEP,
    "train_batch_size": _BATCH_SIZE,
    "train_micro_batch_size_per_gpu": _BATCH_SIZE,
    "accumulate_grad_batches": _ACCUMULATION,
    "accumulation_steps": _ACCUMULATION,
    "grad_accum": _ACCUMULATION,
    "grad_accum_steps": _ACCUMULATION,
    "gradient_accumulation_steps": _ACCUMULATION,
    "per_device_eval_batch_size": "execution.eval_batch_size",
    "lora_alpha": _ALPHA,
    "lora_dropout": _DROPOUT,
    "lora_r": _RANK,
    "lora_rank": _RANK,
    "lora_target": _MODULES,
    "lora_target_linear": "space.target_modules: all-linear, the default",
    "lora_target_modules": _MODULES,
    "r": _RANK,
    "lr": _LEARNING_RATE,
    "lr_scheduler": "space.schedule",
    "lr_scheduler_type": "space.schedule",
    "lr_warmup_steps": _WARMUP,
    "num_warmup_steps": _WARMUP,
    "optim": "space.optimizer",
    "warmup_ratio": _WARMUP,
    "warmup_steps": _WARMUP,
    "wd": "space.weight_decay",
    "clip_grad_norm": _CLIPPING,
    "grad_clip": _CLIPPING,
    "gradient_clip_val": _CLIPPING,
    "gradient_clipping": _CLIPPING,
    "max_grad_norm": _CLIPPING,
    "activation_checkpointing": _CHECKPOINTING,
    "use_gradient_checkpointing": _CHECKPOINTING,
    "data_seed": _SEED,
    "random_seed": _SEED,
    "random_state": _SEED,
    "epochs": _EXAMPLES,
    "max_samples": _EXAMPLES,
    "max_steps": _EXAMPLES,
    "max_train_samples": _EXAMPLES,
    "max_train_steps": _EXAMPLES,
    "n_epochs": _EXAMPLES,
    "num_epochs": _EXAMPLES,
    "num_train_epochs": _EXAMPLES,
    "train_steps": _EXAMPLES,
    "max_eval_samples": "budget.eval_examples",
    "cpu_offload": "space.offload: cpu",
    "deepspeed": _SHARDING,
    "deepspeed_config": _SHARDING,
    "fsdp": _SHARDING,
    "fsdp_config": _SHARDING,
    "n_gpus": _GPUS,
    "nproc_per_node": _WORKERS,
    "num_gpus": _GPUS,
    "num_processes": _WORKERS,
    "num_workers": _WORKERS,
    "world_size": _WORKERS,
    "zero_optimization": _SHARDING,
    "dataset": _DATA,
    "dataset_name": _DATA,
    "dataset_path": _DATA,
    "datasets": _DATA,
    "eval_dataset": "data.selection",
    "test_file": "data.report",
    "train_data_path": "data.train",
    "train_dataset": "data.train",
    "train_file": "data.train",
    "val_file": "data.selection",
    "validation_file": "data.selection",
    "prompt_style": _PROMPT,
    "prompt_template": _PROMPT,
    "packing": "nothing to set: examples are not packed",
    "sample_packing": "nothing to set: examples are not packed",
    "completion_only_loss": _COMPLETIONS,
    "train_on_inputs": _COMPLETIONS,
    "early_stopping": _STOPPING,
    "early_stopping_patience": _STOPPING,
    "metric": "objective",
    "metric_for_best_model": "objective",
    "generation_max_new_tokens": "execution.max_new_tokens",
    "resume_from_checkpoint": "nothing to set: the same command run again resumes",
    "save_steps": _CHECKPOINTS,
    "save_strategy": _CHECKPOINTS,
    "save_total_limit": _CHECKPOINTS,
    "logging_steps": _TRACKING,
    "report_to": _TRACKING,
    "wandb_project": _TRACKING,
    "output_dir": _FOLDER,
    "run_name": _FOLDER,
    "eval_steps": _RUNGS,
    "eval_strategy": _RUNGS,
    "evaluation_strategy": _RUNGS,
    "grace_period": "scheduler: {asha: {grace: ...}}, a fraction of the budget",
    "max_completion_length": "execution.max_new_tokens",
    "max_prompt_length": _LENGTH,
    "reduction_factor": "scheduler: {asha: {reduction: ...}}",
    "val_set_size": "data.selection",
    "max_trials": _TRIALS,
    "n_trials": _TRIALS,
    "num_samples": _TRIALS,
    "num_trials": _TRIALS,
    "sampler": "search.algorithm",
    # This program's own settings, where they stand in another section or in none.
    "accelerator_type": "resources.accelerator_type",
    "algorithm": "search.algorithm",
    "checkpoint_minutes": _CHECKPOINTS,
    "eval_batch_size": "execution.eval_batch_size",
    "eval_examples": "budget.eval_examples",
    "gpu_memory": "resources.gpu_memory",
    "gpus": "resources.gpus",
    "max_new_tokens": "execution.max_new_tokens",
    "placement": "resources.placement",
    "start_with": "search.start_with",
    "sweep_hours": "limits.sweep_hours",
    "train_examples": "budget.train_examples",
    "trial_hours": "limits.trial_hours",
    "trials": _TRIALS,
}


def meant(name: object, allowed: Collection[str]) -> str:
    """What to write instead of an unknown key: its counterpart, a near name, or all there are."""
    foreign = str(name).lower().replace("-", "_")
    if foreign in FOREIGN_NAMES:
        return f" Here that is {FOREIGN_NAMES[foreign]}."
    if name in KNOBS and name not in allowed:
        return f" It is a knob of the trials: write it in space, as space.{name}."
    return did_you_mean(name, allowed)
