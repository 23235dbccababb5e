// Deformable convolution (ONNX DeformConv) as implicit GEMM: y[m, p] = sum over k of weight[m, k] * sample[k, p].
//
// Three kernels give the same function:
//   direct   one thread per output element, any sizes; the yardstick of the others, and best for tiny groups;
//   simt     FFMA on tiles in shared memory: exact fp32, and every GPU without the tensor cores that `tensor` wants;
//   tensor   tensor cores, wgmma on sm_90a and mma.sync elsewhere: fp16 and bf16 with fp32 accumulation, fp32 as TF32.
//
// No column matrix exists in global memory. A small first kernel (`prepare`) writes x with channels last, framed by zero
// pixels, and the weights in the order in which the tiles are read; everything else happens in registers and shared
// memory. README.md beside this file tells why it is built this way and what it measures.
#include "kernel.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include <type_traits>

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#pragma nv_diag_suppress 177  // what only the kernel for tensor cores uses
#endif

namespace onnx_rewrite {
namespace {

constexpr int kRowBytes = 128;   // of one stage: a row of the weight tile, a pixel's channels; the width of the swizzle
constexpr int kTapGroup = 9;     // taps whose sampling points are kept in shared memory at a time
constexpr int kStrip = 16;       // output positions are numbered in strips of this width, so that a tile is a patch

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

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

// ----------------------------------------------------------------------------------------------------------------- plan

// What the kernels derive from the sizes. Channels fall into blocks, the largest runs that lie in one group and one
// offset group; each is padded to whole chunks of kRowBytes. A stage is one chunk at one tap.
struct Plan {
    DeformConv p;
    int taps, ohw, positions;
    int blocks_per_group, block_channels, chunk, chunks;  // chunk: channels per stage; chunks: per block
    int channels;                                         // per pixel in the workspace, padding included
    int pitch, image_pixels;                              // of the framed image
    int filters, filter_tile, filter_tiles;               // per group
    int stages;                                           // per group
    size_t weight_offset, bytes;                          // where the weights begin in the workspace, and its size
};

Plan make_plan(DeformConv const& p, int element, int filter_tile) {
    Plan plan{};
    plan.p = p;
    plan.taps = p.kh * p.kw;
    plan.ohw = p.oh * p.ow;
    plan.positions = p.n * plan.ohw;
    int a = p.groups, b = p.offset_groups;
    while (b) { int r = a % b; a = b; b = r; }
    int const blocks = p.groups / a * p.offset_groups;
    plan.blocks_per_group = blocks / p.groups;
    plan.block_channels = p.c / blocks;
    plan.chunk = kRowBytes / element;
    plan.chunks = ceil_div(plan.block_channels, plan.chunk);
    plan.channels = blocks * plan.chunks * plan.chunk;
    plan.pitch = p.w + 1;
    plan.image_pixels = (p.h + 3) * plan.pitch + 1;
    plan.filters = p.m / p.groups;
    plan.filter_tile = filter_tile;
    plan.filter_tiles = ceil_div(plan.filters, filter_tile);
    plan.stages = plan.blocks_per_group * plan.chunks * plan.taps;
    size_t const image = (size_t)p.n * plan.image_pixels * plan.channels * element;
    plan.weight_offset = (image + 1023) / 1024 * 1024;
    plan.bytes = plan.weight_offset + (size_t)p.groups * plan.filter_tiles * plan.stages * filter_tile * kRowBytes;
    return plan;
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

// --------------------------------------------------------------------------------------------------------------- direct

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

// -------------------------------------------------------------------------------------------------------------- prepare

// Lets the next kernel of the stream begin, and waits for the end of the one before: what needs nothing of `prepare`
// runs beside it.
__device__ __forceinline__ void start_next_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void wait_for_last_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Which 32-bit word of a chunk lies at word `d` of a row of weights. The sampling threads hold 16 consecutive bytes each;
// a fragment of the matrix instruction wants words t and t + 4 of every eight, so the weights are permuted to match.
__device__ __forceinline__ int fragment_word(int d) {
    int const step = d >> 3, a = (d >> 2) & 1, t = d & 3;
    return (step >> 1) * 16 + t * 4 + (step & 1) * 2 + a;
}

// 64 pixels of one chunk of channels, read along pixels and written along channels. Pixels are those of the image, in
// vectors of 16 bytes, where all rows of x are so aligned; else those of the framed image, one by one.
template <typename T> struct ImageTile {
    static constexpr int kVector = 16 / (int)sizeof(T), kChunk = kRowBytes / (int)sizeof(T);
    static constexpr int kPitch = 68;  // elements; lanes that read two vectors apart use other banks
    T values[kChunk][kPitch];
};

// The framed image's pixel number of a pixel of the image.
__device__ __forceinline__ int framed(Plan const& plan, int pixel) {
    int const row = pixel / plan.p.w;
    return (row + 2) * plan.pitch + pixel - row * plan.p.w + 1;
}

template <typename T>
__device__ __forceinline__ void prepare_image(
    Plan const& plan, ImageTile<T>& tile, int index, bool vectors, T const* __restrict__ x, T* __restrict__ to) {
    using Tile = ImageTile<T>;
    constexpr int kVector = Tile::kVector, kChunk = Tile::kChunk;
    DeformConv const& p = plan.p;
    int const chunk_count = plan.channels / kChunk, plane = p.h * p.w;
    int const pixels = vectors ? plane : plan.image_pixels, pixel_tiles = ceil_div(pixels, 64);
    int const which = index % chunk_count, rest = index / chunk_count;
    int const n = rest / pixel_tiles, begin = (rest - n * pixel_tiles) * 64;
    int const block = which / plan.chunks, within = (which - block * plan.chunks) * kChunk;
    int const real = min(kChunk, plan.block_channels - within);
    T const* const from = x + ((int64_t)n * p.c + block * plan.block_channels + within) * plane;
    if (vectors) {
        constexpr int kPerRow = 64 / kVector;
#pragma unroll
        for (int i = threadIdx.x; i < kChunk * kPerRow; i += 256) {
            int const c = i / kPerRow, first = i % kPerRow * kVector;
            uint4 v{0, 0, 0, 0};
            if (c < real && begin + first < plane)
                v = __ldg(reinterpret_cast<uint4 const*>(from + (int64_t)c * plane + begin + first));
            uint2* const at = reinterpret_cast<uint2*>(&tile.values[c][first]);
            at[0] = {v.x, v.y};
            at[1] = {v.z, v.w};
        }
    } else {
        int const lane = threadIdx.x & 63, pixel = begin + lane;
        int const row = pixel / plan.pitch - 2, column = pixel % plan.pitch - 1;
        bool const filled = row >= 0 && row < p.h && column >= 0;
        int64_t const at = (int64_t)row * p.w + column;
#pragma unroll
        for (int c = threadIdx.x >> 6; c < kChunk; c += 4)
            tile.values[c][lane] = filled && c < real ? from[(int64_t)c * plane + at] : from_float<T>(0.f);
    }
    __syncthreads();
    T* const out = to + (int64_t)n * plan.image_pixels * plan.channels + which * kChunk;
    int const vector = threadIdx.x >> 5 << 1 & 6 | (threadIdx.x & 1);  // a pair of lanes writes 32 bytes of a pixel
    for (int pixel = (threadIdx.x >> 1 & 15) + (threadIdx.x >> 7 << 4); pixel < 64; pixel += 32) {
        if (begin + pixel >= pixels) break;
        alignas(16) T values[kVector];
#pragma unroll
        for (int k = 0; k < kVector; ++k) values[k] = tile.values[vector * kVector + k][pixel];
        int const place = vectors ? framed(plan, begin + pixel) : begin + pixel;
        *reinterpret_cast<uint4*>(out + (int64_t)place * plan.channels + vector * kVector) = *reinterpret_cast<uint4*>(values);
    }
}

// Writes the frame's zeros where the image's pixels come in vectors: two rows above, one below and a column.
__device__ __forceinline__ void prepare_frame(Plan const& plan, int64_t index, int element, char* to) {
    int const vectors = plan.channels * element / 16, frame = 3 * plan.pitch + 1 + plan.p.h;
    if (index >= (int64_t)plan.p.n * frame * vectors) return;
    int const vector = (int)(index % vectors);
    int64_t const rest = index / vectors;
    int const n = (int)(rest / frame), i = (int)(rest % frame);
    int pixel = i;
    if (i >= 2 * plan.pitch + plan.p.h) pixel = i - 2 * plan.pitch - plan.p.h + (plan.p.h + 2) * plan.pitch;
    else if (i >= 2 * plan.pitch) pixel = (i - 2 * plan.pitch + 2) * plan.pitch;
    char* const at = to + ((int64_t)n * plan.image_pixels + pixel) * plan.channels * element + vector * 16;
    *reinterpret_cast<uint4*>(at) = uint4{0, 0, 0, 0};
}

template <typename T, bool kTensorOrder>
__global__ void __launch_bounds__(256) prepare_kernel(__grid_constant__ Plan const plan, int image_blocks, int frame_blocks,
    T const* __restrict__ x, T const* __restrict__ weight, char* __restrict__ workspace) {
    constexpr int kElement = sizeof(T), kVector = 16 / kElement, kChunk = kRowBytes / kElement;
    __shared__ ImageTile<T> tile;
    start_next_kernel();
    DeformConv const& p = plan.p;
    int const block_number = blockIdx.x;
    if (block_number < image_blocks) {
        prepare_image<T>(plan, tile, block_number, frame_blocks > 0, x, reinterpret_cast<T*>(workspace));
        return;
    }
    if (block_number < image_blocks + frame_blocks) {
        prepare_frame(plan, (int64_t)(block_number - image_blocks) * 256 + threadIdx.x, kElement, workspace);
        return;
    }
    // Weights: a thread writes 16 bytes of a row. Taps are the fastest index, as they are in the original.
    int64_t const first = (int64_t)(block_number - image_blocks - frame_blocks) * 256 + threadIdx.x;
    int64_t const rows = (int64_t)p.groups * plan.filter_tiles * plan.filter_tile;
    int64_t const total = rows * plan.blocks_per_group * plan.chunks * 8 * plan.taps;
    if (first >= total) return;
    int64_t rest = first;
    int const tap = (int)(rest % plan.taps); rest /= plan.taps;
    int const vector = (int)(rest % 8); rest /= 8;
    int const chunk = (int)(rest % plan.chunks); rest /= plan.chunks;
    int const block = (int)(rest % plan.blocks_per_group); rest /= plan.blocks_per_group;
    int const row = (int)(rest % plan.filter_tile); rest /= plan.filter_tile;
    int const tile_number = (int)(rest % plan.filter_tiles), group = (int)(rest / plan.filter_tiles);
    int const filter = tile_number * plan.filter_tile + row;
    int const in_group = p.c / p.groups;
    alignas(16) T values[kVector];
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
        int const word = vector * 4 + k * kElement / 4;
        int const source = kTensorOrder ? fragment_word(word) : word;
        int const channel = chunk * kChunk + source * (4 / kElement) + k % (kElement == 2 ? 2 : 1);
        bool const real = filter < plan.filters && channel < plan.block_channels;
        int64_t const at
            = ((int64_t)(group * plan.filters + filter) * in_group + block * plan.block_channels + channel) * plan.taps + tap;
        values[k] = real ? weight[at] : from_float<T>(0.f);
        if constexpr (kTensorOrder && kElement == 4) values[k] = to_tf32(values[k]);
    }
    int const tap_group = tap / kTapGroup * kTapGroup, in_tap_group = min(kTapGroup, plan.taps - tap_group);
    int const stage = (block * plan.taps + tap_group) * plan.chunks + chunk * in_tap_group + (tap - tap_group);
    int const place = kTensorOrder ? vector ^ (row & 7) : vector;
    char* to = workspace + plan.weight_offset
        + (((int64_t)(group * plan.filter_tiles + tile_number) * plan.stages + stage) * plan.filter_tile + row) * kRowBytes;
    *reinterpret_cast<uint4*>(to + place * 16) = *reinterpret_cast<uint4*>(values);
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

// ----------------------------------------------------------------------------------------------------------------- simt

constexpr int kSimtFilters = 128, kSimtPositions = 128, kSimtThreads = 256;

template <typename T> struct SimtShared {
    static constexpr int kChunk = kRowBytes / (int)sizeof(T);
    static constexpr int kDepth = 32;  // channels at a time in shared memory, as fp32
    float w[kDepth][kSimtFilters];
    float s[kDepth][kSimtPositions];
    Entry table[kTapGroup * kSimtPositions];
};

// Columns of the tiles in shared memory are permuted by row, so that neither writes nor reads meet in a bank.
__device__ __forceinline__ int swizzled(int k, int column) { return column ^ (((k >> 2) & 7) << 2); }

template <typename T> __device__ __forceinline__ void unpack(uint4 const& from, float* to) {
    T const* values = reinterpret_cast<T const*>(&from);
#pragma unroll
    for (int i = 0; i < 16 / (int)sizeof(T); ++i) to[i] = to_float(values[i]);
}

template <typename T>
__global__ void __launch_bounds__(kSimtThreads, 2) simt_kernel(__grid_constant__ Plan const plan,
    int first_position, char const* __restrict__ workspace,
    T const* __restrict__ offset, T const* __restrict__ bias, T const* __restrict__ mask, T* __restrict__ y) {
    using Shared = SimtShared<T>;
    constexpr int kVector = 16 / (int)sizeof(T), kDepth = Shared::kDepth, kVectors = kDepth / kVector;
    constexpr int kParts = Shared::kChunk / kDepth;
    extern __shared__ __align__(1024) char raw[];
    Shared& shared = *reinterpret_cast<Shared*>(raw);
    DeformConv const& p = plan.p;
    int const per_tile = plan.filter_tiles * p.groups;
    int const tile_column = blockIdx.x % per_tile;
    first_position += (int)(blockIdx.x / per_tile) * kSimtPositions;
    int const group = tile_column / plan.filter_tiles, tile = tile_column - group * plan.filter_tiles;
    int const tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
    int const pixel_bytes = plan.channels * (int)sizeof(T);
    int const row_bytes = plan.pitch * pixel_bytes;
    char const* const weights
        = workspace + plan.weight_offset + (int64_t)tile_column * plan.stages * kSimtFilters * kRowBytes;
    float sum[8][8] = {};
    int stage = 0;
    wait_for_last_kernel();
    for (int block = 0; block < plan.blocks_per_group; ++block) {
        int const global_block = group * plan.blocks_per_group + block;
        int const offset_group = (int)((int64_t)global_block * plan.block_channels / (p.c / p.offset_groups));
        for (int tap_group = 0; tap_group < plan.taps; tap_group += kTapGroup) {
            int const count = min(kTapGroup, plan.taps - tap_group);
            __syncthreads();
            fill_table<T, false>(plan, shared.table, kSimtPositions, threadIdx.x, kSimtThreads, first_position, offset,
                mask, offset_group, tap_group, count);
            for (int chunk = 0; chunk < plan.chunks; ++chunk) {
                for (int tap = 0; tap < count; ++tap, ++stage) {
                    for (int part = 0; part < kParts; ++part) {
                        if (chunk * Shared::kChunk + part * kDepth >= plan.block_channels) break;  // padding alone
                        __syncthreads();
#pragma unroll
                        for (int i = threadIdx.x; i < kSimtFilters * kVectors; i += kSimtThreads) {
                            int const row = i / kVectors, vector = i % kVectors;
                            float values[kVector];
                            unpack<T>(__ldg(reinterpret_cast<uint4 const*>(weights
                                          + ((int64_t)stage * kSimtFilters + row) * kRowBytes + (part * kVectors + vector) * 16)),
                                values);
#pragma unroll
                            for (int k = 0; k < kVector; ++k) shared.w[vector * kVector + k][swizzled(vector * kVector + k, row)] = values[k];
                        }
#pragma unroll
                        for (int i = threadIdx.x; i < kSimtPositions * kVectors; i += kSimtThreads) {
                            int const at = i / kVectors, vector = i % kVectors;
                            Entry const e = shared.table[tap * kSimtPositions + at];
                            char const* from = workspace + (int64_t)e.pixel * pixel_bytes
                                + ((global_block * plan.chunks + chunk) * Shared::kChunk + part * kDepth + vector * kVector) * (int)sizeof(T);
                            Corners const corners = load_corners(from, pixel_bytes, row_bytes);
                            Weights4 const w = weights_of(e);
                            float a[kVector], b[kVector], c[kVector], d[kVector];
                            unpack<T>(corners.v00, a);
                            unpack<T>(corners.v01, b);
                            unpack<T>(corners.v10, c);
                            unpack<T>(corners.v11, d);
#pragma unroll
                            for (int k = 0; k < kVector; ++k)
                                shared.s[vector * kVector + k][swizzled(vector * kVector + k, at)] = blend(w, a[k], b[k], c[k], d[k]);
                        }
                        __syncthreads();
#pragma unroll 4
                        for (int k = 0; k < kDepth; ++k) {
                            alignas(16) float w[8], s[8];
                            int const row = swizzled(k, ty * 4), column = swizzled(k, tx * 4);
                            *reinterpret_cast<float4*>(w) = *reinterpret_cast<float4*>(&shared.w[k][row]);
                            *reinterpret_cast<float4*>(w + 4) = *reinterpret_cast<float4*>(&shared.w[k][row + 64]);
                            *reinterpret_cast<float4*>(s) = *reinterpret_cast<float4*>(&shared.s[k][column]);
                            *reinterpret_cast<float4*>(s + 4) = *reinterpret_cast<float4*>(&shared.s[k][column + 64]);
#pragma unroll
                            for (int i = 0; i < 8; ++i)
#pragma unroll
                                for (int j = 0; j < 8; ++j) sum[i][j] = fmaf(w[i], s[j], sum[i][j]);
                        }
                    }
                }
            }
        }
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        int const number = first_position + tx * 4 + (j & 3) + (j >> 2) * 64;
        if (number >= plan.positions) continue;
        Position const at = locate(plan, number);
        int64_t const pixel = (int64_t)at.n * p.m * plan.ohw + (int64_t)at.y * p.ow + at.x;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            int const filter = tile * kSimtFilters + ty * 4 + (i & 3) + (i >> 2) * 64;
            if (filter >= plan.filters) continue;
            int const m = group * plan.filters + filter;
            y[pixel + (int64_t)m * plan.ohw] = from_float<T>(sum[i][j] + (bias ? to_float(bias[m]) : 0.f));
        }
    }
}

// --------------------------------------------------------------------------------------------------------------- tensor

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ONNX_REWRITE_WGMMA 1
#else
#define ONNX_REWRITE_WGMMA 0
#endif

__device__ __forceinline__ uint32_t shared_address(void const* p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
    asm volatile("{ .reg .b64 t; mbarrier.arrive.shared::cta.b64 t, [%0]; }" ::"r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ bool barrier_done(uint64_t* barrier, uint32_t parity) {
    uint32_t done;
#if __CUDA_ARCH__ >= 900
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
#else
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
#endif
    return done != 0;
}

__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
    while (!barrier_done(barrier, parity)) {
    }
}

// Brings `bytes` (a multiple of 512) to shared memory, by all lanes of one warp, and reports to `barrier`.
__device__ __forceinline__ void copy_tile(char* to, char const* from, int bytes, uint64_t* barrier, int lane) {
#if __CUDA_ARCH__ >= 900
    if (lane == 0)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                         shared_address(to)), "l"(from), "r"(bytes), "r"(shared_address(barrier)) : "memory");
#else
    for (int i = lane * 16; i < bytes; i += 512)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to + i)), "l"(from + i) : "memory");
