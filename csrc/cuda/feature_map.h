// Feature maps on the device, and the tiles of data that stream through them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "cuda/byte_layer.h"
#include "cuda/elementwise.h"
#include "cuda/runtime.h"

namespace krrdistill::cuda {

// The same layers with arrays on the device; rows of dense weights are `ld = pitch(inputs)` apart.
template <typename T>
FeatureMap<T> upload(Scope& scope, const FeatureMap<T>& map);

// x * scale + shift for inputs of this type.
template <typename T>
Factors<T> upload_factors(Scope& scope, const FeatureMap<T>& map, InputType type);

// Bytes that both take.
template <typename T>
int64_t map_bytes(Scope& scope, const FeatureMap<T>& map);

// Rows of the host on their way through the device:
//
//     host     gather 0 | gather 1 |          | gather 2 ...          pinned memory, two slots
//     copy              | copy 0   | copy 1   |          | copy 2     waits until the slot's last tile was computed
//     compute                      | tile 0   | tile 1   |   ...      waits for the copy of its tile
//
// Rows on the device go the same way: the host sends their indices, and a kernel on the copy stream gathers them.
// `extra` bytes of each slot are the operation's own (labels, targets), filled on the host beside the rows.
template <typename T>
class TileStream {
 public:
  using Fill = std::function<void(int64_t first, int64_t count, std::byte* extra)>;
  struct Tile {
    int64_t first;
    int64_t count;
    T* features;           // (count, output_dim), stride pitch(output_dim); null for tiles that stay raw
    const std::byte* raw;  // rows as they are stored, stride pitch(input_dim); a ByteLayer overwrites them
    const std::byte* extra;
  };

  // What an operation needs beside the features of a tile.
  struct Needs {
    int64_t fixed = 0;    // bytes, which the operation still allocates,
    int64_t per_row = 0;  // and for each row: tiles have fewer rows where less room is left
    int64_t extra_fixed = 0;
    int64_t extra_per_row = 0;
    bool features = true;  // false: only raw rows
    int64_t period = 0;    // a power of two: no tile crosses a multiple of so many rows
  };
  // Tiles of at most tile_rows rows.
  TileStream(Scope& scope, const char* operation, const FeatureMap<T>& map, const Source& input, int64_t tile_rows,
             const Needs& needs);

  // Calls use(tile) for every tile; what `use` enqueues on the compute stream may read the tile. Then waits for all of
  // it. Throws NonFinite with the row's index in the data.
  void for_each(const Fill& fill, const std::function<void(const Tile&)>& use);

  [[nodiscard]] int64_t rows() const { return rows_; }

 private:
  struct Slot {
    std::byte* pinned;  // rows, or their indices
    std::byte* pinned_extra;
    std::byte* raw;
    std::byte* indices;  // of rows on the device
    std::byte* extra;
    cudaEvent_t copied;
    cudaEvent_t computed;
  };
  void stage(const Slot& slot, int64_t first, int64_t count, const Fill& fill) const;
  T* features_of(std::byte* staged, int64_t first, int64_t count);

  Scope& scope_;
  const Source& input_;
  FeatureMap<T> map_;  // on the device
  Factors<T> factors_;
  std::optional<ByteLayer> byte_layer_;  // in the place of the affine stage and the first layer
  bool features_;
  int64_t row_bytes_;  // of staged raw rows
  int64_t extra_fixed_;
  int64_t extra_per_row_;
  int64_t rows_ = 0;
  std::array<Slot, 2> slots_{};
  T* current_ = nullptr;
  T* next_ = nullptr;
  unsigned long long* first_bad_ = nullptr;
};

}  // namespace krrdistill::cuda
