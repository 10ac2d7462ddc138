#include "cuda/sliced_gram.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda/products.h"
#include "cuda/shared.h"
#include "cuda/slices.h"
#include "cuda/vectors.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 256;
constexpr int strip = 128;            // columns that a block of column_maxima has, four a thread
constexpr int strip_rows = 64;        // rows of it
constexpr int wide = 64, high = 128;  // columns and rows of a block of quantise
constexpr int groups = high / 16;     // 16-byte vectors of one of its columns
constexpr int block = 32;             // of the mirrors in combine
constexpr double margin = 2.0;        // of the bound, which is an expectation

// largest[j] = the bits of max(largest, |x|) over rows of column j: those of numbers that are not negative are in
// order, infinity and NaN above all.
__global__ void __launch_bounds__(threads)
    column_maxima_kernel(const float* x, int64_t ld, int64_t count, int64_t p, unsigned* largest) {
  auto* found = shared_memory<unsigned>();  // (threads / 32, strip)
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * strip + 4 * lane;
  for (int64_t part = blockIdx.y; part * strip_rows < count; part += gridDim.y) {
    unsigned most[4]{};
#pragma unroll
    for (int i = 0; i < strip_rows / 8; ++i) {
      const int64_t row = part * strip_rows + 8 * i + warp;
      if (row < count && column < p) {
        const auto value = *reinterpret_cast<const Pack<float, 4>*>(x + row * ld + column);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const unsigned bits = __float_as_uint(value.v[j]) & 0x7FFFFFFFU;
          most[j] = bits > most[j] ? bits : most[j];
        }
      }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      found[warp * strip + 4 * lane + j] = most[j];
    }
    __syncthreads();
    const int own = static_cast<int>(threadIdx.x);
    const int64_t target = static_cast<int64_t>(blockIdx.x) * strip + own;
    if (own < strip && target < p) {
      unsigned all = 0;
      for (int i = 0; i < threads / 32; ++i) {
        const unsigned one = found[i * strip + own];
        all = one > all ? one : all;
      }
      atomicMax(largest + target, all);
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(threads)
    units_kernel(const unsigned* largest, int64_t p, float* inverse, double* unit, double* worst) {
  const int64_t j = flat_index();
  if (j >= p) {
    return;
  }
  const float most = __uint_as_float(largest[j]);
  if (!(most - most == 0.0F)) {  // NaN goes on into G
    inverse[j] = 0.0F;
    unit[j] = most - most;
    return;
  }
  const int exponent = slice_exponent(most);
  inverse[j] = ldexpf(1.0F, slice_bits - exponent);
  unit[j] = ldexp(1.0, exponent - slice_bits);
  worst[j] = fmax(worst[j], unit[j]);
}

// slices (3, order, ld) of x (count, stride x_ld), transposed; zero beyond row `count` and column p. Blocks of 128 rows
// x 64 columns go through shared memory as integers, each group of 16 rows turned by four columns more than the one
// before: a warp reads 8 groups x 4 columns, which lie in 32 banks, and writes whole lines.
__global__ void __launch_bounds__(threads)
    quantise_kernel(const float* x, int64_t x_ld, int64_t count, int64_t p, const float* inverse, int8_t* slices,
                    int64_t order, int64_t ld) {
  auto* values = shared_memory<int>();  // (high, wide)
  const int64_t row = static_cast<int64_t>(blockIdx.y) * high, column = static_cast<int64_t>(blockIdx.x) * wide;
  const int thread = static_cast<int>(threadIdx.x);
  const int first = 4 * (thread % (wide / 4));
  float factor[4]{};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    factor[j] = column + first + j < p ? inverse[column + first + j] : 0.0F;
  }
  for (int r = thread / (wide / 4); r < high; r += threads / (wide / 4)) {
    Pack<int, 4> rounded{};
    if (row + r < count && column + first < p) {
      const auto value = *reinterpret_cast<const Pack<float, 4>*>(x + (row + r) * x_ld + column + first);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        rounded.v[j] = factor[j] > 0.0F ? __float2int_rn(value.v[j] * factor[j]) : 0;
      }
    }
    *reinterpret_cast<Pack<int, 4>*>(values + r * wide + (first + 4 * (r / 16)) % wide) = rounded;
  }
  __syncthreads();
#pragma unroll
  for (int item = thread; item < wide * groups; item += threads) {
    const int group = item % groups, c = item / groups;
    Pack<uint32_t, 4> out[3]{};
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const Slices parts = slices_of(values[(16 * group + i) * wide + (c + 4 * group) % wide]);
      const int at = 8 * (i % 4);
      out[0].v[i / 4] |= static_cast<uint32_t>(static_cast<uint8_t>(parts.high)) << at;
      out[1].v[i / 4] |= static_cast<uint32_t>(static_cast<uint8_t>(parts.middle)) << at;
      out[2].v[i / 4] |= static_cast<uint32_t>(static_cast<uint8_t>(parts.low)) << at;
    }
    if (column + c < order) {
#pragma unroll
      for (int s = 0; s < 3; ++s) {
        *reinterpret_cast<Pack<uint32_t, 4>*>(slices + (s * order + column + c) * ld + row + 16 * group) = out[s];
      }
    }
  }
}

