// cuBLAS and cuSOLVER on the BLAS and LAPACK that SciPy exports (krrdistill/blas.h). Host pointers are read when a
// routine is called, device pointers when the stream gets there.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "cublas_v2.h"
#include "cusolverDn.h"
#include "krrdistill/blas.h"

using emulation::enqueue;
using krrdistill::blas;

namespace {

char letter(cublasOperation_t op) { return op == CUBLAS_OP_N ? 'N' : 'T'; }
char letter(cublasFillMode_t uplo) { return uplo == CUBLAS_FILL_MODE_LOWER ? 'L' : 'U'; }

template <typename Status>
Status make_handle(emulation::Handle** handle, const char* name, Status failed) {
  if (emulation::fails(name)) {
    return failed;
  }
  *handle = new emulation::Handle{.device = emulation::current_device()};
  emulation::object_made();
  return Status{};
}

// Leaves a handle of a device that is not current where it is: a test then finds it among the live objects.
void destroy_handle(emulation::Handle* handle) {
  if (handle->device != emulation::current_device()) {
    return;
  }
  delete handle;
  emulation::object_gone();
}

// The real libraries refuse a matrix (rows, columns), stored transposed or not, whose columns are not `ld` >= 1 apart.
bool fits(int rows, int columns, int ld, cublasOperation_t op = CUBLAS_OP_N) {
  return rows >= 0 && columns >= 0 && ld >= std::max(1, op == CUBLAS_OP_N ? rows : columns);
}

// A handle works on its own device only, while that is current.
bool usable(const emulation::Handle* handle) {
  return handle->device == emulation::current_device() && emulation::device_of(handle->stream) == handle->device;
}

// Counts the call, then runs `work` in the handle's stream.
template <typename Work>
cublasStatus_t run_blas(const char* name, cublasHandle_t handle, Work work) {
  if (emulation::fails(name) || !usable(handle)) {
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
  enqueue(handle->stream, work);
  return CUBLAS_STATUS_SUCCESS;
}

template <typename Work>
cusolverStatus_t run_lapack(const char* name, cusolverDnHandle_t handle, Work work) {
  if (emulation::fails(name) || !usable(handle)) {
    return CUSOLVER_STATUS_EXECUTION_FAILED;
  }
  enqueue(handle->stream, work);
  return CUSOLVER_STATUS_SUCCESS;
}

// c = op(a) op(b) + beta c, column-major, each sum in float32 from its first term to its last, as a GPU without tensor
// cores forms it: BLAS adds in blocks, which is more accurate. `upper`: only that triangle of c.
void chained_gemm(bool ta, bool tb, int m, int n, int k, const float* a, int64_t lda, const float* b, int64_t ldb,
                  float beta, float* c, int64_t ldc, bool upper) {
  constexpr int64_t block = 64;
  std::vector<float> left(static_cast<size_t>(block) * k), right(static_cast<size_t>(block) * k);
  std::vector<float> sums(block * block);
  const auto pack = [k](const float* x, int64_t ld, bool along_k, int64_t first, int64_t count, float* to) {
    for (int64_t l = 0; l < k; ++l) {
      for (int64_t i = 0; i < count; ++i) {
        to[l * block + i] = along_k ? x[(first + i) * ld + l] : x[l * ld + first + i];
      }
    }
  };
  for (int64_t j0 = 0; j0 < n; j0 += block) {
    const int64_t columns = std::min(block, n - j0);
    pack(b, ldb, !tb, j0, columns, right.data());
    for (int64_t i0 = 0; i0 < (upper ? std::min<int64_t>(j0 + block, m) : m); i0 += block) {
      const int64_t rows = std::min(block, m - i0);
      pack(a, lda, ta, i0, rows, left.data());
      std::fill(sums.begin(), sums.end(), 0.0F);
      for (int64_t l = 0; l < k; ++l) {
        const float *x = left.data() + l * block, *y = right.data() + l * block;
        for (int64_t j = 0; j < columns; ++j) {
          float* sum = sums.data() + j * block;
          const float factor = y[j];
          for (int64_t i = 0; i < block; ++i) {
            sum[i] += x[i] * factor;
          }
        }
      }
      for (int64_t j = 0; j < columns; ++j) {
        for (int64_t i = 0; i < rows && (!upper || i0 + i <= j0 + j); ++i) {
          float& entry = c[(j0 + j) * ldc + i0 + i];
          entry = sums[j * block + i] + (beta == 0.0F ? 0.0F : beta * entry);
        }
      }
    }
  }
}

// c = a b^T (or += it) for rows a (m, k), b (n, k): column-major c. Products of 1024 bytes are under 2^24, so that
// float32 adds them exactly, in any order.
void multiply_bytes(int m, int n, int k, const int8_t* a, int64_t lda, const int8_t* b, int64_t ldb, bool add,
                    int32_t* c, int64_t ldc) {
  constexpr int exact = 1024;
  const auto size = static_cast<size_t>(std::min(k, exact));
  std::vector<float> left(size * m), right(size * n), sums(static_cast<size_t>(m) * n);
  std::vector<int64_t> total(sums.size());
  for (int first = 0; first < k; first += exact) {
    int count = std::min(exact, k - first);
    const auto widen = [=](const int8_t* x, int64_t ld, int rows, std::vector<float>& to) {
      for (int64_t i = 0; i < rows; ++i) {
        std::copy_n(x + i * ld + first, count, to.begin() + i * count);
      }
    };
    widen(a, lda, m, left);
    widen(b, ldb, n, right);
    char transposed = 'T', none = 'N';
    float one = 1.0F, zero = 0.0F;
    blas<float>().gemm(&transposed, &none, &m, &n, &count, &one, left.data(), &count, right.data(), &count, &zero,
                       sums.data(), &m);
    std::transform(sums.begin(), sums.end(), total.begin(), total.begin(),
                   [](float sum, int64_t before) { return before + static_cast<int64_t>(sum); });
  }
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < m; ++i) {
      int32_t& entry = c[j * ldc + i];
      const int64_t sum = total[j * m + i] + (add ? entry : 0);
      if (sum != static_cast<int32_t>(sum)) {
        std::fprintf(stderr, "emulation: a sum of products of bytes overflows 32 bits\n");
        std::abort();
      }
      entry = static_cast<int32_t>(sum);
    }
  }
}

