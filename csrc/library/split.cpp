// Which samples are held out: those that Python holds out with the same seed.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "library/random.h"
#include "library/require.h"
#include "library/train.h"

namespace krrdistill::library {
namespace {

// How many samples of each class are held out: its share, the largest remainders rounded up, never its last sample.
std::vector<int64_t> shares(const std::vector<int64_t>& counts, int64_t held_out, int64_t n) {
  const auto k = std::ssize(counts);
  std::vector<double> exact(k);
  std::vector<int64_t> takes(k), order(k);
  for (int64_t c = 0; c < k; ++c) {
    exact[c] = static_cast<double>(counts[c]) * (static_cast<double>(held_out) / static_cast<double>(n));
    takes[c] = std::min(static_cast<int64_t>(exact[c]), std::max<int64_t>(counts[c] - 1, 0));
  }
  const auto has_room = [&](int64_t c) { return takes[c] < counts[c] - 1; };
  int64_t left = held_out - std::accumulate(takes.begin(), takes.end(), int64_t{0});
  std::iota(order.begin(), order.end(), int64_t{0});
  while (left > 0 && std::ranges::any_of(order, has_room)) {
    std::vector<int64_t> by_remainder(k);
    std::iota(by_remainder.begin(), by_remainder.end(), int64_t{0});
    std::ranges::stable_sort(by_remainder, [&](int64_t a, int64_t b) {
      return exact[a] - static_cast<double>(takes[a]) > exact[b] - static_cast<double>(takes[b]);
    });
    std::erase_if(by_remainder, [&](int64_t c) { return !has_room(c); });
    for (int64_t i = 0; i < std::ssize(by_remainder) && left > 0; ++i, --left) {
      ++takes[by_remainder[i]];
    }
  }
  return takes;
}

}  // namespace

Split split(const Problem& problem) {
  const int64_t n = problem.X.n();
  Split out;
  out.training.resize(n);
  std::iota(out.training.begin(), out.training.end(), int64_t{0});
  if (problem.options.selection == Selection::gcv) {
    return out;
  }
  const double share = static_cast<double>(n) * problem.options.validation_fraction;
  const auto held_out = std::max<int64_t>(1, static_cast<int64_t>(std::nearbyint(share)));
  require(held_out < n, "distill: " + std::to_string(n) + " samples leave nothing to train on after holding out " +
                            std::to_string(held_out) + "; use Selection::gcv");
  std::vector<int64_t> left(problem.k, held_out);  // to hold out of each class; real-valued targets have one
  if (problem.labels != nullptr) {
    std::vector<int64_t> counts(problem.k);
    std::for_each_n(problem.labels, n, [&](int64_t label) { ++counts[label]; });
    left = shares(counts, held_out, n);
    require(std::accumulate(left.begin(), left.end(), int64_t{0}) == held_out,
            "distill: holding out " + std::to_string(held_out) +
                " samples takes the last one of a class; lower validation_fraction, or use Selection::gcv");
  }
  out.training.clear();
  for (const int64_t row : permutation(problem.options.seed, Stream::split, n)) {
    const bool held = left[problem.labels == nullptr ? 0 : problem.labels[row]]-- > 0;
    (held ? out.validation : out.training).push_back(row);
  }
  std::ranges::sort(out.validation);
  std::ranges::sort(out.training);
  return out;
}

}  // namespace krrdistill::library