#endif
}

// Before and after the copies of one stage: how the barrier learns what to wait for.
__device__ __forceinline__ void copy_begin(uint64_t* barrier, int bytes, int lane) {
#if __CUDA_ARCH__ >= 900
    if (lane == 0)
        asm volatile("{ .reg .b64 t; mbarrier.arrive.expect_tx.shared::cta.b64 t, [%0], %1; }" ::"r"(shared_address(barrier)),
                     "r"(bytes) : "memory");
#endif
}

__device__ __forceinline__ void copy_end(uint64_t* barrier) {
#if __CUDA_ARCH__ < 900
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}

__host__ __device__ constexpr int full_arrivals() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
    return 32;
#else
    return 1;
#endif
}

#if ONNX_REWRITE_WGMMA
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

#define LIST_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LIST_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LIST_64 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define LIST_96 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define F8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define F32(i) F8(i), F8(i + 8), F8(i + 16), F8(i + 24)
#define WGMMA(SHAPE, TYPES, D, A, B, TAIL, ...) \
    asm volatile("{ .reg .pred p; setp.eq.u32 p, 1, 1;\n" \
                 "wgmma.mma_async.sync.aligned." SHAPE ".f32." TYPES " {" D "}, {" A "}, " B ", p, 1, 1" TAIL ";\n}\n" \
                 : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define WGMMA_64(K, TYPES, TAIL) WGMMA("m64n64" K, TYPES, LIST_0, "%32, %33, %34, %35", "%36", TAIL, F32(0))
#define WGMMA_128(K, TYPES, TAIL) \
    WGMMA("m64n128" K, TYPES, LIST_0 ", " LIST_32, "%64, %65, %66, %67", "%68", TAIL, F32(0), F32(32))
#define WGMMA_256(K, TYPES, TAIL) \
    WGMMA("m64n256" K, TYPES, LIST_0 ", " LIST_32 ", " LIST_64 ", " LIST_96, "%128, %129, %130, %131", "%132", TAIL, \
          F32(0), F32(32), F32(64), F32(96))
#define WGMMA_ANY(K, TYPES, TAIL) \
    if constexpr (N == 64) WGMMA_64(K, TYPES, TAIL); \
    else if constexpr (N == 128) WGMMA_128(K, TYPES, TAIL); \
    else WGMMA_256(K, TYPES, TAIL)

// d [64 positions x N] += a [64 x 32 bytes] * b [N x 32 bytes], one warpgroup; a in fragments, b by descriptor.
template <typename T, int N> __device__ __forceinline__ void multiply(float (&d)[N / 2], uint32_t const* a, uint64_t b) {
    if constexpr (sizeof(T) == 4) { WGMMA_ANY("k8", "tf32.tf32", ""); }
    else if constexpr (IsHalf<T>::value) { WGMMA_ANY("k16", "f16.f16", ", 0"); }
    else { WGMMA_ANY("k16", "bf16.bf16", ", 0"); }
}

template <int N> __device__ __forceinline__ void keep(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

template <int N> __device__ __forceinline__ void keep(uint32_t (&a)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+r"(a[i])::"memory");
}

// Queues the four steps of a stage: 128 bytes of every row of the tile of weights, which is swizzled by 128 bytes.
template <typename T, int N>
__device__ __forceinline__ void multiply_stage(float (&d)[N / 2], uint32_t (&a)[16], uint32_t tile, int) {
    // Rows are kRowBytes apart, groups of eight rows 1024; bits 62 and 63: swizzle of 128 bytes.
    uint64_t const high = (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16;
    keep(d);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) multiply<T, N>(d, a + step * 4, high | ((tile + step * 32) & 0x3ffff) >> 4);
    wgmma_commit();
}

template <int N> __device__ __forceinline__ void multiply_wait(float (&d)[N], uint32_t (&a)[16]) {
    wgmma_wait();
    keep(d);
    keep(a);
}
#else
template <typename T> __device__ __forceinline__ void multiply(float* d, uint32_t const* a, uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
#define MMA(SHAPE, TYPES) \
    asm volatile("mma.sync.aligned." SHAPE ".row.col.f32." TYPES ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
    if constexpr (sizeof(T) == 4) MMA("m16n8k8", "tf32.tf32");
    else if constexpr (IsHalf<T>::value) MMA("m16n8k16", "f16.f16");
    else MMA("m16n8k16", "bf16.bf16");
#endif
}

template <typename T, int N>
__device__ __forceinline__ void multiply_stage(float (&d)[N / 2], uint32_t (&a)[16], uint32_t tile, int lane) {
#if __CUDA_ARCH__ >= 800
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
        uint32_t const place = tile + (lane & 7) * kRowBytes + (((pair * 4 + (lane >> 3)) ^ (lane & 7)) << 4);
#pragma unroll
        for (int block = 0; block < N / 8; ++block) {
            uint32_t b[4];
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(place + block * 8 * kRowBytes) : "memory");
            multiply<T>(d + block * 4, a + pair * 8, b[0], b[1]);
            multiply<T>(d + block * 4, a + pair * 8 + 4, b[2], b[3]);
        }
    }
#endif
}

template <int N> __device__ __forceinline__ void multiply_wait(float (&)[N], uint32_t (&)[16]) {}
#endif

// Which filters a thread block computes, and where their weights begin. Tiles of the workspace may be taller than N.
struct Column { int group, first_filter; int64_t weights; int per_tile; };

__device__ __forceinline__ Column column_of(Plan const& plan, int tile_filters) {
    int const parts = plan.filter_tile / tile_filters, per_tile = plan.p.groups * plan.filter_tiles * parts;
    int const column = blockIdx.x % per_tile, tile = column / parts, part = column - tile * parts;
    int const group = tile / plan.filter_tiles;
    return {group, (tile - group * plan.filter_tiles) * plan.filter_tile + part * tile_filters,
        (int64_t)plan.weight_offset + ((int64_t)tile * plan.stages * plan.filter_tile + part * tile_filters) * kRowBytes, per_tile};
}

// Tiles of N filters and 64 * WM positions. WM warpgroups lie beside each other along positions; WK of them share the
// stages of a tile and add their sums at the end. One more warp brings weights, STAGES steps ahead.
template <int N, int WM, int WK, int STAGES> struct Tile {
    static constexpr int kPositions = 64 * WM, kConsumers = 128 * WM * WK;
    // Registers are dealt out by warpgroups: sums of 256 filters fit only if the warp with the weights gives its own away.
    static constexpr bool kDealRegisters = N == 256;
    static constexpr int kThreads = kConsumers + (kDealRegisters ? 128 : 32);
    static constexpr int kBytes = N * kRowBytes, kSums = kPositions + 4;
    static constexpr int kRing = STAGES * WK * kBytes, kStaging = 64 * kSums * 4;
    static constexpr int kTable = ((kRing > kStaging ? kRing : kStaging) + 15) / 16 * 16;
    static constexpr int kBarriers = kTable + kTapGroup * kPositions * (int)sizeof(Entry);
    static constexpr int kShared = 1024 + kBarriers + 2 * STAGES * 8;
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
// Brings the weights of one tile, stage by stage, in the order in which they are used.
template <int N, int WM, int WK, int STAGES>
__device__ __forceinline__ void produce(Plan const& plan, char* shared, char const* workspace, int lane) {
    using S = Tile<N, WM, WK, STAGES>;
    uint64_t* const full = reinterpret_cast<uint64_t*>(shared + S::kBarriers);
    uint64_t* const empty = full + STAGES;
    char const* from = workspace + column_of(plan, N).weights;
    int64_t const stage_bytes = (int64_t)plan.filter_tile * kRowBytes;
    int slot = 0, turn = 0;
    wait_for_last_kernel();
    for (int block = 0; block < plan.blocks_per_group; ++block) {
        for (int tap_group = 0; tap_group < plan.taps; tap_group += kTapGroup) {
            int const segment = plan.chunks * min(kTapGroup, plan.taps - tap_group);
            for (int i = 0; i < segment; i += WK) {
                if (turn > 0) barrier_wait(empty + slot, (turn - 1) & 1);
                copy_begin(full + slot, WK * S::kBytes, lane);
#pragma unroll
                for (int k = 0; k < WK; ++k)
                    copy_tile(shared + (slot * WK + k) * S::kBytes, from + min(i + k, segment - 1) * stage_bytes,
                        S::kBytes, full + slot, lane);
                copy_end(full + slot);
                if (++slot == STAGES) slot = 0, ++turn;
            }
            from += segment * stage_bytes;
        }
    }
}

// Samples, multiplies and writes one tile.
template <typename T, bool kPacked, int N, int WM, int WK, int STAGES>
__device__ __forceinline__ void consume(Plan const& plan, int first_position, char* shared, char const* __restrict__ workspace,
    T const* __restrict__ offset, T const* __restrict__ bias, T const* __restrict__ mask, T* __restrict__ y) {
    using S = Tile<N, WM, WK, STAGES>;
    Entry* const table = reinterpret_cast<Entry*>(shared + S::kTable);
    uint64_t* const full = reinterpret_cast<uint64_t*>(shared + S::kBarriers);
    uint64_t* const empty = full + STAGES;
    DeformConv const& p = plan.p;
    int const thread = threadIdx.x, lane = thread & 31;
    Column const column = column_of(plan, N);
    int const group = column.group, first_filter = column.first_filter;
    first_position += (int)(blockIdx.x / column.per_tile) * S::kPositions;
    int const warpgroup = thread >> 7, part = warpgroup / WM;
    int const row = (warpgroup % WM) * 64 + ((thread >> 5) & 3) * 16 + (lane >> 2);
    // Of two neighbouring pixels in a quarter of a warp, one reads its first 64 bytes first and the other its last, so
    // that eight lanes cover all banks.
    bool const odd = lane & 4;
    int const pixel_bytes = plan.channels * (int)sizeof(T), row_bytes = plan.pitch * pixel_bytes;
    char const* const lane_base = workspace + (lane & 3) * 16 + (odd ? 64 : 0);
    int const other = odd ? -64 : 64;

    int block = 0, tap_group = 0, count = 0, segment = 0, index = 0, tap = 0, chunk = 0;
    auto barrier = [] { asm volatile("bar.sync 1, %0;" ::"n"(S::kConsumers) : "memory"); };
    auto begin_segment = [&] {
        count = min(kTapGroup, plan.taps - tap_group);
        segment = plan.chunks * count;
        index = 0;
        tap = part;
        chunk = 0;
        while (tap >= count) tap -= count, ++chunk;
        int const offset_group
            = (int)((int64_t)(group * plan.blocks_per_group + block) * plan.block_channels / (p.c / p.offset_groups));
        barrier();
        fill_table<T, kPacked>(plan, table, S::kPositions, thread, S::kConsumers, first_position, offset, mask,
            offset_group, tap_group, count);
        barrier();
    };
    auto advance = [&] {
        index += WK;
        tap += WK;
        while (tap >= count) tap -= count, ++chunk;
        if (index < segment) return true;
        tap_group += kTapGroup;
        if (tap_group >= plan.taps) tap_group = 0, ++block;
        if (block == plan.blocks_per_group) return false;
        begin_segment();
        return true;
    };
    auto sample = [&](uint32_t (&a)[16]) {
        if (WK > 1 && index + part >= segment) {  // nothing left for this one: zeros times a finite tile
#pragma unroll
            for (int i = 0; i < 16; ++i) a[i] = 0;
            return;
        }
        Entry const* const entries = table + tap * S::kPositions + row;
        char const* const base = lane_base + ((group * plan.blocks_per_group + block) * plan.chunks + chunk) * kRowBytes;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            Entry const e = entries[r * 8];
            char const* const from = base + (int64_t)e.pixel * pixel_bytes;
            Corners const near = load_corners(from, pixel_bytes, row_bytes);
            Corners const far = load_corners(from + other, pixel_bytes, row_bytes);
            uint4 const v = interpolate<T, kPacked>(e, near), u = interpolate<T, kPacked>(e, far);
            uint32_t const words[8] = {odd ? u.x : v.x, odd ? u.y : v.y, odd ? u.z : v.z, odd ? u.w : v.w,
                odd ? v.x : u.x, odd ? v.y : u.y, odd ? v.z : u.z, odd ? v.w : u.w};
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                if constexpr (sizeof(T) == 4) a[i * 2 + r] = __float_as_uint(to_tf32(__uint_as_float(words[i])));
                else a[i * 2 + r] = words[i];
            }
        }
    };

    float d[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; ++i) d[i] = 0.f;
    int slot = 0;
    uint32_t phase = 0;
    auto step = [&](uint32_t (&now)[16], uint32_t (&next)[16]) {
        barrier_wait(full + slot, phase);
        multiply_stage<T, N>(d, now, shared_address(shared) + (slot * WK + part) * S::kBytes, lane);
        bool const more = advance();
        if (more) sample(next);
        multiply_wait(d, now);
        __syncwarp();
        if (lane == 0) barrier_arrive(empty + slot);
        if (++slot == STAGES) slot = 0, phase ^= 1;
        return more;
    };
    uint32_t even_stage[16], odd_stage[16];
    begin_segment();
    wait_for_last_kernel();
    sample(even_stage);
    while (step(even_stage, odd_stage) && step(odd_stage, even_stage)) {
    }

    // Sums go through shared memory, 64 filters at a time, so that whole runs of positions are written.
    float* const sums = reinterpret_cast<float*>(shared);
    int const mine = thread % S::kPositions, number = first_position + mine;
    bool const real = number < plan.positions;
    Position const where = locate(plan, real ? number : 0);
    T* const to = y + (int64_t)where.n * p.m * plan.ohw + (int64_t)where.y * p.ow + where.x;
#pragma unroll
    for (int pass = 0; pass < N / 64; ++pass) {
        if (first_filter + pass * 64 >= plan.filters) break;
        barrier();
#pragma unroll
        for (int k = WK - 1; k >= 0; --k) {
            if (part == k) {
#pragma unroll
                for (int i = 0; i < 32; ++i) {
                    float* const at = sums + ((i >> 2) * 8 + (lane & 3) * 2 + (i & 1)) * S::kSums + row + (i & 2 ? 8 : 0);
                    *at = d[pass * 32 + i] + (k < WK - 1 ? *at : 0.f);
                }
            }
            barrier();
        }
        if (real) {
            int const end = min(64, plan.filters - first_filter - pass * 64);
            for (int f = thread / S::kPositions; f < end; f += S::kConsumers / S::kPositions) {
                int const m = group * plan.filters + first_filter + pass * 64 + f;
                float const value = sums[f * S::kSums + mine] + (bias ? to_float(bias[m]) : 0.f);
                to[(int64_t)m * plan.ohw] = from_float<T>(value);
            }
        }
    }
}

