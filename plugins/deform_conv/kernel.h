// Deformable convolution on CUDA: what `kernel.cu` offers to the adapters.
#pragma once

#include <cuda_runtime_api.h>
#include <stddef.h>

namespace onnx_rewrite {

enum class Type : int { kFloat = 0, kHalf = 1, kBFloat16 = 2 };

// How products of fp32 tensors are computed; fp16 and bf16 accumulate in fp32 either way.
enum class Math : int { kExact = 0, kTF32 = 1 };

// Which kernel runs. `kAuto` chooses by shape and GPU; a tactic that cannot run a problem gives cudaErrorNotSupported.
enum class Tactic : int { kAuto = -1, kDirect = 0, kSimt = 1, kTensor = 2 };

// Sizes of ONNX DeformConv. x [n, c, h, w], weight [m, c / groups, kh, kw], offset [n, offset_groups * kh * kw * 2, oh, ow],
// bias [m] or null, mask [n, offset_groups * kh * kw, oh, ow] or null, y [n, m, oh, ow]; all dense, of one type.
struct DeformConv {
    int n, c, h, w;
    int m, oh, ow;
    int kh, kw;
    int stride_h, stride_w;
    int pad_top, pad_left;
    int dilation_h, dilation_w;
    int groups, offset_groups;
};

// Null if the sizes make sense together, else the reason in words.
const char* refusal(DeformConv const& p);

// Bytes of scratch memory that `deform_conv` needs, 256-byte aligned; a tactic that cannot run gives 0.
size_t workspace_size(DeformConv const& p, Type type, Math math, int tactic);

// The most that `workspace_size` can give with `kAuto` for these sizes or smaller n, h, w, oh, ow.
size_t largest_workspace_size(DeformConv const& p, Type type, Math math);

// Queues the computation on a stream: no allocation, no synchronisation, no state between calls.
// Tactics from `kTensor` on are tile shapes: kTensor + i is the i-th row of the table in kernel.cu.
cudaError_t deform_conv(DeformConv const& p, Type type, Math math, int tactic, void const* x, void const* weight,
    void const* offset, void const* bias, void const* mask, void* y, void* workspace, cudaStream_t stream);

}  // namespace onnx_rewrite
