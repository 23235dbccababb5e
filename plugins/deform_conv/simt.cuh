// FFMA on tiles in shared memory: plain fp32, and every GPU without the tensor cores that `tensor` wants.
#pragma once

#include "prepare.cuh"

namespace onnx_rewrite {
ONNX_REWRITE_LOCAL_BEGIN

template <typename T> struct SimtShared {
    static constexpr int kChunk = kRowBytes / (int)sizeof(T);
    static constexpr int kDepth = kSimtDepth;
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

ONNX_REWRITE_LOCAL_END
}  // namespace onnx_rewrite