// gram += u_i u_j times the sum of the products of digits, on the lower triangle, by blocks: their mirrors go through
// shared memory, so that all are read along rows.
__global__ void __launch_bounds__(block * 8)
    combine_kernel(const int32_t* products, int64_t order, const double* unit, double* gram, int64_t p) {
  constexpr int mirrored = 3, stride = block + 1;
  auto* mirror = shared_memory<int32_t>();  // (mirrored, block, stride)
  const int64_t row = static_cast<int64_t>(blockIdx.y) * block, column = static_cast<int64_t>(blockIdx.x) * block;
  if (column > row) {
    return;
  }
  const int x = static_cast<int>(threadIdx.x) % block, y = static_cast<int>(threadIdx.x) / block;
  // S0 S1, S0 S2 and S1 S2
  const int32_t* second = products + 3 * order * order;
  const int32_t* whole[mirrored] = {products + order, products + 2 * order, second + order};
  const int64_t ld[mirrored] = {3 * order, 3 * order, 2 * order};
#pragma unroll
  for (int i = y; i < block; i += 8) {
#pragma unroll
    for (int s = 0; s < mirrored; ++s) {
      mirror[(s * block + i) * stride + x] = whole[s][(column + i) * ld[s] + row + x];
    }
  }
  __syncthreads();
  const int64_t j = column + x;
#pragma unroll
  for (int i = y; i < block; i += 8) {
    if (j <= row + i && row + i < p) {
      int64_t pairs[mirrored];
#pragma unroll
      for (int s = 0; s < mirrored; ++s) {
        pairs[s] = static_cast<int64_t>(whole[s][(row + i) * ld[s] + j]) + mirror[(s * block + x) * stride + i];
      }
      const int64_t leading = products[(row + i) * ld[0] + j] * int64_t{256} + pairs[0];  // under 2^55 once joined
      const int64_t middle = pairs[1] + second[(row + i) * ld[2] + j];
      const auto sum = static_cast<double>(joined(leading, middle, pairs[2]));
      gram[(row + i) * p + j] += 256.0 * sum * (unit[row + i] * unit[j]);
    }
  }
}

// squares[i] = sum of squares of row i of G, squares[p + i] = G_ii; G by its lower triangle, a block per row.
__global__ void __launch_bounds__(threads) squares_kernel(const double* gram, int64_t p, double* squares) {
  auto* sums = shared_memory<double>();
  for (int64_t i = blockIdx.x; i < p; i += gridDim.x) {
    double sum = 0.0;
    for (int64_t j = threadIdx.x; j <= i; j += threads) {
      const double value = gram[i * p + j];
      sum += (j < i ? 2.0 : 1.0) * value * value;
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = threads / 2; half > 0; half /= 2) {
      if (threadIdx.x < half) {
        sums[threadIdx.x] += sums[threadIdx.x + half];
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      squares[i] = sums[0];
      squares[p + i] = gram[i * p + i];
    }
    __syncthreads();
  }
}

}  // namespace

int64_t SlicedGram::fixed_bytes(int64_t p) {
  const int64_t order = byte_order(p);
  return 5 * order * order * static_cast<int64_t>(sizeof(int32_t)) + 3 * order * high +
         p * static_cast<int64_t>(sizeof(unsigned) + sizeof(float) + 4 * sizeof(double));
}

int64_t SlicedGram::row_bytes(int64_t p) { return 3 * byte_order(p); }

SlicedGram::SlicedGram(Scope& scope, int64_t p, int64_t rows)
    : scope_(scope),
      p_(p),
      order_(byte_order(p)),
      ld_(ceil_div(rows, high) * high),
      largest_(scope.device<unsigned>(p)),
      inverse_(scope.device<float>(p)),
      unit_(scope.device<double>(p)),
      worst_(scope.device<double>(p)),
      squares_(scope.device<double>(2 * p)),
      slices_(scope.device<int8_t>(3 * order_ * ld_)),
      joined_(turns(scope, order_, 3 * order_) + turns(scope, order_, 2 * order_) <
              2 * turns_lower(scope, order_) + 3 * turns(scope, order_, order_)),
      products_(scope.device<int32_t>(5 * order_ * order_)) {
  clear(scope.context.compute, worst_, p);
}

