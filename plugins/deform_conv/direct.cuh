// One thread per output element, any sizes: the yardstick of the other kernels, and best for tiny groups.
#pragma once

#include "sampling.cuh"

namespace onnx_rewrite {
ONNX_REWRITE_LOCAL_BEGIN

template <typename T>
__global__ void __launch_bounds__(256) direct_kernel(DeformConv p, T const* __restrict__ x, T const* __restrict__ weight,
    T const* __restrict__ offset, T const* __restrict__ bias, T const* __restrict__ mask, T* __restrict__ y) {
    int64_t const total = (int64_t)p.n * p.m * p.oh * p.ow;
    int const taps = p.kh * p.kw, in_group = p.c / p.groups, in_offset = p.c / p.offset_groups;
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < total; i += (int64_t)gridDim.x * blockDim.x) {
        int const ox = (int)(i % p.ow), oy = (int)(i / p.ow % p.oh);
        int const m = (int)(i / ((int64_t)p.ow * p.oh) % p.m), n = (int)(i / ((int64_t)p.ow * p.oh * p.m));
        int const first = m / (p.m / p.groups) * in_group, last = first + in_group;
        float sum = 0.f;
        for (int c = first; c < last;) {
            int const group = c / in_offset;
            int const end = min(last, (group + 1) * in_offset);
            for (int tap = 0; tap < taps; ++tap) {
                Point const at = point(p, offset, mask, n, group, tap, oy, ox);
                bool const hit = inside(p, at.y, at.x);
                int const y0 = hit ? (int)floorf(at.y) : 0, x0 = hit ? (int)floorf(at.x) : 0;
                float const ly = at.y - (float)y0, lx = at.x - (float)x0;
                bool const top = y0 >= 0, left = x0 >= 0, bottom = y0 + 1 < p.h, right = x0 + 1 < p.w;
                for (int k = c; k < end; ++k) {
                    float value = 0.f;
                    if (hit) {
                        T const* plane = x + ((int64_t)n * p.c + k) * p.h * p.w + (int64_t)y0 * p.w + x0;
                        float const v00 = top && left ? to_float(plane[0]) : 0.f;
                        float const v01 = top && right ? to_float(plane[1]) : 0.f;
                        float const v10 = bottom && left ? to_float(plane[p.w]) : 0.f;
                        float const v11 = bottom && right ? to_float(plane[p.w + 1]) : 0.f;
                        value = (1.f - ly) * (1.f - lx) * v00 + (1.f - ly) * lx * v01 + ly * (1.f - lx) * v10 + ly * lx * v11;
                    }
                    float const w = to_float(weight[((int64_t)m * in_group + (k - first)) * taps + tap]);
                    sum = fmaf(value * at.mask, w, sum);
                }
            }
            c = end;
        }
        y[i] = from_float<T>(sum + (bias ? to_float(bias[m]) : 0.f));
    }
}

ONNX_REWRITE_LOCAL_END
}  // namespace onnx_rewrite
