// Packs rows into panels and splits their product into blocks; the kernels are in float_gram_impl.h.
#include "cpu/float_gram.h"

#include <algorithm>
#include <utility>

#include "common/checked_size.h"
#include "cpu/float_gram_kernels.h"
#include "krrdistill/elementwise.h"
#include "krrdistill/isa.h"

namespace krrdistill {
namespace {

const FloatGramKernel* float_gram_kernel() {
  switch (current_isa()) {
#ifdef KRRDISTILL_WITH_AVX512
    case Isa::amx:
    case Isa::avx512:
      return &float_gram_avx512();
#endif
#ifdef KRRDISTILL_WITH_AVX2
    case Isa::avx2:
      return &float_gram_avx2();
#endif
    default:
      return nullptr;
  }
}

int64_t panels_of(int64_t p) { return (p + float_gram_kernel()->columns - 1) / float_gram_kernel()->columns; }

// One row more than is used: panels whose distance is a power of two would share the sets of a cache.
int64_t panel_size() { return (FloatGram::depth + 1) * float_gram_kernel()->columns; }

}  // namespace

bool FloatGram::available() { return float_gram_kernel() != nullptr; }

int64_t FloatGram::workspace(int64_t p) {
  const int64_t panels = panels_of(p), columns = float_gram_kernel()->columns;
  const int64_t blocks = checked_product(panels, panels + 1) / 2;
  return checked_sum(checked_product(panels, panel_size()), checked_product(blocks, columns * columns));
}

FloatGram::FloatGram(int64_t p, float* workspace, Meanwhile meanwhile)
    : p_(p), panels_(workspace), sums_(workspace + panels_of(p) * panel_size()), meanwhile_(std::move(meanwhile)) {
  std::fill_n(workspace, FloatGram::workspace(p), 0.0F);
}

void FloatGram::add(const float* rows, int64_t count) {
  const int64_t columns = float_gram_kernel()->columns;
  for (int64_t i = 0; i < count; ++i) {
    const float* row = rows + i * p_;
    float* place = panels_ + packed_ * columns;
    for (int64_t column = 0; column < p_; column += columns, place += panel_size()) {
      std::copy_n(row + column, std::min(columns, p_ - column), place);
    }
    if (++packed_ == depth) {
      multiply();
    }
  }
}

void FloatGram::multiply() {
  const FloatGramKernel& kernel = *float_gram_kernel();
  const int64_t panels = panels_of(p_), products = panels * (panels + 1) / 2, block = kernel.columns * kernel.columns;
  int64_t product = 0;
  for (int64_t i = 0; i < panels; ++i) {
    const int64_t rows = std::min(kernel.columns, p_ - i * kernel.columns);
    for (int64_t j = 0; j <= i; ++j, ++product) {
      meanwhile_(product, products);
      kernel.multiply(panels_ + i * panel_size(), panels_ + j * panel_size(), packed_, rows, i == j,
                      sums_ + product * block);
    }
  }
  packed_ = 0;
}

void FloatGram::move_to(double* gram) {
  multiply();
  const auto& kernels = elementwise<float>();
  const int64_t columns = float_gram_kernel()->columns, panels = panels_of(p_);
  const float* sums = sums_;
  for (int64_t i = 0; i < panels; ++i) {
    for (int64_t j = 0; j <= i; ++j, sums += columns * columns) {
      for (int64_t row = i * columns; row < std::min((i + 1) * columns, p_); ++row) {
        const int64_t width = std::min(columns, row + 1 - j * columns);
        kernels.accumulate(sums + (row - i * columns) * columns, gram + row * p_ + j * columns, width);
      }
    }
  }
  std::fill_n(sums_, panels * (panels + 1) / 2 * columns * columns, 0.0F);
}

}  // namespace krrdistill
