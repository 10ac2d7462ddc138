#pragma once

#include <string>

#include "krrdistill/errors.h"

namespace krrdistill::library {

inline void require(bool condition, const std::string& message) {
  if (!condition) {
    throw DataError(message);
  }
}

}  // namespace krrdistill::library
