// The kernel before the tiles': x with channels last, framed by zero pixels, and the weights in the order of their use.
#pragma once

#include "sampling.cuh"

namespace onnx_rewrite {
ONNX_REWRITE_LOCAL_BEGIN

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
    alignas(16) float low[kVector];
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
        int const word = vector * 4 + k * kElement / 4;
        int const source = kTensorOrder ? fragment_word(word) : word;
        int const channel = chunk * kChunk + source * (4 / kElement) + k % (kElement == 2 ? 2 : 1);
        bool const real = filter < plan.filters && channel < plan.block_channels;
        int64_t const at
            = ((int64_t)(group * plan.filters + filter) * in_group + block * plan.block_channels + channel) * plan.taps + tap;
        values[k] = real ? weight[at] : from_float<T>(0.f);
        if constexpr (kTensorOrder && kElement == 4) {
            Halves const two = halves_of(values[k]);
            values[k] = plan.copies == 2 ? two.high : to_tf32(values[k]);
            low[k] = two.low;
        }
    }
    int const tap_group = tap / kTapGroup * kTapGroup, in_tap_group = min(kTapGroup, plan.taps - tap_group);
    int const stage = (block * plan.taps + tap_group) * plan.chunks + chunk * in_tap_group + (tap - tap_group);
    int const place = kTensorOrder ? vector ^ (row & 7) : vector;
    // Where each weight is a sum, the tile of the second numbers follows that of the first.
    int64_t const rows_before = ((int64_t)(group * plan.filter_tiles + tile_number) * plan.stages + stage) * plan.filter_tile;
    char* const to = workspace + plan.weight_offset + (rows_before * plan.copies + row) * kRowBytes + place * 16;
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<uint4*>(values);
    if constexpr (kTensorOrder && kElement == 4)
        if (plan.copies == 2) *reinterpret_cast<uint4*>(to + plan.filter_tile * kRowBytes) = *reinterpret_cast<uint4*>(low);
}

ONNX_REWRITE_LOCAL_END
}  // namespace onnx_rewrite
