// phi(x) of one tile: standardise, then per layer one GEMM, or the rounds of a structured weight, and one epilogue.
#include "cuda/feature_map.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/elementwise.h"
#include "cuda/hadamard.h"
#include "cuda/host_copy.h"
#include "cuda/products.h"
#include "krrdistill/errors.h"

namespace krrdistill::cuda {
namespace {

constexpr unsigned long long none_bad = std::numeric_limits<unsigned long long>::max();

constexpr int64_t kept_part = 4;  // weights that are kept take at most this part of the device's memory

template <typename T>
KeptKey key_of(const Layer<T>& layer) {
  return {.data = layer.weight, .rows = layer.outputs, .width = layer.inputs, .element = sizeof(T)};
}

template <typename To>
const To* upload_as(Scope& scope, const double* host, int64_t n) {
  const std::vector<To> values(host, host + n);
  return scope.upload_rows(values.data(), 1, n, pitch(n));
}

}  // namespace

template <typename T>
int64_t map_bytes(Scope& scope, const FeatureMap<T>& map) {
  int64_t elements = 0;
  for (const auto& layer : map.layers) {
    elements += pitch(layer.outputs);
    if (layer.weight == nullptr) {
      elements += 2 * layer.hadamard.rounds * layer.hadamard.block + pitch(layer.outputs);
    } else if (scope.kept(key_of(layer)) == nullptr) {
      elements += layer.outputs * pitch(layer.inputs);
    }
  }
  const int64_t factors = map.scale == nullptr ? 0 : 2 * pitch(map.input_dim);  // in double or T
  return elements * static_cast<int64_t>(sizeof(T)) + factors * static_cast<int64_t>(sizeof(double));
}

template <typename T>
std::shared_ptr<const void> keep_weight(Context& context, const T* weight, int64_t rows, int64_t width) {
  Scope scope(context);
  std::erase_if(context.kept, [](const auto& entry) { return entry.second.expired(); });
  const KeptKey key{.data = weight, .rows = rows, .width = width, .element = sizeof(T)};
  const auto found = context.kept.find(key);
  std::shared_ptr<const void> copy = found == context.kept.end() ? nullptr : found->second.lock();
  if (copy != nullptr) {
    return copy;
  }
  int64_t bytes = key.bytes();
  for (const auto& [other, memory] : context.kept) {
    bytes += other.bytes();
  }
  if (bytes <= scope.device_memory() / kept_part) {
    copy = scope.keep_here(scope.upload_rows(weight, rows, width, pitch(width)));
    context.kept[key] = copy;
  }
  return copy;
}

template <typename T>
FeatureMap<T> upload(Scope& scope, const FeatureMap<T>& map) {
  const auto vector = [&](const T* host, int64_t n) -> const T* {
    return host == nullptr ? nullptr : scope.upload_rows(host, 1, n, pitch(n));
  };
  FeatureMap<T> result = map;
  result.scale = result.shift = nullptr;
  for (auto& layer : result.layers) {
    layer.bias = vector(layer.bias, layer.outputs);
    if (layer.weight != nullptr) {
      const void* kept = scope.kept(key_of(layer));
      layer.weight = kept != nullptr
                         ? static_cast<const T*>(kept)
                         : scope.upload_rows(layer.weight, layer.outputs, layer.inputs, pitch(layer.inputs));
      layer.ld = pitch(layer.inputs);
    } else {
      layer.hadamard = upload(scope, layer.hadamard);
    }
  }
  return result;
}

template <typename T>
Factors<T> upload_factors(Scope& scope, const FeatureMap<T>& map, InputType type) {
  if (map.scale == nullptr) {
    return {};
  }
  const int64_t d = map.input_dim;
  if (type == InputType::u8) {
    return {.rounded_scale = upload_as<T>(scope, map.scale, d), .rounded_shift = upload_as<T>(scope, map.shift, d)};
  }
  return {.scale = upload_as<double>(scope, map.scale, d), .shift = upload_as<double>(scope, map.shift, d)};
}

template <typename T>
TileStream<T>::TileStream(Scope& scope, const char* operation, const FeatureMap<T>& map, const Source& input,
                          int64_t tile_rows, const Needs& needs)
    : scope_(scope),
      input_(input),
      features_(needs.features),
      row_bytes_(pitch(map.input_dim) * element_bytes(input.type)),
      extra_fixed_(needs.extra_fixed),
      extra_per_row_(needs.extra_per_row) {
  const int64_t index = input.on_device ? static_cast<int64_t>(sizeof(int64_t)) : 0;
  const int64_t staged = row_bytes_ + index + extra_per_row_;
  int64_t fixed = needs.fixed + 2 * extra_fixed_ + static_cast<int64_t>(sizeof(*first_bad_));
  int64_t per_row = needs.per_row + 2 * staged;
  bool by_bytes = false;
  if constexpr (std::is_same_v<T, float>) {
    by_bytes = features_ && ByteLayer::fits(map, input.type, scope.context.options.products);
    if (by_bytes) {
      fixed += ByteLayer::fixed_bytes(map);
      per_row += ByteLayer::row_bytes(map);
    }
  }
  if (features_) {
    fixed += map_bytes(scope, map);
    per_row += 2 * static_cast<int64_t>(sizeof(T)) * pitch(map.max_width());  // this layer's rows and the next one's
  }
  const int64_t most = needs.period == 0 ? tile_rows : std::min(tile_rows, needs.period);
  rows_ = scope.fit_rows(operation, fixed, per_row, std::min(most, std::max<int64_t>(input.n, 1)));
  if (needs.period != 0 && rows_ < input.n) {
    rows_ = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows_)));
  }
  map_.input_dim = map.input_dim;
  if (features_) {
    map_ = upload(scope, map);
    factors_ = upload_factors(scope, map, input.type);
  }
  if constexpr (std::is_same_v<T, float>) {
    if (by_bytes) {
      byte_layer_.emplace(scope, map_, map, rows_);
    }
  }
  const int64_t padded = by_bytes ? ByteLayer::padded_rows(rows_) : rows_;
  const int64_t pinned = rows_ * (input.on_device ? index : row_bytes_);
  for (Slot& slot : slots_) {
    slot.pinned = scope.template pinned<std::byte>(pinned + rows_ * extra_per_row_ + extra_fixed_);
    slot.pinned_extra = slot.pinned + pinned;
    slot.raw = scope.template device<std::byte>(padded * row_bytes_ + rows_ * (index + extra_per_row_) + extra_fixed_);
    slot.indices = slot.raw + padded * row_bytes_;
    slot.extra = slot.indices + rows_ * index;
    slot.copied = scope.event();
    slot.computed = scope.event();
  }
  if (features_) {
    current_ = scope.template device<T>(rows_ * pitch(map.max_width()));
    next_ = scope.template device<T>(rows_ * pitch(map.max_width()));
  }
  first_bad_ = scope.template device<unsigned long long>(1);
}

