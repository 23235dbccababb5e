// The numbers of a deformable convolution: plain C++, the same for compilers of hosts and of GPUs.
#pragma once

namespace onnx_rewrite {

enum class Type : int { kFloat = 0, kHalf = 1, kBFloat16 = 2 };

// How products of fp32 tensors are computed; fp16 and bf16 accumulate in fp32 either way. kExact keeps fp32's accuracy, with
// FFMA or as three products of TF32, whichever is faster; kFFMA keeps away from tensor cores.
enum class Math : int { kExact = 0, kTF32 = 1, kFFMA = 2 };

// Which kernel runs. `kAuto` chooses by shape and GPU; a tactic that cannot run a problem gives cudaErrorNotSupported.
// Tactics from `kTensor` on are tile shapes: kTensor + i is the i-th row of the table in plan.h; schedule.h
// says what may be added.
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

}  // namespace onnx_rewrite
