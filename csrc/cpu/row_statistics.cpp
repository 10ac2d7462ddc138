// The hot loop for few features and many rows, as embeddings have them: a thread converts a few rows, which stay in its
// cache while they are added to the sums of their classes and packed for their products.
#include "cpu/row_statistics.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <exception>
#include <optional>
#include <utility>

#include "common/checked_blas.h"
#include "common/checked_size.h"
#include "common/threads.h"
#include "cpu/float_gram.h"
#include "cpu/slice_products.h"
#include "cpu/target_products.h"
#include "krrdistill/elementwise.h"
#include "krrdistill/errors.h"
#include "krrdistill/interrupt.h"

namespace krrdistill {
namespace {

constexpr int64_t piece_rows = 32;  // that are converted at a time: 1024 features of them take 128 KiB

enum class Product { panels, slices, blas };

Product product_of(int64_t p, int64_t tile_rows) {
  if (slices_pay(p, p, tile_rows)) {
    return Product::slices;
  }
  return FloatGram::available() ? Product::panels : Product::blas;
}

// How rows are divided. Products in panels take rows as they come; GEMM and SYRK want many at once.
struct Division {
  int64_t piece;  // rows whose features exist at a time
  int64_t group;  // rows whose sums are in float32

  Division(const FeatureMap<float>& map, const Targets& targets, int64_t tile_rows)
      : piece(tile_rows), group(tile_rows) {
    const bool converts_only = map.layers.empty() && (targets.labels != nullptr || targets.k == 0);
    if (converts_only && product_of(map.output_dim(), tile_rows) == Product::panels) {
      piece = piece_rows;
      group = flush_rows;
    }
  }
};

// Brings rows that are converted next into the L2 cache. Class by class they are anywhere in memory, and a thread that
// converts them would wait for each.
class RowsAhead {
 public:
  void start(const Input& input, int64_t width, int64_t end) {
    input_ = input;
    bytes_ = width * element_bytes(input.type);
    end_ = end;
  }
  void converted(int64_t end) { next_ = converted_ = end; }
  // Up to so many rows behind those that are converted.
  void fetch(int64_t count) {
    constexpr int64_t line = 64;
    for (; next_ < std::min(converted_ + count, end_); ++next_) {
      const int64_t stride = input_.row_stride * element_bytes(input_.type);
      const char* row = static_cast<const char*>(input_.data) + input_.row_of(next_) * stride;
      for (int64_t at = 0; at < bytes_; at += line) {
        __builtin_prefetch(row + at, 0, 2);
      }
    }
  }

 private:
  Input input_{};
  int64_t bytes_ = 0;  // of a row
  int64_t end_ = 0;
  int64_t converted_ = 0;
  int64_t next_ = 0;
};

// Cuts memory at whole cache lines; of no memory it only counts.
class Cutter {
 public:
  explicit Cutter(float* memory) : begin_(reinterpret_cast<char*>(memory)) {
    if (begin_ != nullptr) {
      begin_ += (line - reinterpret_cast<uintptr_t>(begin_) % line) % line;
    }
  }
  template <typename T>
  T* take(int64_t count) {
    const int64_t at = used_;
    used_ = checked_sum(used_, checked_product(count, sizeof(T)), line - 1) / line * line;
    return begin_ == nullptr ? nullptr : reinterpret_cast<T*>(begin_ + at);
  }
  [[nodiscard]] int64_t floats() const { return checked_sum(used_, line) / static_cast<int64_t>(sizeof(float)); }

 private:
  static constexpr int64_t line = 64;

  char* begin_;
  int64_t used_ = 0;
};

int64_t product_workspace(Product product, int64_t p, int64_t tile_rows) {
  switch (product) {
    case Product::panels:
      return FloatGram::workspace(p);
    case Product::slices:
      return slice_syrk_workspace(tile_rows, p);
    case Product::blas:
      break;
  }
  return checked_product(p, p);
}

// What one thread works in.
struct Memory {
  float* features;   // of a piece
  float* tile;       // workspace of the features
  float* gram;       // of a group, in panels; workspace of slices; or (p, p) of BLAS
  double* slices;    // gram of slices (p, p)
  double* classes;   // sums of the classes that a group has, or products with all targets
  float* products;   // workspace of the products with targets
  int64_t* rows;     // of a group, class by class
  int64_t* ends;     // of each class among them
  int64_t* present;  // the classes that a group has

