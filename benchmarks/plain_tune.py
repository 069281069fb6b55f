"""Plain Ray Tune, as its documentation shows it: a trainable that loads, trains and reports.

    python -m benchmarks.plain_tune FOLDER [--reuse-actors]

FOLDER contains workload.json and prepared.json; each trial writes its times to FOLDER/trials.
Without --reuse-actors the trainable is a function that runs in a new process for every trial; with
it the trainable is a class whose actors take the next trial when `reset_config` returns True.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks import workload as work
from benchmarks.workload import Workload, read_prepared


class TrialContext:
    """The work of one trial, with the times of its phases."""

    def __init__(self, config: Mapping[str, Any], data: Mapping[str, Any], folder: Path) -> None:
        self.times: dict[str, float] = {"began": time.time()}
        self.seconds: dict[str, float] = {}
        self._config = config
        self._data = data
        self._place = folder / "trials" / uuid.uuid4().hex

    def run(self) -> dict[str, float]:
        """Loads the model, trains it and evaluates it; returns the metrics to report."""
        with self._timed("import"):
            import peft  # noqa: F401
            from transformers import Trainer  # noqa: F401
        with self._timed("load"):
            model, tokenizer = self._load()
        trainer = self._trainer(model)
        with self._timed("train"):
            trained = trainer.train()
        with self._timed("eval"):
            eval_loss = trainer.evaluate()["eval_loss"]
            answers = self._answers(model, tokenizer)
        trainer.save_model(str(self._place / "adapter"))
        asked = self._data["selection"]
        right = [text == row["target"] for text, row in zip(answers, asked, strict=True)]
        metrics = {
            "eval_loss": eval_loss,
            "em_acc": sum(right) / len(right),
            "train_loss": trained.training_loss,
        }
        self._write(metrics, trainer.state, questions=len(answers))
        return metrics

    def _load(self) -> tuple[Any, Any]:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

        tokenizer = AutoTokenizer.from_pretrained(work.MODEL)
        base = AutoModelForCausalLM.from_pretrained(work.MODEL, dtype=torch.float32)
        set_seed(work.SEED)
        lora = LoraConfig(
            r=self._config["rank"],
            lora_alpha=work.ALPHA,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        return get_peft_model(base, lora), tokenizer

    def _trainer(self, model: Any) -> Any:
        from transformers import Trainer, TrainerCallback, TrainingArguments

        times = self.times

        class FirstStep(TrainerCallback):  # type: ignore[misc]
            def on_optimizer_step(self, *given: Any, **named: Any) -> None:
                times.setdefault("first_step", time.time())

        arguments = TrainingArguments(
            output_dir=str(self._place),
            per_device_train_batch_size=work.BATCH_SIZE,
            per_device_eval_batch_size=work.EVAL_BATCH_SIZE,
            num_train_epochs=1,
            learning_rate=self._config["learning_rate"],
            lr_scheduler_type="linear",
            warmup_steps=work.WARMUP,
            train_sampling_strategy="sequential",  # the data are in training order
            include_num_input_tokens_seen="non_padding",
            save_strategy="no",
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            seed=work.SEED,
        )
        return Trainer(
            model=model,
            args=arguments,
            train_dataset=[_example(row) for row in self._data["train"]],
            eval_dataset=[_example(row) for row in self._data["selection"]],
            data_collator=_collate,
            callbacks=[FirstStep()],
        )

    def _answers(self, model: Any, tokenizer: Any) -> list[str]:
        """The answers by greedy decoding in batches, the longest prompts first."""
        import torch

        model.eval()
        prompts = [row["prompt"] for row in self._data["selection"]]
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        texts = [""] * len(prompts)
        for at in range(0, len(order), work.EVAL_BATCH_SIZE):
            chosen = order[at : at + work.EVAL_BATCH_SIZE]
            inputs = tokenizer.pad(
                {"input_ids": [prompts[index] for index in chosen]},
                padding_side="left",
                return_tensors="pt",
            )
            with torch.no_grad():
                written = model.generate(
                    **inputs, max_new_tokens=work.MAX_NEW_TOKENS, do_sample=False
                )
            new = written[:, inputs["input_ids"].shape[1] :]
            for index, text in zip(
                chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
            ):
                texts[index] = text.strip()
        return texts

    def _write(self, metrics: Mapping[str, float], state: Any, *, questions: int) -> None:
        import torch

        counts = {
            "steps": state.global_step,
            "tokens": state.num_input_tokens_seen,
            "questions": questions,
            "threads": torch.get_num_threads(),
        }
        self.times["end"] = time.time()
        self._place.with_suffix(".json").write_text(
            json.dumps(
                {
                    **self.times,
                    "seconds": self.seconds,
                    "counts": counts,
                    "metrics": dict(metrics),
                    **self._config,
                }
            )
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def train_lora(config: dict[str, Any], *, data: Mapping[str, Any], folder: str) -> None:
    """The function trainable."""
    tune.report(TrialContext(config, data, Path(folder)).run())


class LoRATrainable(tune.Trainable):  # type: ignore[misc]  # Ray carries no types
    """The class trainable: one step is a whole trial."""

    def setup(self, config: dict[str, Any], *, data: Mapping[str, Any], folder: str) -> None:
        self._data, self._folder = data, Path(folder)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trial = TrialContext(new_config, self._data, self._folder)
        return True

    def step(self) -> dict[str, Any]:
        return {**self._trial.run(), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Does nothing: Tune calls it at a trial's end, when the adapter is already saved."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Does nothing, as `save_checkpoint`."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_tune")
    parser.add_argument("folder", type=Path, help="has workload.json and prepared.json")
    parser.add_argument("--reuse-actors", action="store_true", help="run trials in reused actors")
    given = parser.parse_args()
    folder: Path = given.folder.resolve()
    (folder / "trials").mkdir()
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    (folder / "ray_ready").write_text(str(time.time()))
    results = _tuner(folder, reuse_actors=given.reuse_actors).fit()
    ray.shutdown()
    if results.errors:
        raise results.errors[0]


def _tuner(folder: Path, *, reuse_actors: bool) -> Any:
    workload = Workload.read(folder / "workload.json")
    trainable = LoRATrainable if reuse_actors else train_lora
    data = read_prepared(folder / "prepared.json")
    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(trainable, data=data, folder=str(folder)), {"cpu": 1}
        ),
        param_space={
            "rank": tune.choice(list(workload.ranks)),
            "learning_rate": tune.choice(list(workload.learning_rates)),
        },
        tune_config=tune.TuneConfig(
            metric="em_acc",
            mode="max",
            search_alg=OptunaSearch(points_to_evaluate=workload.configurations),
            scheduler=ASHAScheduler(max_t=1),  # one report per trial: none is stopped early
            num_samples=len(workload.configurations),
            max_concurrent_trials=workload.slots,
            reuse_actors=reuse_actors,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "tune"),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", experiment_name="overhead"
                )
            ],
        ),
    )


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    """An example for Trainer, with the loss on the completion only."""
    return {
        "input_ids": [*row["prompt"], *row["completion"]],
        "labels": [-100] * len(row["prompt"]) + list(row["completion"]),
    }


def _collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Makes a batch, padded on the right."""
    import torch

    length = max(len(row["input_ids"]) for row in rows)
    lacking = [length - len(row["input_ids"]) for row in rows]
    pairs = list(zip(rows, lacking, strict=True))
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * more for row, more in pairs]),
        "attention_mask": torch.tensor(
            [[1] * len(row["input_ids"]) + [0] * more for row, more in pairs]
        ),
        "labels": torch.tensor([row["labels"] + [-100] * more for row, more in pairs]),
    }


if __name__ == "__main__":
    main()