template <typename T>
void TileStream<T>::stage(const Slot& slot, int64_t first, int64_t count, const Fill& fill) const {
  cudaStream_t copy = scope_.context.copy;
  const auto send = [copy](std::byte* to, const std::byte* from, int64_t bytes) {
    KRRDISTILL_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, copy));
  };
  if (fill) {
    fill(first, count, slot.pinned_extra);
    send(slot.extra, slot.pinned_extra, extra_fixed_ + count * extra_per_row_);
  }
  if (input_.on_device) {
    auto* indices = reinterpret_cast<int64_t*>(slot.pinned);
    for (int64_t i = 0; i < count; ++i) {
      indices[i] = input_.row_of(first + i);
    }
    send(slot.indices, slot.pinned, count * static_cast<int64_t>(sizeof(int64_t)));
    gather(copy, input_, reinterpret_cast<const int64_t*>(slot.indices), slot.raw, count, map_.input_dim);
  } else {
    const int64_t size = element_bytes(input_.type);
    gather_on_host(input_, first, count, size, map_.input_dim * size, slot.pinned, row_bytes_);
    send(slot.raw, slot.pinned, count * row_bytes_);
  }
}

template <typename T>
T* TileStream<T>::features_of(std::byte* staged, int64_t first, int64_t count) {
  cudaStream_t stream = scope_.context.compute;
  bool done = false;  // the first layer
  if constexpr (std::is_same_v<T, float>) {
    if (byte_layer_) {
      byte_layer_->apply(staged, count, current_);
      done = true;
    }
  }
  if (!done) {
    standardise(stream, staged, input_.type, factors_, current_, count, map_.input_dim, first, first_bad_);
  }
  for (size_t i = done ? 1 : 0; i < map_.layers.size(); ++i) {
    const Layer<T>& layer = map_.layers[i];
    if (layer.weight != nullptr) {
      // Row-major (count, inputs) is column-major (inputs, count), so features^T = W^T-transposed times H.
      gemm<T>(scope_, CUBLAS_OP_T, CUBLAS_OP_N, layer.outputs, count, layer.inputs, layer.weight, layer.ld, current_,
              pitch(layer.inputs), T(0), next_, pitch(layer.outputs));
    } else {
      hadamard_apply(stream, layer.hadamard, current_, next_, count);
    }
    epilogue(stream, layer, next_, count);
    std::swap(current_, next_);
  }
  return current_;
}

