"""Imports without the compiler: what it changes, that it is undone, and what a host then loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import make_spec
from trainables.models.imports import without_compiler
from trainables.storage.trial_folder import TrialFolder

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
COMPILER = ("torch._inductor.compile_fx", "torch._inductor.codecache", "torch._inductor.graph")


def double(value: int) -> int:
    return 2 * value


def test_both_decorators_return_the_function_itself_inside() -> None:
    with without_compiler():
        assert torch.compile(double) is double
        assert torch.compile(dynamic=False)(double) is double
        disable: Any = torch.compiler.disable
        assert disable(double) is double
        assert disable(recursive=False)(double) is double


@pytest.mark.parametrize("fails", [False, True])
def test_torch_is_itself_again_however_it_ends(fails: bool) -> None:
    before = torch.compile, torch.compiler.disable
    try:
        with without_compiler():
            assert torch.compile is not before[0]
            if fails:
                raise ImportError("a library that is not there")
    except ImportError:
        assert fails
    assert (torch.compile, torch.compiler.disable) == before


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_host_trains_without_ever_loading_the_compiler(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    """`torch._dynamo` itself is loaded by transformers' masks and by torch's optimizers."""
    spec = make_spec(tiny_llama, quantization=quantization)
    folder = TrialFolder(tmp_path / spec.trial_id)
    folder.write_spec(spec, {})
    script = f"""if True:
        import sys
        import torch
        from trainables.workers.host import HostProcess
        before = torch.compile, torch.compiler.disable
        host = HostProcess({{}})
        host.warm_up()
        assert not set({COMPILER!r}) & set(sys.modules)
        assert host.start(sys.argv[1]) == []
        while host.next().kind != "finished":
            pass
        assert not set({COMPILER!r}) & set(sys.modules)
        assert (torch.compile, torch.compiler.disable) == before
    """
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder.path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
