#include "cuda/elementwise.h"

#include "cuda/halves.h"
#include "cuda/vectors.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 256;

template <typename In, typename Factor, typename T>
__global__ void __launch_bounds__(threads)
    standardise_kernel(const In* x, const Factor* scale, const Factor* shift, T* out, unsigned packs, unsigned total,
                       int64_t d, int64_t first, unsigned long long* first_bad) {
  constexpr int n = lanes<T>;
  const unsigned index = flat_index();
  if (index >= total) {
    return;
  }
  const unsigned row = index / packs;
  const int64_t column = static_cast<int64_t>(index % packs) * n;
  const auto source = reinterpret_cast<const Pack<In, n>*>(x)[index];
  Pack<T, n> value;
  bool finite = true;
#pragma unroll
  for (int j = 0; j < n; ++j) {
    T v = T(0);
    if (column + j < d) {
      v = scale == nullptr
              ? static_cast<T>(widen(source.v[j]))
              : static_cast<T>(static_cast<Factor>(widen(source.v[j])) * scale[column + j] + shift[column + j]);
      finite = finite && v - v == T(0);
    }
    value.v[j] = v;
  }
  reinterpret_cast<Pack<T, n>*>(out)[index] = value;
  if (!finite) {
    atomicMin(first_bad, static_cast<unsigned long long>(first + row));
  }
}

// Strides and widths in units.
template <typename Unit>
__global__ void __launch_bounds__(threads)
    gather_kernel(const Unit* x, int64_t row_stride, int64_t column_stride, const int64_t* rows, Unit* out, int64_t ld,
                  unsigned width, unsigned total) {
  const unsigned index = flat_index();
  if (index < total) {
    const unsigned row = index / width, column = index % width;
    out[row * ld + column] = x[rows[row] * row_stride + column * column_stride];
  }
}

// The bytes, 1, 2, 4, 8 or 16, that a thread copies: rows may start anywhere and end anywhere.
int64_t unit_bytes(const Source& source, int64_t d) {
  const int64_t size = element_bytes(source.type);
  if (source.column_stride != 1) {
    return size;
  }
  const auto ends = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(source.data)) |
                    static_cast<uint64_t>(source.row_stride * size) | static_cast<uint64_t>(d * size) | 16;
  return static_cast<int64_t>(ends & (~ends + 1));  // the largest power of two that divides them all
}

template <Activation activation, typename T>
__global__ void __launch_bounds__(threads)
    epilogue_kernel(T* x, const T* bias, T parameter, unsigned packs, unsigned total) {
  constexpr int n = lanes<T>;
  const unsigned index = flat_index();
  if (index >= total) {
    return;
  }
  auto value = reinterpret_cast<Pack<T, n>*>(x)[index];
  if (bias != nullptr) {
    const auto offset = reinterpret_cast<const Pack<T, n>*>(bias)[index % packs];
#pragma unroll
    for (int j = 0; j < n; ++j) {
      value.v[j] += offset.v[j];
    }
  }
#pragma unroll
  for (int j = 0; j < n; ++j) {
    value.v[j] = activate<activation>(value.v[j], parameter);
  }
  reinterpret_cast<Pack<T, n>*>(x)[index] = value;
}

template <typename T>
__global__ void __launch_bounds__(threads)
    add_kernel(const T* x, double* sum, int64_t rows, int64_t p, bool lower, double sign) {
  const int64_t column = flat_index();
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    if (column < (lower ? row + 1 : p)) {
      sum[row * p + column] += sign * static_cast<double>(x[row * p + column]);
    }
  }
}

__global__ void __launch_bounds__(threads) widen_kernel(const float* x, double* out, int64_t n) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index < n) {
    out[index] = static_cast<double>(x[index]);
  }
}

// Launch one thread per vector of `count` rows of `width` elements.
template <typename T, typename... Parameters, typename... Arguments>
void launch_flat(const char* name, void (*kernel)(Parameters...), cudaStream_t stream, int64_t count, int64_t width,
                 Arguments... arguments) {
  launch(name, kernel, grid_of(ceil_div(narrow(count * (pitch(width) / lanes<T>)), threads)), threads, 0, stream,
         arguments...);
}

}  // namespace