template <typename T>
void TileStream<T>::for_each(const Fill& fill, const std::function<void(const Tile&)>& use) {
  cudaStream_t compute = scope_.context.compute;
  cudaStream_t copy = scope_.context.copy;
  KRRDISTILL_CHECK(cudaMemsetAsync(first_bad_, 0xFF, sizeof(*first_bad_), compute));
  for (int64_t first = 0, number = 0; first < input_.n; first += rows_, ++number) {
    const int64_t count = std::min(rows_, input_.n - first);
    Slot& slot = slots_[static_cast<size_t>(number % 2)];
    if (number >= 2) {
      KRRDISTILL_CHECK(cudaEventSynchronize(slot.copied));
      KRRDISTILL_CHECK(cudaStreamWaitEvent(copy, slot.computed, 0));
    }
    stage(slot, first, count, fill);
    KRRDISTILL_CHECK(cudaEventRecord(slot.copied, copy));
    KRRDISTILL_CHECK(cudaStreamWaitEvent(compute, slot.copied, 0));
    T* features = features_ ? features_of(slot.raw, first, count) : nullptr;
    use({.first = first, .count = count, .features = features, .raw = slot.raw, .extra = slot.extra});
    KRRDISTILL_CHECK(cudaEventRecord(slot.computed, compute));
  }
  unsigned long long bad = none_bad;
  scope_.download(&bad, first_bad_, 1);
  if (bad != none_bad) {
    throw NonFinite(input_.row_of(static_cast<int64_t>(bad)));
  }
}