#endif

template <typename T, bool kPacked, int N, int WM, int WK, int STAGES>
__global__ void __launch_bounds__(Tile<N, WM, WK, STAGES>::kThreads, 1) tensor_kernel(__grid_constant__ Plan const plan,
    int first_position, char const* __restrict__ workspace, T const* __restrict__ offset, T const* __restrict__ bias,
    T const* __restrict__ mask, T* __restrict__ y) {
#if __CUDA_ARCH__ >= 800
    using S = Tile<N, WM, WK, STAGES>;
    extern __shared__ char raw[];
    char* const shared = raw + ((1024 - (shared_address(raw) & 1023)) & 1023);
    uint64_t* const full = reinterpret_cast<uint64_t*>(shared + S::kBarriers);
    uint64_t* const empty = full + STAGES;
    int const thread = threadIdx.x, lane = thread & 31;
    if (column_of(plan, N).first_filter >= plan.filters) return;
    if (thread == 0) {
        for (int i = 0; i < STAGES; ++i) {
            barrier_init(full + i, full_arrivals());
            barrier_init(empty + i, S::kConsumers / 32);
        }
#if __CUDA_ARCH__ >= 900
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
    }
    __syncthreads();

    if (thread < S::kConsumers) {
#if ONNX_REWRITE_WGMMA
        if constexpr (S::kDealRegisters) asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
#endif
        consume<T, kPacked, N, WM, WK, STAGES>(plan, first_position, shared, workspace, offset, bias, mask, y);
    } else {
#if ONNX_REWRITE_WGMMA
        if constexpr (S::kDealRegisters) asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
#endif
        if (thread < S::kConsumers + 32) produce<N, WM, WK, STAGES>(plan, shared, workspace, lane);
    }
#endif
}

