// Deformable convolution on CUDA: what `kernel.cu` offers to the adapters.
#pragma once

#include <cuda_runtime_api.h>
#include <stddef.h>

#include "problem.h"

namespace onnx_rewrite {

// Null if the sizes make sense together, else the reason in words.
const char* refusal(DeformConv const& p);

// Bytes of scratch memory that `deform_conv` needs, 256-byte aligned; a tactic that cannot run gives 0.
size_t workspace_size(DeformConv const& p, Type type, Math math, int tactic);

// The most that `workspace_size` can give with `kAuto` for these sizes or smaller n, h, w, oh, ow.
size_t largest_workspace_size(DeformConv const& p, Type type, Math math);

// Queues the computation on a stream: no allocation, no synchronisation, no state between calls.
cudaError_t deform_conv(DeformConv const& p, Type type, Math math, int tactic, void const* x, void const* weight,
    void const* offset, void const* bias, void const* mask, void* y, void* workspace, cudaStream_t stream);

}  // namespace onnx_rewrite
