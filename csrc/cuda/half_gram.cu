#include "cuda/half_gram.h"

#include <cuda_pipeline_primitives.h>
#include <mma.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <vector>

#include "cuda/halves.h"
#include "cuda/shared.h"
#include "cuda/vectors.h"

namespace krrdistill::cuda {
namespace {

namespace wmma = nvcuda::wmma;

constexpr int threads = 256;
constexpr int side = 128;                  // rows and columns of a block of G
constexpr int depth = 16;                  // rows of X in a product of tensor cores, and in a stage
constexpr int stages = 4;                  // of rows on their way to shared memory
constexpr int vector = 8;                  // numbers in 16 bytes
constexpr int stride = side + vector;      // of rows in shared memory: 16 bytes of eight rows lie in 32 banks
constexpr int stage = 2 * depth * stride;  // columns of both sides of the block
constexpr int chain = 256 / depth;         // stages that are summed in registers
constexpr int64_t slab_rows = 2048;        // rows that are summed in shared memory
constexpr int down = 4, across = 2;        // products of 16 x 16 of a warp: 64 rows x 32 columns of the block
constexpr int warps_across = side / (16 * across);
constexpr int elements = 8;                                // of 16 x 16 that a lane has
constexpr int outer = down * across * elements * threads;  // sums of a block
constexpr int64_t shared = stages * stage * 2 + outer * static_cast<int64_t>(sizeof(float));
constexpr int64_t blocks_per_processor = 16;  // two at a time: an unfinished last turn costs a sixteenth at most
constexpr int unit = 1024;                    // elements of a block of G that a block of add_slabs has
constexpr double unit_roundoff = 1.0 / (1 << 24);
constexpr double rounding = 8.0 * unit_roundoff;  // 7 of one constant, 1 to 5 else: docs/explanation/numerics.md

static_assert(threads == depth * (side / vector), "a thread copies one vector of either side");
static_assert(shared <= 99 << 10, "what a block of compute capability 8.6, 8.9 or 12.0 may have");
static_assert(threads / 32 == warps_across * (side / (16 * down)));

int64_t triangle_of(int64_t p) {
  const int64_t blocks = ceil_div(p, side);
  return blocks * (blocks + 1) / 2;
}

// Blocks on and below the diagonal, row by row.
struct BlockOfGram {
  int row;
  int column;
};
__device__ inline BlockOfGram block_of(int index) {
  int row = static_cast<int>((sqrtf(8.0F * static_cast<float>(index) + 1.0F) - 1.0F) / 2.0F);
  row += index >= (row + 1) * (row + 2) / 2 ? 1 : 0;
  row -= index < row * (row + 1) / 2 ? 1 : 0;
  return {row, index - row * (row + 1) / 2};
}

// sums (slabs, blocks, side, side) = products of the rows of a slab, blockIdx.y, for a block of G, blockIdx.x.
template <typename Half>
__global__ void __launch_bounds__(threads, 2) half_products_kernel(const Half* x, int ld, int64_t count, float* sums) {
  using Sum = wmma::fragment<wmma::accumulator, 16, 16, 16, float>;
  auto* staged = shared_memory<Half>();  // (stages, 2, depth, stride)
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  auto* kept = reinterpret_cast<float*>(staged + stages * stage) + thread;  // (products of a warp, elements, threads)
  const BlockOfGram block = block_of(static_cast<int>(blockIdx.x));
  const bool diagonal = block.row == block.column;
  const int64_t left = count - blockIdx.y * slab_rows;
  const int rows = static_cast<int>(left < slab_rows ? left : slab_rows);
  const int steps = (rows + depth - 1) / depth;

  const int r = thread / (side / vector), c = thread % (side / vector) * vector;
  const auto inside = [ld](int column) { return column < ld ? column : ld - vector; };  // what is beyond is not used
  const int column = inside(block.row * side + c), beside = inside(block.column * side + c) - column;
  const Half* from = x + (blockIdx.y * slab_rows + r) * ld + column;
  const auto fetch = [&](int step) {
    if (step < steps) {
      Half* to = staged + step % stages * stage + r * stride + c;
      const size_t zeros = step * depth + r < rows ? 0 : 16;
      __pipeline_memcpy_async(to, from, 16, zeros);
      if (!diagonal) {
        __pipeline_memcpy_async(to + depth * stride, from + beside, 16, zeros);
      }
      from += depth * ld;
    }
    __pipeline_commit();
  };

  Sum own[down][across];
#pragma unroll
  for (int i = 0; i < down; ++i) {
#pragma unroll
    for (int j = 0; j < across; ++j) {
      wmma::fill_fragment(own[i][j], 0.0F);
    }
  }
  // Every sum of this thread, and its place in shared memory.
  const auto for_sums = [&](const auto& use) {
#pragma unroll
    for (int i = 0; i < down; ++i) {
#pragma unroll
      for (int j = 0; j < across; ++j) {
#pragma unroll
        for (int t = 0; t < elements; ++t) {
          use(own[i][j].x[t], kept[((i * across + j) * elements + t) * threads]);
        }
      }
    }
  };
  for (int step = 0; step < stages - 1; ++step) {
    fetch(step);
  }
  for (int step = 0; step < steps; ++step) {
    __pipeline_wait_prior(stages - 2);
    __syncthreads();  // this stage is there, and everybody is done with the one before it, whose place is taken now
    fetch(step + stages - 1);
    const Half* rows_of_a = staged + step % stages * stage + warp / warps_across * (16 * down);
    const Half* rows_of_b =
        staged + step % stages * stage + (diagonal ? 0 : depth * stride) + warp % warps_across * (16 * across);
    wmma::fragment<wmma::matrix_b, 16, 16, 16, Half, wmma::row_major> b[across];
#pragma unroll
    for (int j = 0; j < across; ++j) {
      wmma::load_matrix_sync(b[j], rows_of_b + 16 * j, stride);
    }
#pragma unroll
    for (int i = 0; i < down; ++i) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, Half, wmma::col_major> a;
      wmma::load_matrix_sync(a, rows_of_a + 16 * i, stride);
#pragma unroll
      for (int j = 0; j < across; ++j) {
        Sum product;
        wmma::fill_fragment(product, 0.0F);
        wmma::mma_sync(product, a, b[j], product);
#pragma unroll
        for (int t = 0; t < elements; ++t) {
          own[i][j].x[t] += product.x[t];
        }
      }
    }
    if ((step + 1) % chain == 0 || step + 1 == steps) {
      for_sums([&](float& sum, float& in_memory) {
        in_memory = step < chain ? sum : in_memory + sum;
        sum = 0.0F;
      });
    }
  }
  float* out = sums + (blockIdx.y * static_cast<int64_t>(gridDim.x) + blockIdx.x) * (side * side) +
               warp / warps_across * (16 * down * side) + warp % warps_across * (16 * across);
  for_sums([](float& sum, float in_memory) { sum = in_memory; });
#pragma unroll
  for (int i = 0; i < down; ++i) {
#pragma unroll
    for (int j = 0; j < across; ++j) {
      wmma::store_matrix_sync(out + 16 * (i * side + j), own[i][j], side, wmma::mem_row_major);
    }
  }
}

// gram += sums of slabs, in their order, on the lower triangle. Who adds and truncates stops at the largest number,
// which counts as infinity, too.
__global__ void __launch_bounds__(threads) add_slabs_kernel(const float* sums, int64_t slabs, double* gram, int64_t p) {
  const BlockOfGram block = block_of(static_cast<int>(blockIdx.x));
  const int index = static_cast<int>(blockIdx.y) * unit + static_cast<int>(threadIdx.x) * (unit / threads);
  const int64_t row = static_cast<int64_t>(block.row) * side + index / side;
  const int64_t column = static_cast<int64_t>(block.column) * side + index % side;
  if (row >= p || column > row) {
    return;
  }
  double* target = gram + row * p + column;
  double total[unit / threads];
#pragma unroll
  for (int j = 0; j < unit / threads; ++j) {
    total[j] = column + j <= row ? target[j] : 0.0;
  }
  for (int64_t s = 0; s < slabs; ++s) {
    const float* part = sums + (s * gridDim.x + blockIdx.x) * (side * side) + index;
    const auto four = *reinterpret_cast<const Pack<float, unit / threads>*>(part);
#pragma unroll
    for (int j = 0; j < unit / threads; ++j) {
      const float value = four.v[j];
      total[j] += fabsf(value) < FLT_MAX ? value : value + value;
    }
  }
#pragma unroll
  for (int j = 0; j < unit / threads; ++j) {
    if (column + j <= row) {
      target[j] = total[j];
    }
  }
}

}  // namespace