// ---------------------------------------------------------------------------------------------------------------- launch

// N, 64 * WM, WK, STAGES; and what the choice of a tile goes by: microseconds for a turn of the loop on an H100, where every
// multiprocessor has many such blocks to run, and where it has one alone, from the measurements in README.md.
struct Shape { int filters, positions, depth, stages; float turn, alone; };

#define TILES(X) \
    X(0, 256, 2, 1, 3, 1.29f, 1.08f) \
    X(1, 128, 2, 1, 4, 1.05f, 0.87f) \
    X(2, 128, 1, 1, 4, 0.79f, 0.68f) \
    X(3, 128, 1, 2, 3, 1.19f, 1.05f) \
    X(4, 64, 2, 1, 4, 0.83f, 0.75f) \
    X(5, 64, 1, 1, 4, 0.40f, 0.58f) \
    X(6, 64, 1, 2, 4, 0.95f, 0.89f)

#define SHAPE_OF(I, N, WM, WK, STAGES, TURN, ALONE) {N, 64 * WM, WK, STAGES, TURN, ALONE},
constexpr Shape kShapes[] = {TILES(SHAPE_OF)};
#undef SHAPE_OF
constexpr int kShapeCount = sizeof(kShapes) / sizeof(kShapes[0]);
constexpr int kWide = 64;  // added to a tactic: fp16 interpolates in fp32

