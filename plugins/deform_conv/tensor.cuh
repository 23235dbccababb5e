// Tiles on tensor cores, wgmma on sm_90a and mma.sync elsewhere: fp16 and bf16 with sums in fp32, fp32 as TF32, or
// as three products of TF32 that keep fp32's accuracy.
#pragma once

#include "instructions.cuh"
#include "prepare.cuh"

namespace onnx_rewrite {
ONNX_REWRITE_LOCAL_BEGIN

// Which filters a thread block computes, and where their weights begin. Tiles of the workspace may be taller than N.
struct Column { int group, first_filter; int64_t weights; int per_tile; };

__device__ __forceinline__ Column column_of(Plan const& plan, int tile_filters) {
    int const parts = plan.filter_tile / tile_filters, per_tile = plan.p.groups * plan.filter_tiles * parts;
    int const column = blockIdx.x % per_tile, tile = column / parts, part = column - tile * parts;
    int const group = tile / plan.filter_tiles;
    return {group, (tile - group * plan.filter_tiles) * plan.filter_tile + part * tile_filters,
        (int64_t)plan.weight_offset + ((int64_t)tile * plan.stages * plan.filter_tile * plan.copies + part * tile_filters) * kRowBytes,
        per_tile};
}

// Chunks of channels, from `first` on, of a thread block: where there are too few tiles for all multiprocessors, several
// blocks share a tile's chunks, write their sums as they are, and `finish` adds them.
struct Share { int first, count; };

__device__ __forceinline__ Share share_of(Plan const& plan) {
    int const first = (int)(blockIdx.y * plan.chunks / gridDim.y), end = (int)((blockIdx.y + 1) * plan.chunks / gridDim.y);
    return {first, end - first};
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
// Brings the weights of one tile, stage by stage, in the order in which they are used.
template <int N, int WM, int WK, int STAGES, int COPIES>
__device__ __forceinline__ void produce(Plan const& plan, char* shared, char const* workspace, int lane) {
    using S = Tile<N, WM, WK, STAGES, COPIES>;
    uint64_t* const full = reinterpret_cast<uint64_t*>(shared + S::kBarriers);
    uint64_t* const empty = full + STAGES;
    char const* from = workspace + column_of(plan, N).weights;
    int64_t const part_bytes = (int64_t)plan.filter_tile * kRowBytes, stage_bytes = part_bytes * COPIES;
    Share const share = share_of(plan);
    int slot = 0, turn = 0;
    wait_for_last_kernel();
    for (int block = 0; block < plan.blocks_per_group; ++block) {
        for (int tap_group = 0; tap_group < plan.taps; tap_group += kTapGroup) {
            int const count = min(kTapGroup, plan.taps - tap_group), segment = share.count * count;
            char const* const mine = from + share.first * count * stage_bytes;
            for (int i = 0; i < segment; i += WK) {
                if (turn > 0) barrier_wait(empty + slot, (turn - 1) & 1);
                copy_begin(full + slot, WK * S::kBytes, lane);
#pragma unroll
                for (int k = 0; k < WK; ++k)
#pragma unroll
                    for (int c = 0; c < COPIES; ++c)
                        copy_tile(shared + (slot * WK + k) * S::kBytes + c * S::kPart,
                            mine + min(i + k, segment - 1) * stage_bytes + c * part_bytes, S::kPart, full + slot, lane);
                copy_end(full + slot);
                if (++slot == STAGES) slot = 0, ++turn;
            }
            from += plan.chunks * count * stage_bytes;
        }
    }
}

// Samples, multiplies and writes one tile. kPacked: fp16 interpolates in fp16. kSplit: fp32 in three products of TF32.
template <typename T, bool kPacked, bool kSplit, int N, int WM, int WK, int STAGES>
__device__ __forceinline__ void consume(Plan const& plan, int first_position, char* shared, char const* __restrict__ workspace,
    T const* __restrict__ offset, T const* __restrict__ bias, T const* __restrict__ mask, T* __restrict__ y) {
    using S = Tile<N, WM, WK, STAGES, kSplit ? 2 : 1>;
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
        Share const share = share_of(plan);
        segment = share.count * count;
        index = 0;
        tap = part;
        chunk = share.first;
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
                if constexpr (sizeof(T) == 4 && !kSplit) a[i * 2 + r] = __float_as_uint(to_tf32(__uint_as_float(words[i])));
                else a[i * 2 + r] = words[i];
            }
        }
    };

    // Tensor cores cut the sum after every step where FFMA rounds it. So with kSplit a stage begins anew, and its sum is
    // added to those before in fp32.
    float d[N / 2], total[kSplit ? N / 2 : 1];
