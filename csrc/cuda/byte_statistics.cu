#include "cuda/byte_statistics.h"

#include <algorithm>

#include "cuda/products.h"
#include "cuda/shared.h"
#include "cuda/vectors.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 256;
constexpr int side = 128;          // rows and columns of a block of the transposition
constexpr int words = side / 4;    // of one of its rows
constexpr int groups = side / 16;  // 16-byte vectors of one of its columns
constexpr int chunk = 256;         // rows that one thread of column_sums adds up
constexpr int centre = 128;
constexpr uint32_t centre_word = 0x80808080U;  // u ^ 0x80 is u - 128 as int8

using Word4 = Pack<uint32_t, 4>;

// out (columns, ld) = the rows of x (count, stride x_ld) - 128, transposed; zero for rows from `count` on. Blocks of
// 128 x 128 go through shared memory as words of four columns, each group of 16 rows turned by 4 words more than the
// one before: a warp reads 8 groups x 4 words, which lie in 32 banks, and writes whole lines.
__global__ void __launch_bounds__(threads)
    transpose_kernel(const uint8_t* x, int64_t x_ld, int64_t count, int8_t* out, int64_t ld, int64_t order) {
  auto* tile = shared_memory<uint32_t>();  // (side, words)
  const int64_t row = static_cast<int64_t>(blockIdx.y) * side, column = static_cast<int64_t>(blockIdx.x) * side;
  const int thread = static_cast<int>(threadIdx.x);
  const int vector = thread % groups;
  for (int r = thread / groups; r < side; r += threads / groups) {
    Word4 value{};
    if (row + r < count && column + 16 * vector < x_ld) {
      value = *reinterpret_cast<const Word4*>(x + (row + r) * x_ld + column + 16 * vector);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        value.v[j] ^= centre_word;
      }
    }
    *reinterpret_cast<Word4*>(tile + r * words + (4 * vector + 4 * (r / 16)) % words) = value;
  }
  __syncthreads();
  const int group = thread % groups, word = thread / groups;
  Word4 turned[4]{};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const uint32_t four = tile[(16 * group + i) * words + (word + 4 * group) % words];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      turned[j].v[i / 4] |= ((four >> (8 * j)) & 0xFFU) << (8 * (i % 4));
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (column + 4 * word + j < order) {
      *reinterpret_cast<Word4*>(out + (column + 4 * word + j) * ld + row + 16 * group) = turned[j];
    }
  }
}

__device__ inline void add_word(uint32_t four, int32_t (&sums)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    sums[j] += static_cast<int32_t>((four >> (8 * j)) & 0xFFU) - centre;
  }
}

// sums[c] += rows - 128 of class c, counts[c] += their number: a thread has four columns of one class.
__global__ void __launch_bounds__(threads)
    byte_class_sums_kernel(const uint8_t* x, int64_t ld, const int* sorted, int32_t* sums, int32_t* counts, int64_t p,
                           int64_t k) {
  const int64_t column = 4 * static_cast<int64_t>(flat_index());
  if (column >= p) {
    return;
  }
  const int* rows = sorted + k + 1;
  for (int64_t c = blockIdx.y; c < k; c += gridDim.y) {
    int32_t sum[4]{};
#pragma unroll 4
    for (int i = sorted[c]; i < sorted[c + 1]; ++i) {
      add_word(*reinterpret_cast<const uint32_t*>(x + rows[i] * ld + column), sum);
    }
    for (int j = 0; j < 4 && column + j < p; ++j) {
      sums[c * p + column + j] += sum[j];
    }
    if (column == 0) {
      counts[c] += sorted[c + 1] - sorted[c];
    }
  }
}

// The same for one class of all rows; integers may be added in any order.
__global__ void __launch_bounds__(threads)
    column_sums_kernel(const uint8_t* x, int64_t ld, int64_t count, int32_t* sums, int64_t p) {
  const int64_t column = 4 * static_cast<int64_t>(flat_index());
  if (column >= p) {
    return;
  }
  for (int64_t first = static_cast<int64_t>(blockIdx.y) * chunk; first < count;
       first += static_cast<int64_t>(gridDim.y) * chunk) {
    int32_t sum[4]{};
    for (int64_t i = first; i < count && i < first + chunk; ++i) {
      add_word(*reinterpret_cast<const uint32_t*>(x + i * ld + column), sum);
    }
    for (int j = 0; j < 4 && column + j < p; ++j) {
      atomicAdd(sums + column + j, sum[j]);
    }
  }
}

// a b + c d without fused operations, which the CPU does not have.
__device__ inline double two_products(double a, double b, double c, double d) {
  return __dadd_rn(__dmul_rn(a, b), __dmul_rn(c, d));
}