void SlicedGram::add(const float* features, int64_t count, double* gram) {
  cudaStream_t stream = scope_.context.compute;
  clear(stream, largest_, p_);
  launch("column_maxima", &column_maxima_kernel, grid_of(ceil_div(p_, strip), ceil_div(count, strip_rows)), threads,
         threads / 32 * strip * static_cast<int64_t>(sizeof(unsigned)), stream, features, pitch(p_), count, p_,
         largest_);
  launch("units", &units_kernel, grid_of(ceil_div(p_, threads)), threads, 0, stream, largest_, p_, inverse_, unit_,
         worst_);
  launch("quantise", &quantise_kernel, grid_of(ceil_div(order_, wide), ceil_div(count, high)), threads,
         high * wide * static_cast<int64_t>(sizeof(int)), stream, features, pitch(p_), count, p_, inverse_, slices_,
         order_, ld_);
  multiply(byte_order(count));
  launch("combine", &combine_kernel, grid_of(order_ / block, order_ / block), block * 8,
         3 * block * (block + 1) * static_cast<int64_t>(sizeof(int32_t)), stream, products_, order_, unit_, gram, p_);
  rows_ += count;
}

// Turns of 132 multiprocessors (`turns`), two products and five:
//
//     p          512    1024   2048   3072   4096   8192
//     two          2       3     10     23     40    157
//     five         5       5     10     23     36    136
//
// Where both take as many, five: they were measured, at p = 3072.
void SlicedGram::multiply(int64_t depth) {
  const int64_t wide = 3 * order_, narrow = 2 * order_;
  const int8_t *first = slices_, *second = slices_ + order_ * ld_, *third = second + order_ * ld_;
  int32_t *out = products_, *out_second = products_ + order_ * wide;
  const auto product = [&](int64_t columns, const int8_t* left, const int8_t* right, int32_t* to, int64_t ld) {
    multiply_bytes(scope_, order_, columns, depth, left, ld_, right, ld_, false, to, ld);
  };
  if (joined_) {
    product(wide, first, first, out, wide);
    product(narrow, second, second, out_second, narrow);
    return;
  }
  multiply_bytes_lower(scope_, order_, depth, first, ld_, false, out, wide);
  multiply_bytes_lower(scope_, order_, depth, second, ld_, false, out_second, narrow);
  product(order_, first, second, out + order_, wide);
  product(order_, first, third, out + 2 * order_, wide);
  product(order_, second, third, out_second + order_, narrow);
}

// With E the rounding of F, about uniform and independent, of deviation u_j / sqrt(12) in column j,
//     ||F^T E + E^T F|| <= 2 ||F|| ||E'||,   ||E'|| about (sqrt(r) max u + ||u||) / sqrt(12),
// E' its part in the range of F, of rank r. The product that is left out, S2 S2 u_i u_j, is a sum of n random terms of
// deviation 74^2: a matrix of norm about 74^2 sqrt(n) 2 max u ||u||.
// ||F||^2 = ||G|| >= ||G||_F^2 / tr G.
double SlicedGram::bound_of(const Sizes& sizes, double norm, double rows) const {
  const double rank = std::min(rows, static_cast<double>(p_)), units = std::sqrt(sizes.all);
  const double rounding = 2.0 * (std::sqrt(rank) * sizes.most + units) / std::sqrt(12.0 * norm);
  const double left_out = 74.0 * 74.0 * std::sqrt(rows) * 2.0 * sizes.most * units / norm;
  return margin * (rounding + left_out);
}

SlicedGram::Sizes SlicedGram::sizes(const double* gram) const {
  launch("squares", &squares_kernel, grid_of(p_), threads, threads * static_cast<int64_t>(sizeof(double)),
         scope_.context.compute, gram, p_, squares_);
  std::vector<double> found(static_cast<size_t>(2 * p_)), units(static_cast<size_t>(p_));
  scope_.download(found.data(), squares_, 2 * p_);
  scope_.download(units.data(), worst_, p_);
  Sizes result;
  for (int64_t i = 0; i < p_; ++i) {
    const auto at = static_cast<size_t>(i);
    result.square += found[at];
    result.trace += found[static_cast<size_t>(p_) + at];
    result.most = std::max(result.most, units[at]);
    result.all += units[at] * units[at];
  }
  return result;
}

double SlicedGram::bound(const double* gram) const {
  const Sizes found = sizes(gram);
  return found.trace == 0.0 ? 0.0 : bound_of(found, found.square / found.trace, static_cast<double>(rows_));
}

// ||G||_F^2 is the sum of (x_i x_j)^2 over all pairs of rows. With t the mean of ||x_i||^2 and s that of pairs i != j,
//     tr G = n t,   ||G||_F^2 >= n t^2 + n (n - 1) s   for every n,
// with equality where all rows are as long: then s of a few rows tells the norm for all. Where they are not it tells
// too much, and the bound is found out at the end.
double SlicedGram::outlook(const double* gram, int64_t rows) const {
  const Sizes found = sizes(gram);
  if (found.trace == 0.0) {
    return 0.0;
  }
  const auto n = static_cast<double>(rows_), all = static_cast<double>(rows);
  const double length = found.trace / n;
  const double pairs = std::max(0.0, found.square - n * length * length) / (n * (n - 1.0));
  return bound_of(found, length + (all - 1.0) * pairs / length, all);
}

}  // namespace krrdistill::cuda