  Memory(const FeatureMap<float>& map, const Targets& targets, int64_t tile_rows, Cutter& cutter) {
    const int64_t p = map.output_dim(), k = targets.k;
    const Division division(map, targets, tile_rows);
    const Product product = product_of(p, tile_rows);
    const bool labels = targets.labels != nullptr;
    const int64_t most = labels ? std::min(k, division.group) : k;
    features = cutter.take<float>(checked_product(division.piece, p));
    tile = cutter.take<float>(tile_workspace(map, division.piece));
    gram = cutter.take<float>(product_workspace(product, p, tile_rows));
    slices = cutter.take<double>(product == Product::slices ? checked_product(p, p) : 0);
    classes = cutter.take<double>(checked_product(most, p));
    products = cutter.take<float>(target_products_workspace(division.piece, p, targets));
    rows = cutter.take<int64_t>(labels ? division.group : 0);
    ends = cutter.take<int64_t>(labels ? k : 0);
    present = cutter.take<int64_t>(most);
  }
};

// The sums of one group of rows after the other, by one thread.
class GroupSums {
 public:
  GroupSums(const FeatureMap<float>& map, const Input& input, const Targets& targets, int64_t tile_rows, Cutter cutter)
      : map_(map),
        input_(input),
        targets_(targets),
        p_(map.output_dim()),
        division_(map, targets, tile_rows),
        product_(product_of(p_, tile_rows)),
        memory_(map, targets, tile_rows, cutter) {
    if (product_ == Product::panels) {
      panels_.emplace(p_, memory_.gram, [this](int64_t product, int64_t products) {
        ahead_.fetch(FloatGram::depth * (product + 1) / products);
      });
    }
  }

  // Throws NonFinite with the first such row.
  void form(int64_t first, int64_t count) {
    if (thread_number() == 0) {  // that of the caller
      check_interrupt();
    }
    try {
      if (targets_.labels != nullptr) {
        sort_by_class(first, count);
        Input sorted = input_;
        sorted.rows = memory_.rows;
        add(sorted, 0, count);
      } else {
        add(input_, first, count);
      }
    } catch (const NonFinite&) {
      for_pieces(first, count, [&](int64_t at, int64_t rows) {
        transform_tile(map_, input_, at, rows, memory_.features, memory_.tile);  // throws, in the order of the batch
      });
      throw;
    }
  }

  void move_to(double* gram, double* cross) {
    if (panels_) {
      panels_->move_to(gram);
    }
    for (int64_t i = 0; i < p_ && product_ == Product::blas; ++i) {
      elementwise<float>().accumulate(memory_.gram + i * p_, gram + i * p_, i + 1);
    }
    for (int64_t i = 0; i < p_ && product_ == Product::slices; ++i) {
      elementwise<double>().accumulate(memory_.slices + i * p_, gram + i * p_, i + 1);
    }
    for (int64_t slot = 0; slot < classes_; ++slot) {
      elementwise<double>().accumulate(memory_.classes + slot * p_, cross + memory_.present[slot] * p_, p_);
    }
  }

 private:
  template <typename Visit>
  void for_pieces(int64_t first, int64_t count, Visit visit) const {
    for (int64_t at = first; at < first + count; at += division_.piece) {
      visit(at, std::min(division_.piece, first + count - at));
    }
  }

  // Row after row of a class, whose sum then stays in the L1 cache.
  void sort_by_class(int64_t first, int64_t count) {
    int64_t* ends = memory_.ends;
    std::fill_n(ends, targets_.k, 0);
    for (int64_t i = first; i < first + count; ++i) {
      ++ends[targets_.label(input_, i)];
    }
    int64_t at = 0;
    classes_ = 0;
    for (int64_t c = 0; c < targets_.k; ++c) {
      if (ends[c] > 0) {
        memory_.present[classes_++] = c;
      }
      at += std::exchange(ends[c], at);
    }
    for (int64_t i = first; i < first + count; ++i) {
      memory_.rows[ends[targets_.label(input_, i)]++] = input_.row_of(i);
    }
    std::fill_n(memory_.classes, classes_ * p_, 0.0);
  }