// a, b', S and F of each column.
__global__ void __launch_bounds__(threads)
    byte_vectors_kernel(const double* scale, const double* shift, const int32_t* sums, int64_t classes, int64_t p,
                        double n, double* vectors) {
  const int64_t j = flat_index();
  if (j >= p) {
    return;
  }
  int64_t total = 0;
  for (int64_t c = 0; c < classes; ++c) {
    total += sums[c * p + j];
  }
  const double a = scale == nullptr ? 1.0 : scale[j];
  const double b = __dadd_rn(shift == nullptr ? 0.0 : shift[j], __dmul_rn(centre, a));
  const auto s = static_cast<double>(total);
  vectors[j] = a;
  vectors[p + j] = b;
  vectors[2 * p + j] = s;
  vectors[3 * p + j] = two_products(a, s, n, b);
}

__global__ void __launch_bounds__(threads)
    byte_gram_kernel(const int32_t* products, int64_t order, const double* vectors, double n, double* gram, int64_t p) {
  const double *scale = vectors, *bytes = vectors + 2 * p, *features = vectors + 3 * p;
  const int64_t j = flat_index();
  for (int64_t i = blockIdx.y; i < p; i += gridDim.y) {
    if (j <= i) {
      // Integers under 2^47, exact however they are computed.
      const double covariance = n * products[i * order + j] - bytes[i] * bytes[j];
      const double sum = two_products(__dmul_rn(scale[i], scale[j]), covariance, features[i], features[j]);
      gram[i * p + j] = __dadd_rn(gram[i * p + j], __ddiv_rn(sum, n));
    }
  }
}

__global__ void __launch_bounds__(threads)
    byte_cross_kernel(const int32_t* sums, const int32_t* counts, const double* vectors, double* cross, int64_t p,
                      int64_t k) {
  const int64_t j = flat_index();
  for (int64_t c = blockIdx.y; c < k; c += gridDim.y) {
    if (j < p) {
      const double sum = two_products(vectors[j], sums[c * p + j], counts[c], vectors[p + j]);
      cross[c * p + j] = __dadd_rn(cross[c * p + j], sum);
    }
  }
}

}  // namespace

int64_t ByteStatistics::fixed_bytes(int64_t p, int64_t k) {
  const int64_t order = byte_order(p), classes = std::max<int64_t>(k, 1);
  return static_cast<int64_t>(sizeof(int32_t)) * (order * order + classes * (p + 1)) +
         6 * p * static_cast<int64_t>(sizeof(double)) + side * order;
}

int64_t ByteStatistics::row_bytes(int64_t p) { return byte_order(p); }

ByteStatistics::ByteStatistics(Scope& scope, const double* scale, const double* shift, int64_t p, int64_t k,
                               int64_t rows)
    : scope_(scope),
      p_(p),
      classes_(std::max<int64_t>(k, 1)),
      order_(byte_order(p)),
      ld_(ceil_div(rows, side) * side),
      transposed_(scope.device<int8_t>(order_ * ld_)),
      gram_(scope.device<int32_t>(order_ * order_)),
      sums_(scope.device<int32_t>(classes_ * p)),
      counts_(scope.device<int32_t>(classes_)),
      vectors_(scope.device<double>(4 * p)) {
  if (scale != nullptr) {
    scale_ = scope.upload(scale, p);
    shift_ = scope.upload(shift, p);
  }
  clear();
}

void ByteStatistics::clear() {
  cuda::clear(scope_.context.compute, sums_, classes_ * p_);
  cuda::clear(scope_.context.compute, counts_, classes_);
  pending_ = 0;
}

void ByteStatistics::add(const std::byte* rows, int64_t count, const int* sorted) {
  cudaStream_t stream = scope_.context.compute;
  const auto* bytes = reinterpret_cast<const uint8_t*>(rows);
  const int64_t ld = pitch(p_);
  launch("transpose", &transpose_kernel, grid_of(ceil_div(order_, side), ceil_div(count, side)), threads, side * side,
         stream, bytes, ld, count, transposed_, ld_, order_);
  multiply_bytes_lower(scope_, order_, byte_order(count), transposed_, ld_, pending_ > 0, gram_, order_);
  const int64_t across = ceil_div(ceil_div(p_, 4), threads);
  if (sorted != nullptr) {
    launch("byte_class_sums", &byte_class_sums_kernel, grid_of(across, classes_), threads, 0, stream, bytes, ld, sorted,
           sums_, counts_, p_, classes_);
  } else {
    launch("column_sums", &column_sums_kernel, grid_of(across, ceil_div(count, chunk)), threads, 0, stream, bytes, ld,
           count, sums_, p_);
  }
  pending_ += count;
}

void ByteStatistics::flush(double* gram, double* cross) {
  cudaStream_t stream = scope_.context.compute;
  const auto n = static_cast<double>(pending_);
  const int64_t across = ceil_div(p_, threads);
  launch("byte_vectors", &byte_vectors_kernel, grid_of(across), threads, 0, stream, scale_, shift_, sums_, classes_, p_,
         n, vectors_);
  launch("byte_gram", &byte_gram_kernel, grid_of(across, p_), threads, 0, stream, gram_, order_, vectors_, n, gram, p_);
  if (cross != nullptr) {
    launch("byte_cross", &byte_cross_kernel, grid_of(across, classes_), threads, 0, stream, sums_, counts_, vectors_,
           cross, p_, classes_);
  }
  clear();
}

}  // namespace krrdistill::cuda