template <typename T>
void standardise(cudaStream_t stream, const void* x, InputType type, const Factors<T>& factors, T* out, int64_t count,
                 int64_t d, int64_t first, unsigned long long* first_bad) {
  const int64_t packs = pitch(d) / lanes<T>;
  const auto run = [&](auto kernel, const auto* typed, const auto* scale, const auto* shift) {
    launch_flat<T>("standardise", kernel, stream, count, d, typed, scale, shift, out, packs, count * packs, d, first,
                   first_bad);
  };
  switch (type) {
    case InputType::u8:
      return run(&standardise_kernel<uint8_t, T, T>, static_cast<const uint8_t*>(x), factors.rounded_scale,
                 factors.rounded_shift);
    case InputType::f32:
      return run(&standardise_kernel<float, double, T>, static_cast<const float*>(x), factors.scale, factors.shift);
    case InputType::f64:
      return run(&standardise_kernel<double, double, T>, static_cast<const double*>(x), factors.scale, factors.shift);
    case InputType::f16:
      return run(&standardise_kernel<__half, double, T>, static_cast<const __half*>(x), factors.scale, factors.shift);
    case InputType::bf16:
      return run(&standardise_kernel<__nv_bfloat16, double, T>, static_cast<const __nv_bfloat16*>(x), factors.scale,
                 factors.shift);
  }
}

void gather(cudaStream_t stream, const Source& source, const int64_t* rows, void* out, int64_t count, int64_t d) {
  const int64_t size = element_bytes(source.type), unit = unit_bytes(source, d);
  const int64_t width = d * size / unit;
  const auto run = [&](auto kind) {
    using Unit = decltype(kind);
    launch("gather", &gather_kernel<Unit>, grid_of(ceil_div(narrow(count * width), threads)), threads, 0, stream,
           static_cast<const Unit*>(source.data), source.row_stride * size / unit, source.column_stride, rows,
           static_cast<Unit*>(out), pitch(d) * size / unit, width, count * width);
  };
  switch (unit) {
    case 1:
      return run(uint8_t{});
    case 2:
      return run(uint16_t{});
    case 4:
      return run(uint32_t{});
    case 8:
      return run(Pack<uint32_t, 2>{});
    default:
      return run(Pack<uint32_t, 4>{});
  }
}

template <typename T>
void epilogue(cudaStream_t stream, const Layer<T>& layer, T* x, int64_t count) {
  const int64_t packs = pitch(layer.outputs) / lanes<T>;
  const auto run = [&](auto kernel) {
    launch_flat<T>("epilogue", kernel, stream, count, layer.outputs, x, layer.bias, layer.parameter, packs,
                   count * packs);
  };
  switch (layer.activation) {
    case Activation::linear:
      if (layer.bias != nullptr) {
        run(&epilogue_kernel<Activation::linear, T>);
      }
      return;
    case Activation::leaky_relu:
      return run(&epilogue_kernel<Activation::leaky_relu, T>);
    case Activation::cosine:
      return run(&epilogue_kernel<Activation::cosine, T>);
  }
}

void widen(cudaStream_t stream, const float* x, double* out, int64_t n) {
  launch("widen", &widen_kernel, grid_of(ceil_div(n, threads)), threads, 0, stream, x, out, n);
}

template <typename T>
void add(cudaStream_t stream, const T* x, double* sum, int64_t rows, int64_t p, bool lower, double sign) {
  launch("add", &add_kernel<T>, grid_of(ceil_div(p, threads), rows), threads, 0, stream, x, sum, rows, p, lower, sign);
}

template void standardise(cudaStream_t, const void*, InputType, const Factors<float>&, float*, int64_t, int64_t,
                          int64_t, unsigned long long*);
template void standardise(cudaStream_t, const void*, InputType, const Factors<double>&, double*, int64_t, int64_t,
                          int64_t, unsigned long long*);
template void epilogue(cudaStream_t, const Layer<float>&, float*, int64_t);
template void epilogue(cudaStream_t, const Layer<double>&, double*, int64_t);
template void add(cudaStream_t, const float*, double*, int64_t, int64_t, bool, double);
template void add(cudaStream_t, const double*, double*, int64_t, int64_t, bool, double);

}  // namespace krrdistill::cuda
