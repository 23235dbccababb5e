// How the image is sampled: where points lie, what their corners weigh, and the types of numbers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "plan.h"

namespace onnx_rewrite {
ONNX_REWRITE_LOCAL_BEGIN

// ---------------------------------------------------------------------------------------------------------------- types

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(__half v) { return __half2float(v); }
__device__ __forceinline__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
template <typename T> __device__ __forceinline__ T from_float(float v);
template <> __device__ __forceinline__ float from_float<float>(float v) { return v; }
template <> __device__ __forceinline__ __half from_float<__half>(float v) { return __float2half_rn(v); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float v) { return __float2bfloat16_rn(v); }

template <typename T> struct IsHalf { static constexpr bool value = false; };
template <> struct IsHalf<__half> { static constexpr bool value = true; };

// The nearest TF32 number, ties away from zero: the tensor cores would cut the low bits off.
__device__ __forceinline__ float to_tf32(float v) {
#if __CUDA_ARCH__ >= 800
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(v));
    return __uint_as_float(bits);
#else
    return v;
#endif
}

// A number as the sum of two of TF32, which between them keep 22 bits. What has no end (infinity, NaN) or would gain none
// by rounding stands in `low` alone: beside it in `high`, the other factor's empty half would make NaN of infinity.
struct Halves { float high, low; };

__device__ __forceinline__ Halves halves_of(float v) {
    float const high = to_tf32(v);
    bool const finite = fabsf(high) < __int_as_float(0x7f800000);
    return {finite ? high : 0.f, finite ? to_tf32(v - high) : v};
}

// ------------------------------------------------------------------------------------------------------------- sampling

// Where tile position number `i` of all n * oh * ow lies. Strips of kStrip columns are walked from top to bottom, so that
// neighbours in number are neighbours in the image in both directions and share the pixels that they read.
struct Position { int n, y, x; };

__device__ __forceinline__ Position locate(Plan const& plan, int i) {
    Position at;
    at.n = i / plan.ohw;
    int rest = i - at.n * plan.ohw;
    int const strip = rest / (kStrip * plan.p.oh);
    rest -= strip * kStrip * plan.p.oh;
    int const width = min(kStrip, plan.p.ow - strip * kStrip);
    at.y = rest / width;
    at.x = strip * kStrip + rest - at.y * width;
    return at;
}

// One sampling point: `y` and `x` in pixels of the input, and the mask's value.
struct Point { float y, x, mask; };

template <typename T>
__device__ __forceinline__ Point point(
    DeformConv const& p, T const* offset, T const* mask, int n, int group, int tap, int oy, int ox) {
    int64_t const plane = (int64_t)p.oh * p.ow;
    int64_t const at = ((int64_t)n * p.offset_groups + group) * (p.kh * p.kw) + tap;
    int64_t const pixel = (int64_t)oy * p.ow + ox;
    Point found;
    int const i = tap / p.kw, j = tap - i * p.kw;
    found.y = (float)(oy * p.stride_h - p.pad_top + i * p.dilation_h) + to_float(offset[at * 2 * plane + pixel]);
    found.x = (float)(ox * p.stride_w - p.pad_left + j * p.dilation_w) + to_float(offset[(at * 2 + 1) * plane + pixel]);
    found.mask = mask ? to_float(mask[at * plane + pixel]) : 1.f;
    return found;
}

// Whether a point touches the image; false for NaN, so that no address is ever made of one.
__device__ __forceinline__ bool inside(DeformConv const& p, float y, float x) {
    return y > -1.f && x > -1.f && y < (float)p.h && x < (float)p.w;
}

// A sampling point as the tiles keep it: the pixel of its upper left corner in the framed image, and what the four
// corners weigh: as two pairs of T for 16-bit interpolation, else the two fractions and the mask.
struct alignas(16) Entry { int pixel; uint32_t a, b, c; };

// Fills the table of the taps [tap_group, tap_group + count) of an offset group, [tap][tile position].
// The point's frame of zeros makes ONNX's bounds: a corner outside reads a zero pixel, never a masked NaN.
template <typename T, bool kPacked>
__device__ __forceinline__ void fill_table(Plan const& plan, Entry* table, int tile_positions, int thread, int threads,
    int first_position, T const* offset, T const* mask, int group, int tap_group, int count) {
    DeformConv const& p = plan.p;
    int const mine = thread % tile_positions;
    int const number = first_position + mine;
    bool const real = number < plan.positions;
    Position const where = locate(plan, real ? number : 0);
    for (int tap = thread / tile_positions; tap < count; tap += threads / tile_positions) {
        Entry entry{0, 0, 0, 0};
        if (real) {
            Point const at = point(p, offset, mask, where.n, group, tap_group + tap, where.y, where.x);
            bool const hit = inside(p, at.y, at.x);
            float const fy = hit ? floorf(at.y) : 0.f, fx = hit ? floorf(at.x) : 0.f;
            // The frame's first two rows are zeros: a point that misses reads them.
            entry.pixel = where.n * plan.image_pixels + (hit ? ((int)fy + 2) * plan.pitch + (int)fx + 1 : 0);
            float const ly = hit ? at.y - fy : 0.f, lx = hit ? at.x - fx : 0.f;
            if constexpr (kPacked) {
                T const pairs[4] = {from_float<T>((1.f - ly) * (1.f - lx) * at.mask), from_float<T>((1.f - ly) * lx * at.mask),
                    from_float<T>(ly * (1.f - lx) * at.mask), from_float<T>(ly * lx * at.mask)};
                uint16_t const* bits = reinterpret_cast<uint16_t const*>(pairs);
                entry.a = bits[0] | (uint32_t)bits[1] << 16;
                entry.b = bits[2] | (uint32_t)bits[3] << 16;
            } else {
                entry.a = __float_as_uint(ly);
                entry.b = __float_as_uint(lx);
                entry.c = __float_as_uint(at.mask);
            }
        }
        table[tap * tile_positions + mine] = entry;
    }
}

