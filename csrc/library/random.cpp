#include "library/random.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "krrdistill/normal.h"

namespace krrdistill::library {
namespace {

__extension__ using Wide = unsigned __int128;
using Block = std::array<uint64_t, 4>;

// Philox-4x64 with ten rounds (Salmon, Moraes, Dror, Shaw, SC 2011): four numbers of a counter and a key.
Block philox(uint64_t counter, uint64_t key_low, uint64_t key_high) {
  Block x = {counter, 0, 0, 0};
  for (int round = 0; round < 10; ++round) {
    const Wide first = static_cast<Wide>(0xD2E7470EE14C6C93) * x[0];
    const Wide second = static_cast<Wide>(0xCA5A826395121157) * x[2];
    x = {static_cast<uint64_t>(second >> 64) ^ x[1] ^ key_low, static_cast<uint64_t>(second),
         static_cast<uint64_t>(first >> 64) ^ x[3] ^ key_high, static_cast<uint64_t>(first)};
    key_low += 0x9E3779B97F4A7C15;
    key_high += 0xBB67AE8584CAA73B;
  }
  return x;
}

// NumPy's order: the counter is raised before each block of four.
std::vector<uint64_t> bits(uint64_t seed, Stream stream, int64_t n) {
  std::vector<uint64_t> out(n);
  for (int64_t start = 0; start < n; start += 4) {
    const Block block = philox(static_cast<uint64_t>(start / 4) + 1, seed, static_cast<uint64_t>(stream));
    std::copy_n(block.begin(), std::min<int64_t>(4, n - start), out.begin() + start);
  }
  return out;
}

}  // namespace

std::vector<double> uniform(uint64_t seed, Stream stream, int64_t n) {
  const std::vector<uint64_t> raw = bits(seed, stream, n);
  std::vector<double> out(n);
  std::ranges::transform(raw, out.begin(), [](uint64_t b) { return (static_cast<double>(b >> 12) + 0.5) * 0x1p-52; });
  return out;
}

std::vector<double> normal(uint64_t seed, Stream stream, int64_t n) {
  const std::vector<uint64_t> raw = bits(seed, stream, n);
  std::vector<double> out(n);
  normal_from_bits(raw.data(), out.data(), n);
  return out;
}

std::vector<double> signs(uint64_t seed, Stream stream, int64_t n) {
  const std::vector<uint64_t> raw = bits(seed, stream, n);
  std::vector<double> out(n);
  std::ranges::transform(raw, out.begin(), [](uint64_t b) { return (b >> 63) != 0 ? -1.0 : 1.0; });
  return out;
}

std::vector<int64_t> permutation(uint64_t seed, Stream stream, int64_t n) {
  const std::vector<uint64_t> keys = bits(seed, stream, n);
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return keys[a] < keys[b]; });
  return order;
}

}  // namespace krrdistill::library