bool aligned(const void* memory) { return reinterpret_cast<uintptr_t>(memory) % 16 == 0; }

template <typename T>
cublasStatus_t gemm(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                    const T* alpha, const T* a, int lda, const T* b, int ldb, const T* beta, T* c, int ldc) {
  if (!fits(m, k, lda, ta) || !fits(k, n, ldb, tb) || !fits(m, n, ldc)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return run_blas("cublasGemm", handle, [=, alpha = *alpha, beta = *beta]() mutable {
    if constexpr (std::is_same_v<T, float>) {
      chained_gemm(ta == CUBLAS_OP_T, tb == CUBLAS_OP_T, m, n, k, a, lda, b, ldb, beta, c, ldc, false);
      return;
    }
    char la = letter(ta), lb = letter(tb);
    blas<T>().gemm(&la, &lb, &m, &n, &k, &alpha, const_cast<T*>(a), &lda, const_cast<T*>(b), &ldb, &beta, c, &ldc);
  });
}

template <typename T>
cublasStatus_t syrk(cublasHandle_t handle, cublasFillMode_t uplo, cublasOperation_t trans, int n, int k, const T* alpha,
                    const T* a, int lda, const T* beta, T* c, int ldc) {
  if (!fits(n, k, lda, trans) || !fits(n, n, ldc)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (std::is_same_v<T, float> && (uplo != CUBLAS_FILL_MODE_UPPER || trans != CUBLAS_OP_N)) {
    return CUBLAS_STATUS_INVALID_VALUE;  // not needed so far
  }
  return run_blas("cublasSyrk", handle, [=, alpha = *alpha, beta = *beta]() mutable {
    if constexpr (std::is_same_v<T, float>) {
      chained_gemm(false, true, n, n, k, a, lda, a, lda, beta, c, ldc, true);
      return;
    }
    char u = letter(uplo), t = letter(trans);
    blas<T>().syrk(&u, &t, &n, &k, &alpha, const_cast<T*>(a), &lda, &beta, c, &ldc);
  });
}

// b = op(a)^-1 b, a (m, m) triangular, column-major.
// b (m, n) becomes b op(a)^-1
void solve_triangular_right(bool lower, bool transposed, int m, int n, const double* a, int lda, double* b, int ldb) {
  const auto at = [=](int i, int j) {
    return transposed ? a[i * static_cast<int64_t>(lda) + j] : a[j * static_cast<int64_t>(lda) + i];
  };
  const bool forward = lower == transposed;  // op(a) is upper
  for (int step = 0; step < n; ++step) {
    const int j = forward ? step : n - 1 - step;
    double* x = b + static_cast<int64_t>(j) * ldb;
    for (int i = forward ? 0 : j + 1; i < (forward ? j : n); ++i) {
      const double* known = b + static_cast<int64_t>(i) * ldb;
      for (int row = 0; row < m; ++row) {
        x[row] -= known[row] * at(i, j);
      }
    }
    for (int row = 0; row < m; ++row) {
      x[row] /= at(j, j);
    }
  }
}

void solve_triangular(bool lower, bool transposed, int m, int n, const double* a, int lda, double* b, int ldb) {
  const auto at = [=](int i, int j) {
    return transposed ? a[i * static_cast<int64_t>(lda) + j] : a[j * static_cast<int64_t>(lda) + i];
  };
  const bool forward = lower != transposed;
  for (int column = 0; column < n; ++column) {
    double* x = b + static_cast<int64_t>(column) * ldb;
    for (int step = 0; step < m; ++step) {
      const int i = forward ? step : m - 1 - step;
      double sum = x[i];
      for (int j = forward ? 0 : i + 1; j < (forward ? i : m); ++j) {
        sum -= at(i, j) * x[j];
      }
      x[i] = sum / at(i, i);
    }
  }
}

// The symmetric a (n, n) becomes its eigenvectors, one a column, of the eigenvalues w, ascending: by Jacobi's
// rotations, which need no LAPACK and are as accurate. False where they do not end.
bool diagonalise(int n, double* a, double* w) {
  const auto size = static_cast<size_t>(n);
  std::vector<double> s(size * size), v(size * size, 0.0);
  for (size_t j = 0; j < size; ++j) {
    for (size_t i = j; i < size; ++i) {
      s[j * size + i] = s[i * size + j] = a[j * size + i];
    }
    v[j * size + j] = 1.0;
  }
  bool moved = true;
  for (int sweep = 0; moved && sweep < 60; ++sweep) {
    moved = false;
    for (size_t p = 0; p < size; ++p) {
      for (size_t q = p + 1; q < size; ++q) {
        const double off = s[p * size + q], scale = std::sqrt(std::abs(s[p * size + p] * s[q * size + q]));
        if (!(std::abs(off) > std::numeric_limits<double>::epsilon() * scale)) {
          continue;
        }
        moved = true;
        const double theta = (s[q * size + q] - s[p * size + p]) / (2.0 * off);
        const double t = (theta < 0.0 ? -1.0 : 1.0) / (std::abs(theta) + std::hypot(1.0, theta));
        const double c = 1.0 / std::hypot(1.0, t), d = c * t;
        const auto rotate = [c, d](double& x, double& y) {
          const double before = x;
          x = c * x - d * y;
          y = d * before + c * y;
        };
        for (size_t i = 0; i < size; ++i) {
          rotate(s[i * size + p], s[i * size + q]);
        }
        for (size_t i = 0; i < size; ++i) {
          rotate(s[p * size + i], s[q * size + i]);
          rotate(v[p * size + i], v[q * size + i]);
        }
        s[p * size + q] = s[q * size + p] = 0.0;
      }
    }
  }
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t i, size_t j) { return s[i * size + i] < s[j * size + j]; });
  for (size_t j = 0; j < size; ++j) {
    w[j] = s[order[j] * size + order[j]];
    std::copy_n(v.data() + order[j] * size, size, a + j * size);
  }
  return !moved;
}