  void add(const Input& input, int64_t first, int64_t count) {
    const auto& kernels = elementwise<float>();
    int64_t slot = 0;
    ahead_.start(input, map_.input_dim, first + count);
    for_pieces(first, count, [&](int64_t at, int64_t rows) {
      transform_tile(map_, input, at, rows, memory_.features, memory_.tile);
      ahead_.converted(at + rows);
      add_products(rows);
      if (targets_.labels != nullptr) {
        for (int64_t i = 0; i < rows; ++i) {
          slot += at + i == memory_.ends[memory_.present[slot]] ? 1 : 0;
          kernels.accumulate(memory_.features + i * p_, memory_.classes + slot * p_, p_);
        }
      } else if (targets_.k > 0) {  // BLAS refuses matrices without columns
        add_targets(input, at, rows);
      }
    });
  }

  void add_products(int64_t rows) {
    switch (product_) {
      case Product::panels:
        if (panels_) {
          panels_->add(memory_.features, rows);
        }
        break;
      case Product::slices:  // a group is one piece
        std::fill_n(memory_.slices, p_ * p_, 0.0);
        slice_syrk(memory_.features, rows, p_, memory_.slices, memory_.gram);
        break;
      case Product::blas:
        syrk<float>('U', p_, rows, 1.0F, memory_.features, p_, 0.0F, memory_.gram, p_);
        break;
    }
  }

  void add_targets(const Input& input, int64_t first, int64_t rows) {
    for (classes_ = 0; classes_ < targets_.k; ++classes_) {
      memory_.present[classes_] = classes_;
    }
    std::fill_n(memory_.classes, classes_ * p_, 0.0);
    add_target_products(memory_.features, rows, p_, input, targets_, first, memory_.classes, memory_.products);
  }

  const FeatureMap<float>& map_;
  const Input& input_;
  const Targets& targets_;
  int64_t p_;
  Division division_;
  Product product_;
  Memory memory_;
  RowsAhead ahead_;
  std::optional<FloatGram> panels_;
  int64_t classes_ = 0;  // in memory_.classes
};

int64_t own_workspace(const FeatureMap<float>& map, int64_t tile_rows, const Targets& targets) {
  Cutter counter(nullptr);
  const Memory memory(map, targets, tile_rows, counter);
  return counter.floats();
}

}  // namespace

int64_t row_statistics_workspace(const FeatureMap<float>& map, int64_t tile_rows, const Targets& targets) {
  return checked_product(max_threads(), own_workspace(map, tile_rows, targets));
}

void accumulate_rows(const FeatureMap<float>& map, const Input& input, const Targets& targets, int64_t tile_rows,
                     double* gram, double* cross, float* workspace) {
  const int64_t own = own_workspace(map, tile_rows, targets), group = Division(map, targets, tile_rows).group;
  const int64_t groups = (input.n + group - 1) / group;
  const auto threads = static_cast<int>(std::clamp<int64_t>(groups, 1, max_threads()));
  std::deque<GroupSums> sums;  // which cannot move
  for (int64_t thread = 0; thread < threads; ++thread) {
    sums.emplace_back(map, input, targets, tile_rows, Cutter(workspace + thread * own));
  }
  std::exception_ptr failure;  // of the first group that has one: no group after it is added
  std::atomic<bool> failed = false;
#pragma omp parallel num_threads(threads)
  {
    set_threads(1);  // of loops within a group
    GroupSums& own_sums = sums[static_cast<size_t>(thread_number())];
#pragma omp for ordered schedule(dynamic, 1)
    for (int64_t number = 0; number < groups; ++number) {
      std::exception_ptr caught;
      try {
        if (!failed) {
          own_sums.form(number * group, std::min(group, input.n - number * group));
        }
      } catch (...) {
        caught = std::current_exception();
      }
#pragma omp ordered
      {
        if (!failed && caught) {
          failure = caught;
          failed = true;
        } else if (!failed) {
          own_sums.move_to(gram, cross);
        }
      }
    }
  }
  if (failure) {
    std::rethrow_exception(failure);
  }
}

}  // namespace krrdistill