struct Device { int major, minor, processors, shared; };

cudaError_t current_device(Device* found) {
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (!error) error = cudaDeviceGetAttribute(&found->major, cudaDevAttrComputeCapabilityMajor, device);
    if (!error) error = cudaDeviceGetAttribute(&found->minor, cudaDevAttrComputeCapabilityMinor, device);
    if (!error) error = cudaDeviceGetAttribute(&found->processors, cudaDevAttrMultiProcessorCount, device);
    if (!error) error = cudaDeviceGetAttribute(&found->shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return error;
}

int element_of(Type type) { return type == Type::kFloat ? 4 : 2; }

int shared_of(int shape) {
    switch (shape) {
#define SHARED_OF(I, N, WM, WK, STAGES, TURN, ALONE) case I: return Tile<N, WM, WK, STAGES>::kShared;
        TILES(SHARED_OF)
#undef SHARED_OF
    }
    return 0;
}

// Whether positions, pixels and thread blocks can be numbered in 32 bits, which the plan's own fields then are.
bool small_enough(Plan const& plan, int element) {
    DeformConv const& p = plan.p;
    int64_t const limit = (int64_t)1 << 31;
    int64_t const image = ((int64_t)p.h + 3) * ((int64_t)p.w + 1) + 1, plane = (int64_t)p.oh * p.ow;
    return image < limit && plane < limit && p.n * image < limit && p.n * plane < limit - 1024
        && ((int64_t)p.w + 1) * plan.channels * element < limit
        && (p.n * image / 64 + p.n) * (plan.channels * element / kRowBytes) < limit / 2;
}

// Channels are padded to whole stages and filters to whole tiles: below a quarter of real work no tile pays.
bool thin(Plan const& plan) { return plan.block_channels * 4 < plan.chunk || plan.filters < 8; }

// How positions are shared out: the first `positions` go to tiles of one shape, in whole waves of thread blocks, and the
// rest to tiles of another, if a last wave would leave most multiprocessors idle.
struct Schedule { int positions, rest_shape; float time; };

Schedule schedule(Plan const& plan, int shape, Device const& device) {
    auto turns = [&](Shape const& s, int64_t blocks) {
        return (float)ceil_div(plan.stages, s.depth) * (blocks <= device.processors ? s.alone : s.turn) + 3.f;
    };
    Shape const& s = kShapes[shape];
    int const columns = plan.p.groups * plan.filter_tiles;
    int64_t const blocks = (int64_t)ceil_div(plan.positions, s.positions) * columns;
    int64_t const waves = (blocks + device.processors - 1) / device.processors;
    Schedule best{plan.positions, -1, (float)waves * turns(s, blocks)};
    if (waves < 2) return best;
    int64_t const whole = (waves - 1) * device.processors / columns * s.positions;
    if (whole <= 0 || whole >= plan.positions) return best;
    int const rest = plan.positions - (int)whole;
    float const before = (float)(waves - 1) * turns(s, blocks) + 4.f;  // one more launch
    for (int i = 0; i < kShapeCount; ++i) {
        Shape const& r = kShapes[i];
        if (plan.filter_tile % r.filters || shared_of(i) > device.shared) continue;
        int64_t const rest_blocks = (int64_t)ceil_div(rest, r.positions) * columns * (plan.filter_tile / r.filters);
        float const time = before + (float)((rest_blocks + device.processors - 1) / device.processors) * turns(r, rest_blocks);
        if (time < best.time) best = {(int)whole, i, time};
    }
    return best;
}

// The tactic that `kAuto` stands for.
int choose(DeformConv const& p, Type type, Math math, Device const& device) {
    Plan const plan = make_plan(p, element_of(type), 64);
    if (thin(plan) || !small_enough(plan, element_of(type))) return (int)Tactic::kDirect;
    bool const tensor = device.major >= 8 && (type != Type::kFloat || math == Math::kTF32);
    if (!tensor) return (int)Tactic::kSimt;
    int best = -1;
    float least = 0.f;
    for (int i = 0; i < kShapeCount; ++i) {
        if (shared_of(i) > device.shared) continue;
        float const time = schedule(make_plan(p, element_of(type), kShapes[i].filters), i, device).time;
        if (best < 0 || time < least) best = i, least = time;
    }
    return best < 0 ? (int)Tactic::kSimt : (int)Tactic::kTensor + best;
}

// Whether a tactic can run a problem on a device.
bool runs(Plan const& plan, Type type, Math math, int tactic, Device const& device) {
    if (tactic == (int)Tactic::kDirect) return true;
    if (!small_enough(plan, element_of(type))) return false;
    if (tactic == (int)Tactic::kSimt) return (int)sizeof(SimtShared<float>) <= device.shared;
    int const base = tactic & ~kWide;
    if (tactic & kWide && type != Type::kHalf) return false;
    int const shape = base - (int)Tactic::kTensor;
    return shape >= 0 && shape < kShapeCount && device.major >= 8 && shared_of(shape) <= device.shared
        && (type != Type::kFloat || math == Math::kTF32);
}

int filter_tile_of(int tactic) {
    int const shape = (tactic & ~kWide) - (int)Tactic::kTensor;
    return shape >= 0 && shape < kShapeCount ? kShapes[shape].filters : kSimtFilters;
}

template <typename T>
struct Call {
    Plan plan;
    T const *x, *weight, *offset, *bias, *mask;
    T* y;
    char* workspace;
    cudaStream_t stream;
    Device device;

    cudaError_t direct() const {
        int64_t const total = (int64_t)plan.p.n * plan.p.m * plan.p.oh * plan.p.ow;
        int const blocks = (int)((total + 255) / 256 < 1 << 20 ? (total + 255) / 256 : 1 << 20);
        direct_kernel<T><<<blocks, 256, 0, stream>>>(plan.p, x, weight, offset, bias, mask, y);
        return cudaGetLastError();
    }

    template <bool kTensorOrder> cudaError_t prepare() const {
        // A row of x begins at a multiple of 16 bytes if its planes are that long.
        bool const vectors = (int64_t)plan.p.h * plan.p.w * sizeof(T) % 16 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
        int const pixels = vectors ? plan.p.h * plan.p.w : plan.image_pixels, chunk_count = plan.channels / plan.chunk;
        int64_t const image_blocks = (int64_t)plan.p.n * ceil_div(pixels, 64) * chunk_count;
        int64_t const frame = vectors ? (int64_t)plan.p.n * (3 * plan.pitch + 1 + plan.p.h) * chunk_count * 8 : 0;
        int64_t const rows = (int64_t)plan.p.groups * plan.filter_tiles * plan.stages * plan.filter_tile * 8;
        int64_t const blocks = image_blocks + (frame + 255) / 256 + (rows + 255) / 256;
        if (blocks >= (int64_t)1 << 31) return cudaErrorNotSupported;
        prepare_kernel<T, kTensorOrder><<<(int)blocks, 256, 0, stream>>>(
            plan, (int)image_blocks, (int)((frame + 255) / 256), x, weight, workspace);
        return cudaGetLastError();
    }

    template <typename Kernel>
    cudaError_t launch(Kernel kernel, int first, int count, int positions, int threads, int shared, int parts = 1) const {
        cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
        if (error) return error;
        int64_t const blocks = (int64_t)ceil_div(count, positions) * plan.filter_tiles * parts * plan.p.groups;
        if (blocks >= (int64_t)1 << 31) return cudaErrorNotSupported;
        cudaLaunchAttribute attribute{};
        attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute.val.programmaticStreamSerializationAllowed = 1;
        cudaLaunchConfig_t config{};
        config.gridDim = dim3((unsigned)blocks);
        config.blockDim = dim3(threads);
        config.dynamicSmemBytes = shared;
        config.stream = stream;
        config.attrs = &attribute;
        config.numAttrs = device.major >= 9 ? 1 : 0;  // the second kernel begins while the first runs
        return cudaLaunchKernelEx(&config, kernel, plan, first, static_cast<char const*>(workspace), offset, bias, mask, y);
    }

    cudaError_t simt() const {
        cudaError_t const error = prepare<false>();
        return error ? error : launch(simt_kernel<T>, 0, plan.positions, kSimtPositions, kSimtThreads, (int)sizeof(SimtShared<T>));
    }

    template <bool kPacked> cudaError_t tiles(int shape, int first, int count) const {
        switch (shape) {
#define LAUNCH(I, N, WM, WK, STAGES, TURN, ALONE) \
    case I: \
        return launch(tensor_kernel<T, kPacked, N, WM, WK, STAGES>, first, count, Tile<N, WM, WK, STAGES>::kPositions, \
            Tile<N, WM, WK, STAGES>::kThreads, Tile<N, WM, WK, STAGES>::kShared, plan.filter_tile / N);
            TILES(LAUNCH)
#undef LAUNCH
        }
        return cudaErrorNotSupported;
    }

    template <bool kPacked> cudaError_t tensor(int shape) const {
        cudaError_t error = prepare<true>();
        Schedule const plan_of_work = schedule(plan, shape, device);
        if (!error) error = tiles<kPacked>(shape, 0, plan_of_work.positions);
        if (!error && plan_of_work.rest_shape >= 0)
            error = tiles<kPacked>(plan_of_work.rest_shape, plan_of_work.positions, plan.positions - plan_of_work.positions);
        return error;
    }

    cudaError_t run(int tactic) const {
        if (tactic == (int)Tactic::kDirect) return direct();
        if (tactic == (int)Tactic::kSimt) return simt();
        int const shape = (tactic & ~kWide) - (int)Tactic::kTensor;
        if constexpr (IsHalf<T>::value)
            if (!(tactic & kWide)) return tensor<true>(shape);
        return tensor<false>(shape);
    }
};

}  // namespace