int size_of(double value) { return std::max(1, static_cast<int>(value)); }

// What a routine of LAPACK reports: its own result, or the one that a test asked for.
int reported(int own) {
  emulation::Settings& settings = emulation::settings();
  if (settings.factor_info == 0 || --settings.factor_at > 0) {
    return own;
  }
  return std::exchange(settings.factor_info, 0);
}

}  // namespace

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  return make_handle(handle, "cublasCreate", CUBLAS_STATUS_EXECUTION_FAILED);
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  destroy_handle(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return emulation::fails("cublasSetStream") ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
  return emulation::fails("cublasSetMathMode") ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                           const float* alpha, const float* a, int lda, const float* b, int ldb, const float* beta,
                           float* c, int ldc) {
  return gemm(handle, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

cublasStatus_t cublasDgemm(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                           const double* alpha, const double* a, int lda, const double* b, int ldb, const double* beta,
                           double* c, int ldc) {
  return gemm(handle, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

// As strict as the real one about leading dimensions, and more so about memory: C of different systems must not
// overlap, and what a product reads or writes lies on the device.
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m,
                                         int n, int k, const double* alpha, const double* a, int lda,
                                         long long a_stride, const double* b, int ldb, long long b_stride,
                                         const double* beta, double* c, int ldc, long long c_stride, int batch) {
  struct Operand {
    const double* data;
    int rows, columns, ld;
    long long stride;
  };
  const Operand operands[] = {{a, ta == CUBLAS_OP_N ? m : k, ta == CUBLAS_OP_N ? k : m, lda, a_stride},
                              {b, tb == CUBLAS_OP_N ? k : n, tb == CUBLAS_OP_N ? n : k, ldb, b_stride},
                              {c, m, n, ldc, c_stride}};
  bool valid = m >= 0 && n >= 0 && k >= 0 && batch >= 0 && (batch < 2 || c_stride >= static_cast<long long>(m));
  for (const auto& [data, rows, columns, ld, stride] : operands) {
    valid = valid && ld >= std::max(rows, 1) && stride >= 0;
    for (int i = 0; valid && rows > 0 && columns > 0 && i < batch; ++i) {
      const size_t elements = static_cast<size_t>(columns - 1) * static_cast<size_t>(ld) + static_cast<size_t>(rows);
      valid = emulation::inside_device_memory(data + i * stride, elements * sizeof(double));
    }
  }
  if (!valid) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return run_blas("cublasDgemmStridedBatched", handle, [=, alpha = *alpha, beta = *beta]() mutable {
    char la = letter(ta), lb = letter(tb);
    for (int i = 0; i < batch; ++i) {
      blas<double>().gemm(&la, &lb, &m, &n, &k, &alpha, const_cast<double*>(a + i * a_stride), &lda,
                          const_cast<double*>(b + i * b_stride), &ldb, &beta, c + i * c_stride, &ldc);
    }
  });
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void* alpha, const void* a, cudaDataType a_type, int lda, const void* b,
                            cudaDataType b_type, int ldb, const void* beta, void* c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t) {
  const int add = *static_cast<const int32_t*>(beta);
  if (a_type != CUDA_R_8I || b_type != CUDA_R_8I || c_type != CUDA_R_32I || compute != CUBLAS_COMPUTE_32I ||
      ta != CUBLAS_OP_T || tb != CUBLAS_OP_N || *static_cast<const int32_t*>(alpha) != 1 || (add != 0 && add != 1)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  // What the tensor cores take; other layouts are refused, or slow, on some device or other.
  if (m % 16 != 0 || n % 16 != 0 || k % 16 != 0 || m <= 16 || n <= 16 || lda % 16 != 0 || ldb % 16 != 0 ||
      ldc % 4 != 0 || !aligned(a) || !aligned(b) || !aligned(c)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (lda < k || ldb < k || ldc < m) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const auto inside = [](const void* memory, int64_t rows, int64_t ld, int64_t width, int64_t size) {
    return emulation::inside_device_memory(memory, static_cast<size_t>(((rows - 1) * ld + width) * size));
  };
  if (!inside(a, m, lda, k, 1) || !inside(b, n, ldb, k, 1) || !inside(c, n, ldc, m, sizeof(int32_t))) {
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
  return run_blas("cublasGemmEx", handle, [=] {
    multiply_bytes(m, n, k, static_cast<const int8_t*>(a), lda, static_cast<const int8_t*>(b), ldb, add == 1,
                   static_cast<int32_t*>(c), ldc);
  });
}

cublasStatus_t cublasSsyrk(cublasHandle_t handle, cublasFillMode_t uplo, cublasOperation_t trans, int n, int k,
                           const float* alpha, const float* a, int lda, const float* beta, float* c, int ldc) {
  return syrk(handle, uplo, trans, n, k, alpha, a, lda, beta, c, ldc);
}

cublasStatus_t cublasDsyrk(cublasHandle_t handle, cublasFillMode_t uplo, cublasOperation_t trans, int n, int k,
                           const double* alpha, const double* a, int lda, const double* beta, double* c, int ldc) {
  return syrk(handle, uplo, trans, n, k, alpha, a, lda, beta, c, ldc);
}

cublasStatus_t cublasDgemv(cublasHandle_t handle, cublasOperation_t trans, int m, int n, const double* alpha,
                           const double* a, int lda, const double* x, int incx, const double* beta, double* y,
                           int incy) {
  if (!fits(m, n, lda) || incx != 1 || incy != 1) {  // the real one takes other steps than 1; nobody needs them
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const cublasOperation_t none = CUBLAS_OP_N;
  return cublasDgemm(handle, trans, none, trans == CUBLAS_OP_N ? m : n, 1, trans == CUBLAS_OP_N ? n : m, alpha, a, lda,
                     x, std::max(1, trans == CUBLAS_OP_N ? n : m), beta, y, std::max(1, trans == CUBLAS_OP_N ? m : n));
}

cublasStatus_t cublasDnrm2(cublasHandle_t handle, int n, const double* x, int incx, double* result) {
  if (n < 0 || incx != 1 || !emulation::inside_device_memory(x, static_cast<size_t>(n) * sizeof(double))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const cublasStatus_t status = run_blas("cublasDnrm2", handle, [=] {
    double sum = 0.0;
    for (int i = 0; i < n; ++i) {
      sum = std::hypot(sum, x[i]);
    }
    *result = sum;
  });
  emulation::drain(handle->stream);
  return status;
}

cublasStatus_t cublasDtrsm(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t uplo, cublasOperation_t trans,
                           cublasDiagType_t diag, int m, int n, const double* alpha, const double* a, int lda,
                           double* b, int ldb) {
  const int order = side == CUBLAS_SIDE_LEFT ? m : n;
  if (diag != CUBLAS_DIAG_NON_UNIT || *alpha != 1.0 || !fits(order, order, lda) || !fits(m, n, ldb)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return run_blas("cublasDtrsm", handle, [=] {
    const auto solve = side == CUBLAS_SIDE_LEFT ? &solve_triangular : &solve_triangular_right;
    solve(uplo == CUBLAS_FILL_MODE_LOWER, trans == CUBLAS_OP_T, m, n, a, lda, b, ldb);
  });
}

cublasStatus_t cublasDtrsv(cublasHandle_t handle, cublasFillMode_t uplo, cublasOperation_t trans, cublasDiagType_t diag,
                           int n, const double* a, int lda, double* x, int incx) {
  if (diag != CUBLAS_DIAG_NON_UNIT || !fits(n, n, lda) || incx != 1) {  // as with cublasDgemv
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return run_blas("cublasDtrsv", handle, [=] {
    solve_triangular(uplo == CUBLAS_FILL_MODE_LOWER, trans == CUBLAS_OP_T, n, 1, a, lda, x, std::max(1, n));
  });
}

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  return make_handle(handle, "cusolverDnCreate", CUSOLVER_STATUS_EXECUTION_FAILED);
}

cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
  destroy_handle(handle);
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return emulation::fails("cusolverDnSetStream") ? CUSOLVER_STATUS_EXECUTION_FAILED : CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDpotrf_bufferSize(cusolverDnHandle_t, cublasFillMode_t, int n, double*, int lda,
                                             int* lwork) {
  if (!fits(n, n, lda)) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  *lwork = std::max(1, n);
  return emulation::fails("cusolverDnDpotrf_bufferSize") ? CUSOLVER_STATUS_EXECUTION_FAILED : CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDpotrf(cusolverDnHandle_t handle, cublasFillMode_t uplo, int n, double* a, int lda,
                                  double* work, int lwork, int* info) {
  if (!fits(n, n, lda) || lwork < std::max(1, n) ||
      !emulation::inside_device_memory(work, static_cast<size_t>(lwork) * sizeof(double))) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  return run_lapack("cusolverDnDpotrf", handle, [=]() mutable {
    char triangle = letter(uplo);
    blas<double>().potrf(&triangle, &n, a, &lda, info);
    *info = reported(*info);
  });
}

cusolverStatus_t cusolverDnDsyevd_bufferSize(cusolverDnHandle_t, cusolverEigMode_t, cublasFillMode_t, int n,
                                             const double*, int lda, const double*, int* lwork) {
  if (!fits(n, n, lda)) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  *lwork = std::max(1, n);
  return emulation::fails("cusolverDnDsyevd_bufferSize") ? CUSOLVER_STATUS_EXECUTION_FAILED : CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDsyevd(cusolverDnHandle_t handle, cusolverEigMode_t mode, cublasFillMode_t uplo, int n,
                                  double* a, int lda, double* w, double* work, int lwork, int* info) {
  if (lda != n || lwork < std::max(1, n) || mode != CUSOLVER_EIG_MODE_VECTOR || uplo != CUBLAS_FILL_MODE_LOWER ||
      !emulation::inside_device_memory(work, static_cast<size_t>(lwork) * sizeof(double))) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  return run_lapack("cusolverDnDsyevd", handle, [=] { *info = reported(diagonalise(n, a, w) ? 0 : 1); });
}

cusolverStatus_t cusolverDnDgeqrf_bufferSize(cusolverDnHandle_t, int m, int n, double*, int lda, int* lwork) {
  if (!fits(m, n, lda)) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  double size = 0.0;
  int query = -1, info = 0;
  blas<double>().geqrf(&m, &n, nullptr, &lda, nullptr, &size, &query, &info);
  *lwork = size_of(size);
  return emulation::fails("cusolverDnDgeqrf_bufferSize") ? CUSOLVER_STATUS_EXECUTION_FAILED : CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDgeqrf(cusolverDnHandle_t handle, int m, int n, double* a, int lda, double* tau,
                                  double* work, int lwork, int* info) {
  if (!fits(m, n, lda) || lwork < std::max(1, n)) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  return run_lapack("cusolverDnDgeqrf", handle, [=]() mutable {
    blas<double>().geqrf(&m, &n, a, &lda, tau, work, &lwork, info);
    *info = reported(*info);
  });
}

cusolverStatus_t cusolverDnDormqr_bufferSize(cusolverDnHandle_t, cublasSideMode_t side_of_q, cublasOperation_t trans,
                                             int m, int n, int k, const double*, int lda, const double*, const double*,
                                             int ldc, int* lwork) {
  if (side_of_q != CUBLAS_SIDE_LEFT || k < 0 || k > m || !fits(m, k, lda) || !fits(m, n, ldc)) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  double size = 0.0;
  int query = -1, info = 0;
  char side = 'L', t = letter(trans);
  blas<double>().ormqr(&side, &t, &m, &n, &k, nullptr, &lda, nullptr, nullptr, &ldc, &size, &query, &info);
  *lwork = size_of(size);
  return emulation::fails("cusolverDnDormqr_bufferSize") ? CUSOLVER_STATUS_EXECUTION_FAILED : CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDormqr(cusolverDnHandle_t handle, cublasSideMode_t side_of_q, cublasOperation_t trans, int m,
                                  int n, int k, const double* a, int lda, const double* tau, double* c, int ldc,
                                  double* work, int lwork, int* info) {
  if (side_of_q != CUBLAS_SIDE_LEFT || k < 0 || k > m || !fits(m, k, lda) || !fits(m, n, ldc) ||
      lwork < std::max(1, n)) {
    return CUSOLVER_STATUS_INVALID_VALUE;
  }
  return run_lapack("cusolverDnDormqr", handle, [=]() mutable {
    char side = 'L', t = letter(trans);
    blas<double>().ormqr(&side, &t, &m, &n, &k, const_cast<double*>(a), &lda, const_cast<double*>(tau), c, &ldc, work,
                         &lwork, info);
    *info = reported(*info);
  });
}
