// One array in NumPy's .npy format.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "library/archive.h"

namespace krrdistill::library {

// "(10, 64)", "(10,)", "()".
std::string shown_shape(const std::vector<int64_t>& shape);

StoredArray read_npy(std::span<const std::byte> file);               // throws DataError
std::string npy_header(const StoredArray& array);                    // what is in front of its bytes
inline std::string_view as_text(std::span<const std::byte> bytes) {  // one letter per byte
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace krrdistill::library
