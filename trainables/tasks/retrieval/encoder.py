"""Vectors of texts by the model in a folder, computed once on a node and kept on its disk."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainables.errors import InputError
from trainables.models.model_folder import encoder_digest
from trainables.tasks.retrieval.node_arrays import node_array

VERSION = "1"  # to be raised when vectors change
_PROGRAM = "trainables.models.text_vectors"  # a process: no torch here, no memory of a device kept
_PROJECT = Path(__file__).resolve().parents[3]  # from which it can be imported


def folder_digest(folder: str) -> str:
    """The digest of the model in the folder. Raises InputError if it is none."""
    try:
        return encoder_digest(folder)
    except InputError as error:
        raise InputError([f"data.retrieve.encoder: {each}" for each in error.messages]) from error


def vectors_of(folder: str, texts: Sequence[str]) -> Any:
    """An array with a row for each text, as `trainables.models.text_vectors.text_vectors`.

    Raises InputError if the model can't be loaded.
    """
    key = [VERSION, folder_digest(folder), list(texts)]
    return node_array("vectors", key, lambda: _computed(str(Path(folder).absolute()), texts))


def _computed(folder: str, texts: Sequence[str]) -> Any:
    import numpy

    with tempfile.TemporaryDirectory() as place:
        asked, answer = Path(place) / "texts.json", Path(place) / "vectors.npy"
        asked.write_text(json.dumps(texts), encoding="utf-8")
        command = [sys.executable, "-m", _PROGRAM, folder, str(asked), str(answer)]
        done = subprocess.run(command, cwd=_PROJECT, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise InputError(f"data.retrieve.encoder: {folder} gives no vectors: {reason}")
        return numpy.load(answer, allow_pickle=False)