// Features go back through pinned memory, two slots like the inputs: the host copies one out while the device works
// on the next.
template <typename T>
void transform(Context& context, const FeatureMap<T>& map, const Source& input, int64_t tile_rows, T* out) {
  Scope scope(context);
  TileStream<T> tiles(scope, "transform", map, input, tile_rows, {});
  const int64_t p = map.output_dim();
  struct Pending {
    T* pinned;
    cudaEvent_t arrived;
    int64_t first;
    int64_t count;
  };
  std::array<Pending, 2> slots{};
  for (auto& slot : slots) {
    slot = {.pinned = scope.pinned<T>(tiles.rows() * p), .arrived = scope.event(), .first = 0, .count = 0};
  }
  const auto collect = [&](Pending& slot) {
    if (slot.count > 0) {
      KRRDISTILL_CHECK(cudaEventSynchronize(slot.arrived));
      std::copy(slot.pinned, slot.pinned + slot.count * p, out + slot.first * p);
      slot.count = 0;
    }
  };
  size_t number = 0;
  tiles.for_each(nullptr, [&](const typename TileStream<T>::Tile& tile) {
    Pending& slot = slots[number++ % 2];
    collect(slot);
    const auto width = static_cast<size_t>(p) * sizeof(T);
    KRRDISTILL_CHECK(cudaMemcpy2DAsync(slot.pinned, width, tile.features, static_cast<size_t>(pitch(p)) * sizeof(T),
                                       width, static_cast<size_t>(tile.count), cudaMemcpyDeviceToHost,
                                       context.compute));
    KRRDISTILL_CHECK(cudaEventRecord(slot.arrived, context.compute));
    slot.first = tile.first;
    slot.count = tile.count;
  });
  for (auto& slot : slots) {
    collect(slot);
  }
}

namespace {

// phi(x) (n, output_dim) in memory of the scope, contiguous.
template <typename T>
T* transform_on(Scope& scope, const FeatureMap<T>& map, const Source& input, int64_t tile_rows) {
  const int64_t p = map.output_dim();
  T* out = scope.device<T>(input.n * p);
  TileStream<T> tiles(scope, "transform", map, input, tile_rows, {});
  const auto width = static_cast<size_t>(p) * sizeof(T), stride = static_cast<size_t>(pitch(p)) * sizeof(T);
  tiles.for_each(nullptr, [&](const typename TileStream<T>::Tile& tile) {
    KRRDISTILL_CHECK(cudaMemcpy2DAsync(out + tile.first * p, width, tile.features, stride, width,
                                       static_cast<size_t>(tile.count), cudaMemcpyDeviceToDevice,
                                       scope.context.compute));
  });
  return out;
}

}  // namespace

template <typename T>
std::shared_ptr<T> transform_there(Context& context, const FeatureMap<T>& map, const Source& input, int64_t tile_rows) {
  Scope scope(context);
  return scope.keep(transform_on(scope, map, input, tile_rows));
}

std::shared_ptr<double> transform_here(Context& context, const FeatureMap<double>& map, const Source& input,
                                       int64_t tile_rows) {
  Scope scope(context);
  const int64_t d = map.input_dim;
  Source source = input;
  const bool whole = !input.on_device && input.rows == nullptr && input.row_stride == d;
  const void* kept =
      whole ? scope.kept({.data = input.data, .rows = input.n, .width = d, .element = element_bytes(input.type)})
            : nullptr;
  if (kept != nullptr) {
    source.data = kept;
    source.row_stride = pitch(d);
    source.on_device = true;
  }
  return scope.keep_here(transform_on(scope, map, source, tile_rows));
}

template std::shared_ptr<const void> keep_weight(Context&, const float*, int64_t, int64_t);
template std::shared_ptr<const void> keep_weight(Context&, const double*, int64_t, int64_t);
template FeatureMap<float> upload(Scope&, const FeatureMap<float>&);
template FeatureMap<double> upload(Scope&, const FeatureMap<double>&);
template Factors<float> upload_factors(Scope&, const FeatureMap<float>&, InputType);
template Factors<double> upload_factors(Scope&, const FeatureMap<double>&, InputType);
template class TileStream<float>;
template class TileStream<double>;
template void transform(Context&, const FeatureMap<float>&, const Source&, int64_t, float*);
template void transform(Context&, const FeatureMap<double>&, const Source&, int64_t, double*);
template std::shared_ptr<float> transform_there(Context&, const FeatureMap<float>&, const Source&, int64_t);
template std::shared_ptr<double> transform_there(Context&, const FeatureMap<double>&, const Source&, int64_t);

}  // namespace krrdistill::cuda
