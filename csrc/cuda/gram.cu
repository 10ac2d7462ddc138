#include "cuda/gram.h"

#include <stdexcept>
#include <utility>

#include "cuda/elementwise.h"
#include "cuda/shared.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 256;
constexpr int block = 32;

// The upper triangle becomes the mirror of the lower one, by blocks that go through shared memory: both sides are
// read and written along rows. A column more than the block keeps the banks apart.
__global__ void __launch_bounds__(block * 8) mirror_kernel(double* gram, int64_t p) {
  auto* tile = shared_memory<double>();  // (block, block + 1)
  const int64_t row = static_cast<int64_t>(blockIdx.y) * block, column = static_cast<int64_t>(blockIdx.x) * block;
  if (column > row) {
    return;
  }
  const int x = static_cast<int>(threadIdx.x) % block, y = static_cast<int>(threadIdx.x) / block;
  for (int i = y; i < block; i += 8) {
    if (row + i < p && column + x < p) {
      tile[i * (block + 1) + x] = gram[(row + i) * p + column + x];
    }
  }
  __syncthreads();
  for (int i = y; i < block; i += 8) {
    const int64_t above = column + i, right = row + x;
    if (above < right && right < p) {
      gram[above * p + right] = tile[x * (block + 1) + i];
    }
  }
}

// The diagonal in one block, in an order that is always the same.
__global__ void __launch_bounds__(threads) trace_kernel(const double* gram, int64_t p, double* trace) {
  auto* sums = shared_memory<double>();
  const auto tid = static_cast<int>(threadIdx.x);
  double sum = 0.0;
  for (int64_t i = tid; i < p; i += threads) {
    sum += gram[i * p + i];
  }
  sums[tid] = sum;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (tid < half) {
      sums[tid] += sums[tid + half];
    }
  }
  if (tid == 0) {
    *trace = sums[0];
  }
}

// packed = the lower triangle row after row, or the triangle = packed.
__global__ void __launch_bounds__(threads) pack_kernel(const double* gram, int64_t p, double* packed) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t row = blockIdx.y; row < p; row += gridDim.y) {
    if (column <= row) {
      packed[row * (row + 1) / 2 + column] = gram[row * p + column];
    }
  }
}
__global__ void __launch_bounds__(threads) unpack_kernel(const double* packed, int64_t p, double* gram) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t row = blockIdx.y; row < p; row += gridDim.y) {
    if (column <= row) {
      gram[row * p + column] = packed[row * (row + 1) / 2 + column];
    }
  }
}

dim3 grid_of_rows(int64_t p) { return grid_of(ceil_div(p, threads), p); }

}  // namespace

void mirror(cudaStream_t stream, double* gram, int64_t p) {
  launch("mirror", &mirror_kernel, grid_of(ceil_div(p, block), ceil_div(p, block)), block * 8,
         block * (block + 1) * static_cast<int64_t>(sizeof(double)), stream, gram, p);
}

void symmetrize(Context& context, double* gram, int64_t p) {
  Scope scope(context);
  double* device = scope.upload(gram, p * p);
  mirror(context.compute, device, p);
  scope.download(gram, device, p * p);
}

ResidentGram::ResidentGram(std::shared_ptr<Context> context, int64_t p) : context_(std::move(context)), p_(p) {
  Scope scope(*context_);
  auto* made = scope.device<double>(p * p);
  cuda::clear(context_->compute, made, p * p);
  data_ = scope.keep_here(made);
}

void ResidentGram::clear() {
  Scope scope(*context_);
  cuda::clear(context_->compute, data_.get(), p_ * p_);
  symmetric_ = true;
  trace_ = 0.0;
}

void ResidentGram::add(const double* host, double sign) {
  Scope scope(*context_);
  cuda::add(context_->compute, scope.upload(host, p_ * p_), lower(), p_, p_, true, sign);
}

void ResidentGram::add(const ResidentGram& other, double sign) {
  if (other.context_ != context_ || other.p_ != p_) {
    throw std::invalid_argument("the other G is of another backend or another size");
  }
  const Scope scope(*context_);
  cuda::add(context_->compute, other.data_.get(), lower(), p_, p_, true, sign);
}

const double* ResidentGram::send_trace(Scope& scope) const {
  auto* sum = scope.device<double>(1);
  auto* found = scope.pinned<double>(1);
  launch("trace", &trace_kernel, dim3(1), threads, threads * static_cast<int64_t>(sizeof(double)), context_->compute,
         data_.get(), p_, sum);
  KRRDISTILL_CHECK(cudaMemcpyAsync(found, sum, sizeof(double), cudaMemcpyDeviceToHost, context_->compute));
  return found;
}

double ResidentGram::trace() {
  if (!trace_) {
    Scope scope(*context_);
    const double* found = send_trace(scope);
    KRRDISTILL_CHECK(cudaStreamSynchronize(context_->compute));
    trace_ = *found;
  }
  return *trace_;
}

void ResidentGram::complete() {
  if (!symmetric_) {
    mirror(context_->compute, data_.get(), p_);
    symmetric_ = true;
  }
}

void ResidentGram::download(double* host) {
  Scope scope(*context_);
  complete();
  scope.download(host, data_.get(), p_ * p_);
}

std::shared_ptr<ResidentGram> ResidentGram::copy() const {
  auto made = std::make_shared<ResidentGram>(context_, p_);
  Scope scope(*context_);
  KRRDISTILL_CHECK(cudaMemcpyAsync(made->data_.get(), data_.get(), static_cast<size_t>(p_ * p_) * sizeof(double),
                                   cudaMemcpyDeviceToDevice, context_->compute));
  made->symmetric_ = symmetric_;
  made->trace_ = trace_;
  return made;
}

PackedGram ResidentGram::packed(int64_t room) const {
  Scope scope(*context_);
  auto* numbers = scope.device<double>(room + p_ * (p_ + 1) / 2);
  launch("pack", &pack_kernel, grid_of_rows(p_), threads, 0, context_->compute, data_.get(), p_, numbers + room);
  return {.context = context_, .numbers = scope.keep(numbers), .room = room, .p = p_};
}

void PackedGram::write(const double* host) const {
  Scope scope(*context);
  scope.upload_rows_to(numbers.get(), host, 1, room, room);
}

void PackedGram::read(double* host) const {
  Scope scope(*context);
  scope.download(host, numbers.get(), room);
}

std::shared_ptr<ResidentGram> PackedGram::unpacked() const {
  auto made = std::make_shared<ResidentGram>(context, p);
  const Scope scope(*context);
  launch("unpack", &unpack_kernel, grid_of_rows(p), threads, 0, context->compute, numbers.get() + room, p,
         made->lower());
  return made;
}

const double* ResidentGram::symmetric() {
  const Scope scope(*context_);
  complete();
  return data_.get();
}

}  // namespace krrdistill::cuda
