#include "library/sha256.h"

#include <algorithm>
#include <bit>

namespace krrdistill::library {
namespace {

// The first 32 bits of the fractions of the cube roots of the first 64 primes.
constexpr std::array<uint32_t, 64> constants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

}  // namespace

void Sha256::update(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t at = length_ % 64, count = std::min(bytes.size(), 64 - at);
    std::copy_n(bytes.begin(), count, pending_.begin() + static_cast<ptrdiff_t>(at));
    length_ += count;
    bytes = bytes.subspan(count);
    if (length_ % 64 == 0) {
      compress(pending_.data());
    }
  }
}

std::string Sha256::hex() {
  const uint64_t bits = 8 * length_;
  const std::array<std::byte, 64> padding = {std::byte{0x80}};
  update(std::span(padding).first(1 + (119 - length_ % 64) % 64));
  std::array<std::byte, 8> end = {};
  for (uint32_t i = 0; i < 8; ++i) {
    end[i] = static_cast<std::byte>(bits >> (56U - 8U * i));
  }
  update(end);
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (const uint32_t word : state_) {
    for (uint32_t left = 8; left-- > 0;) {
      out += digits[(word >> (4U * left)) & 15U];
    }
  }
  return out;
}

void Sha256::compress(const std::byte* block) {
  std::array<uint32_t, 64> w = {};
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 4; ++j) {
      w[i] = w[i] << 8 | std::to_integer<uint32_t>(block[4 * i + j]);
    }
  }
  for (int i = 16; i < 64; ++i) {
    const uint32_t a = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
    const uint32_t b = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (int i = 0; i < 64; ++i) {
    const uint32_t first =
        h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + w[i];
    const uint32_t second = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + first;
    d = c;
    c = b;
    b = a;
    a = first + second;
  }
  const std::array<uint32_t, 8> added = {a, b, c, d, e, f, g, h};
  std::ranges::transform(state_, added, state_.begin(), std::plus<>());
}

}  // namespace krrdistill::library