// Four corners of 16 bytes each, weighed and added: how depends on the type.
struct Corners { uint4 v00, v01, v10, v11; };

__device__ __forceinline__ Corners load_corners(char const* from, int pixel_bytes, int row_bytes) {
    Corners found;
    found.v00 = __ldg(reinterpret_cast<uint4 const*>(from));
    found.v01 = __ldg(reinterpret_cast<uint4 const*>(from + pixel_bytes));
    found.v10 = __ldg(reinterpret_cast<uint4 const*>(from + row_bytes));
    found.v11 = __ldg(reinterpret_cast<uint4 const*>(from + row_bytes + pixel_bytes));
    return found;
}

struct Weights4 { float w00, w01, w10, w11; };

__device__ __forceinline__ Weights4 weights_of(Entry const& e) {
    float const ly = __uint_as_float(e.a), lx = __uint_as_float(e.b), mask = __uint_as_float(e.c);
    float const top = (1.f - ly) * mask, bottom = ly * mask;
    return {top * (1.f - lx), top * lx, bottom * (1.f - lx), bottom * lx};
}

__device__ __forceinline__ float blend(Weights4 const& w, float a, float b, float c, float d) {
    return fmaf(w.w11, d, fmaf(w.w10, c, fmaf(w.w01, b, w.w00 * a)));
}

template <typename T> __device__ __forceinline__ uint32_t blend_word(Weights4 const& w, uint32_t a, uint32_t b, uint32_t c, uint32_t d);

template <> __device__ __forceinline__ uint32_t blend_word<float>(Weights4 const& w, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    return __float_as_uint(blend(w, __uint_as_float(a), __uint_as_float(b), __uint_as_float(c), __uint_as_float(d)));
}

template <> __device__ __forceinline__ uint32_t blend_word<__half>(Weights4 const& w, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    auto wide = [](uint32_t v) { return __half22float2(*reinterpret_cast<__half2*>(&v)); };
    float2 const fa = wide(a), fb = wide(b), fc = wide(c), fd = wide(d);
    __half2 const sum = __floats2half2_rn(blend(w, fa.x, fb.x, fc.x, fd.x), blend(w, fa.y, fb.y, fc.y, fd.y));
    return *reinterpret_cast<uint32_t const*>(&sum);
}

template <> __device__ __forceinline__ uint32_t blend_word<__nv_bfloat16>(Weights4 const& w, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    auto low = [](uint32_t v) { return __uint_as_float(v << 16); };
    auto high = [](uint32_t v) { return __uint_as_float(v & 0xffff0000u); };
    __nv_bfloat162 const sum = __floats2bfloat162_rn(
        blend(w, low(a), low(b), low(c), low(d)), blend(w, high(a), high(b), high(c), high(d)));
    return *reinterpret_cast<uint32_t const*>(&sum);
}

template <typename T, bool kPacked>
__device__ __forceinline__ uint4 interpolate(Entry const& e, Corners const& v) {
    uint4 out;
    if constexpr (kPacked) {  // fp16 only: four packed multiply-adds per two channels
        auto half2_of = [](uint32_t bits) { return *reinterpret_cast<__half2*>(&bits); };
        __half2 const w0 = __low2half2(half2_of(e.a)), w1 = __high2half2(half2_of(e.a));
        __half2 const w2 = __low2half2(half2_of(e.b)), w3 = __high2half2(half2_of(e.b));
        auto word = [&](uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
            __half2 const sum = __hfma2(w3, half2_of(d), __hfma2(w2, half2_of(c), __hfma2(w1, half2_of(b), __hmul2(w0, half2_of(a)))));
            return *reinterpret_cast<uint32_t const*>(&sum);
        };
        out.x = word(v.v00.x, v.v01.x, v.v10.x, v.v11.x);
        out.y = word(v.v00.y, v.v01.y, v.v10.y, v.v11.y);
        out.z = word(v.v00.z, v.v01.z, v.v10.z, v.v11.z);
        out.w = word(v.v00.w, v.v01.w, v.v10.w, v.v11.w);
    } else {
        Weights4 const w = weights_of(e);
        out.x = blend_word<T>(w, v.v00.x, v.v01.x, v.v10.x, v.v11.x);
        out.y = blend_word<T>(w, v.v00.y, v.v01.y, v.v10.y, v.v11.y);
        out.z = blend_word<T>(w, v.v00.z, v.v01.z, v.v10.z, v.v11.z);
        out.w = blend_word<T>(w, v.v00.w, v.v01.w, v.v10.w, v.v11.w);
    }
    return out;
}

ONNX_REWRITE_LOCAL_END
}  // namespace onnx_rewrite