int64_t HalfGram::slabs_for(Scope& scope, int64_t p, int64_t rows) {
  const int64_t budget = scope.context.options.memory_budget;
  const int64_t full = ceil_div(blocks_per_processor * scope.context.multiprocessors, triangle_of(p));
  const int64_t fit = (budget != 0 ? budget : scope.device_memory()) / 4 / fixed_bytes(p, 1);
  return std::max<int64_t>(1, std::min({full, fit, ceil_div(rows, slab_rows)}));
}

int64_t HalfGram::fixed_bytes(int64_t p, int64_t slabs) {
  return slabs * triangle_of(p) * side * side * static_cast<int64_t>(sizeof(float));
}

HalfGram::HalfGram(Scope& scope, int64_t p, int64_t slabs)
    : scope_(scope), p_(p), slabs_(slabs), sums_(scope.device<float>(slabs * triangle_of(p) * side * side)) {}

template <typename Half>
void HalfGram::add(const Half* rows, int64_t count, double* gram) {
  cudaStream_t stream = scope_.context.compute;
  const int64_t triangle = triangle_of(p_), ld = pitch(p_);
  for (int64_t first = 0; first < count; first += slabs_ * slab_rows) {
    const int64_t part = std::min(slabs_ * slab_rows, count - first), slabs = ceil_div(part, slab_rows);
    launch("half_products", &half_products_kernel<Half>, grid_of(triangle, slabs), threads, shared, stream,
           rows + first * ld, ld, part, sums_);
    launch("add_slabs", &add_slabs_kernel, grid_of(triangle, side * side / unit), threads, 0, stream, sums_, slabs,
           gram, p_);
  }
  rows_ += count;
}

// Products under 2^-126 may count as zero: of all n p^2 of them, beside ||G|| >= tr G / p.
double HalfGram::bound(const double* gram) const {
  std::vector<double> diagonal(static_cast<size_t>(p_));
  scope_.download_strided(diagonal.data(), gram, p_, p_ + 1);
  double trace = 0.0;
  for (const double value : diagonal) {
    trace += value;
  }
  if (!(trace > 0.0 && std::isfinite(trace))) {
    return std::numeric_limits<double>::infinity();
  }
  const auto p = static_cast<double>(p_);
  const double lost = std::ldexp(static_cast<double>(rows_) * p, -126) / (trace / p);
  return lost < unit_roundoff ? rounding + lost : std::numeric_limits<double>::infinity();
}

template void HalfGram::add(const __half*, int64_t, double*);
template void HalfGram::add(const __nv_bfloat16*, int64_t, double*);

}  // namespace krrdistill::cuda