char const* refusal(DeformConv const& p) {
    if (p.n < 0 || p.h < 0 || p.w < 0 || p.oh < 0 || p.ow < 0) return "a size is negative";
    if (p.c < 1 || p.m < 1) return "there are no channels or no filters";
    if (p.kh < 1 || p.kw < 1) return "the kernel is empty";
    if (p.stride_h < 1 || p.stride_w < 1) return "strides must be at least 1";
    if (p.dilation_h < 1 || p.dilation_w < 1) return "dilations must be at least 1";
    if (p.groups < 1 || p.c % p.groups || p.m % p.groups) return "channels and filters are not divisible by the groups";
    if (p.offset_groups < 1 || p.c % p.offset_groups) return "channels are not divisible by the offset groups";
    return nullptr;
}

size_t workspace_size(DeformConv const& p, Type type, Math math, int tactic) {
    Device device{};
    if (refusal(p) || current_device(&device)) return 0;
    if ((int64_t)p.n * p.oh * p.ow == 0) return 0;
    if (tactic == (int)Tactic::kAuto) tactic = choose(p, type, math, device);
    Plan const plan = make_plan(p, element_of(type), filter_tile_of(tactic));
    if (tactic == (int)Tactic::kDirect || !runs(plan, type, math, tactic, device)) return 0;
    return plan.bytes;
}

