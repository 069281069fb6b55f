"""The memory that a CUDA process takes besides its tensors; assumed, not measured."""

from __future__ import annotations

_MEBIBYTE = 1 << 20

# The CUDA context and kernels, outside torch's allocator: what nvidia-smi shows for an idle
# process.
CUDA_CONTEXT_BYTES = 512 * _MEBIBYTE
# torch docs, CUBLAS_WORKSPACE_CONFIG: 32 MiB on compute capability 9, 8 MiB before; once per
# process, from torch's allocator.
CUBLAS_WORKSPACE_BYTES = 33 * _MEBIBYTE
GPU_OVERHEAD_BYTES = CUDA_CONTEXT_BYTES + CUBLAS_WORKSPACE_BYTES