#pragma unroll
    for (int i = 0; i < N / 2; ++i) d[i] = 0.f;
#pragma unroll
    for (float& each : total) each = 0.f;
    int slot = 0;
    uint32_t phase = 0;
    auto step = [&](uint32_t (&now)[16], uint32_t (&next)[16]) {
        barrier_wait(full + slot, phase);
        uint32_t const tile = shared_address(shared) + (slot * WK + part) * S::kBytes;
        bool more;
        if constexpr (kSplit) {
            uint32_t low[16];
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                Halves const two = halves_of(__uint_as_float(now[i]));
                now[i] = __float_as_uint(two.high);
                low[i] = __float_as_uint(two.low);
            }
            multiply_halves<N>(d, now, low, tile, tile + S::kPart, lane);
            more = advance();
            if (more) sample(next);
            multiply_wait(d, now);
            multiply_wait(d, low);
        } else {
            multiply_stage<T, N>(d, now, tile, lane);
            more = advance();
            if (more) sample(next);
            multiply_wait(d, now);
        }
        __syncwarp();
        if (lane == 0) barrier_arrive(empty + slot);
        if constexpr (kSplit) {
#pragma unroll
            for (int i = 0; i < N / 2; ++i) total[i] += d[i];
        }
        if (++slot == STAGES) slot = 0, phase ^= 1;
        return more;
    };
    uint32_t even_stage[16], odd_stage[16];
    begin_segment();
    wait_for_last_kernel();
    sample(even_stage);
    while (step(even_stage, odd_stage) && step(odd_stage, even_stage)) {
    }

    if constexpr (kSplit) {
#pragma unroll
        for (int i = 0; i < N / 2; ++i) d[i] = total[i];
    }

    // Sums go through shared memory, 64 filters at a time, so that whole runs of positions are written.
    float* const sums = reinterpret_cast<float*>(shared);
    int const mine = thread % S::kPositions, number = first_position + mine;
    bool const real = number < plan.positions;
    Position const where = locate(plan, real ? number : 0);
    float* const partial = reinterpret_cast<float*>(const_cast<char*>(workspace) + plan.partial_offset)
        + (int64_t)blockIdx.y * p.m * plan.positions;
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
                float const sum = sums[f * S::kSums + mine];
                if (gridDim.y == 1) to[(int64_t)m * plan.ohw] = from_float<T>(sum + (bias ? to_float(bias[m]) : 0.f));
                else partial[(int64_t)m * plan.positions + number] = sum;
            }
        }
    }
}

#endif

template <typename T, bool kPacked, bool kSplit, int N, int WM, int WK, int STAGES>
__global__ void __launch_bounds__(Tile<N, WM, WK, STAGES, kSplit ? 2 : 1>::kThreads, 1) tensor_kernel(__grid_constant__ Plan const plan,
    int first_position, char const* __restrict__ workspace, T const* __restrict__ offset, T const* __restrict__ bias,
    T const* __restrict__ mask, T* __restrict__ y) {
#if __CUDA_ARCH__ >= 800
    using S = Tile<N, WM, WK, STAGES, kSplit ? 2 : 1>;
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
        consume<T, kPacked, kSplit, N, WM, WK, STAGES>(plan, first_position, shared, workspace, offset, bias, mask, y);
    } else {
#if ONNX_REWRITE_WGMMA
        if constexpr (S::kDealRegisters) asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
#endif
        if (thread < S::kConsumers + 32) produce<N, WM, WK, STAGES, kSplit ? 2 : 1>(plan, shared, workspace, lane);
    }
#endif
}

// Adds the parts of sums, and the bias: one thread per output.
template <typename T>
__global__ void __launch_bounds__(256) finish_kernel(__grid_constant__ Plan const plan, int parts,
    char const* __restrict__ workspace, T const* __restrict__ bias, T* __restrict__ y) {
    int64_t const i = blockIdx.x * (int64_t)256 + threadIdx.x, total = (int64_t)plan.p.m * plan.positions;
    wait_for_last_kernel();
    if (i >= total) return;
    int const m = (int)(i / plan.positions), number = (int)(i - (int64_t)m * plan.positions);
    float const* const partial = reinterpret_cast<float const*>(workspace + plan.partial_offset) + i;
    float sum = 0.f;
    for (int part = 0; part < parts; ++part) sum += partial[part * total];
    Position const where = locate(plan, number);
    y[((int64_t)where.n * plan.p.m + m) * plan.ohw + (int64_t)where.y * plan.p.ow + where.x]
        = from_float<T>(sum + (bias ? to_float(bias[m]) : 0.f));
}

ONNX_REWRITE_LOCAL_END
}  // namespace onnx_rewrite