size_t largest_workspace_size(DeformConv const& p, Type type, Math math) {
    (void)math;
    if (refusal(p) || (int64_t)p.n * p.oh * p.ow == 0) return 0;
    size_t most = 0;
    for (int filter_tile : {64, 128, 256}) {
        Plan const plan = make_plan(p, element_of(type), filter_tile);
        if (!thin(plan) && plan.bytes > most) most = plan.bytes;
    }
    return most;
}

cudaError_t deform_conv(DeformConv const& p, Type type, Math math, int tactic, void const* x, void const* weight,
    void const* offset, void const* bias, void const* mask, void* y, void* workspace, cudaStream_t stream) {
    if (refusal(p)) return cudaErrorInvalidValue;
    if ((int64_t)p.n * p.oh * p.ow == 0) return cudaSuccess;
    Device device{};
    cudaError_t const error = current_device(&device);
    if (error) return error;
    if (tactic == (int)Tactic::kAuto) tactic = choose(p, type, math, device);
    Plan const plan = make_plan(p, element_of(type), filter_tile_of(tactic));
    if (!runs(plan, type, math, tactic, device)) return cudaErrorNotSupported;
    auto call = [&](auto const* typed) {
        using T = std::remove_cv_t<std::remove_pointer_t<decltype(typed)>>;
        return Call<T>{plan, static_cast<T const*>(x), static_cast<T const*>(weight), static_cast<T const*>(offset),
            static_cast<T const*>(bias), static_cast<T const*>(mask), static_cast<T*>(y), static_cast<char*>(workspace), stream, device}
            .run(tactic);
    };
    switch (type) {
    case Type::kFloat: return call(static_cast<float const*>(nullptr));
    case Type::kHalf: return call(static_cast<__half const*>(nullptr));
    case Type::kBFloat16: return call(static_cast<__nv_bfloat16 const*>(nullptr));
    }
    return cudaErrorInvalidValue;
}

}  // namespace onnx_rewrite

// For callers without C++: the sizes are the seventeen numbers of DeformConv in order.
extern "C" {
size_t onnx_rewrite_deform_conv_workspace(int const* sizes, int type, int math, int tactic) {
    return onnx_rewrite::workspace_size(*reinterpret_cast<onnx_rewrite::DeformConv const*>(sizes),
        (onnx_rewrite::Type)type, (onnx_rewrite::Math)math, tactic);
}

int onnx_rewrite_deform_conv(int const* sizes, int type, int math, int tactic, void const* x, void const* weight,
    void const* offset, void const* bias, void const* mask, void* y, void* workspace, void* stream) {
    return (int)onnx_rewrite::deform_conv(*reinterpret_cast<onnx_rewrite::DeformConv const*>(sizes),
        (onnx_rewrite::Type)type, (onnx_rewrite::Math)math, tactic, x, weight, offset, bias, mask, y, workspace,
        (cudaStream_t)stream);
}
}
