// The original model: which samples it is trained on, and the choice of lambda.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "krrdistill/distill.h"
#include "krrdistill/statistics.h"

namespace krrdistill::library {

// Checked samples and what they are labelled with.
struct Problem {
  const Samples& X;
  const int64_t* labels = nullptr;  // classes (n,), or null
  const Matrix* values = nullptr;   // real-valued targets (n, k), or null
  int64_t k = 0;
  const Map& map;
  const DistillOptions& options;

  [[nodiscard]] Targets targets() const {
    return {.labels = labels, .values = values == nullptr ? nullptr : values->values.data(), .k = k};
  }
  // Of sample i and target c: its label as 0 or 1, or its value.
  [[nodiscard]] double target(int64_t i, int64_t c) const {
    return values == nullptr ? static_cast<double>(labels[i] == c) : (*values)(i, c);
  }
};

struct Trained {
  Matrix W;  // (k, p)
  double lambda;
  double score;
  std::vector<double> scores_per_target;  // R^2, of real-valued targets with held-out samples
  std::vector<double> spread;             // (k,) standard deviations of real-valued targets
  int64_t n_train;
  int64_t n_validation;
};

// Rows of training and of validation, each ascending, as Python splits them.
struct Split {
  std::vector<int64_t> training;
  std::vector<int64_t> validation;
};
Split split(const Problem& problem);

Trained train(const Problem& problem);

}  // namespace krrdistill::library
