// Labelled grey images that look a little like handwriting: a class is a curve, a sample bends, moves and blurs it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

struct Images {
  std::vector<uint8_t> pixels;  // (n, side * side)
  std::vector<int64_t> labels;  // (n), the classes in turn
};

inline Images draw_images(int64_t n, int64_t side, int64_t classes) {
  constexpr int points = 40;  // of the pen
  std::mt19937_64 random(2024);
  std::normal_distribution<double> normal;
  std::vector<double> shape(classes * 6);
  std::generate(shape.begin(), shape.end(), [&] { return normal(random); });

  Images images{.pixels = std::vector<uint8_t>(n * side * side), .labels = std::vector<int64_t>(n)};
  std::vector<double> ink(side * side);
  for (int64_t i = 0; i < n; ++i) {
    images.labels[i] = i % classes;
    const double* curve = &shape[images.labels[i] * 6];
    double bent[6];
    std::transform(curve, curve + 6, bent, [&](double value) { return value + 0.25 * normal(random); });
    const double left = 0.5 + 0.04 * normal(random), top = 0.5 + 0.04 * normal(random), width = 0.06;
    std::fill(ink.begin(), ink.end(), 0.0);
    for (int point = 0; point < points; ++point) {
      const double t = 6.0 * point / points;
      const double x = left + 0.2 * std::sin(t + bent[0]) + 0.12 * std::sin(2.0 * t + bent[1]) + 0.05 * bent[2];
      const double y = top + 0.2 * std::sin(t + bent[3]) + 0.12 * std::sin(2.0 * t + bent[4]) + 0.05 * bent[5];
      for (int64_t pixel = 0; pixel < side * side; ++pixel) {
        const double dx = static_cast<double>(pixel % side) / static_cast<double>(side) - x;
        const double dy = static_cast<double>(pixel / side) / static_cast<double>(side) - y;
        ink[pixel] += std::exp(-(dx * dx + dy * dy) / (width * width));
      }
    }
    for (int64_t pixel = 0; pixel < side * side; ++pixel) {
      const double grey = 180.0 * ink[pixel] + 20.0 * normal(random);
      images.pixels[i * side * side + pixel] = static_cast<uint8_t>(std::clamp(grey, 0.0, 255.0));
    }
  }
  return images;
}
