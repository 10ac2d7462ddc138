#include "library/json.h"

#include <array>
#include <bit>
#include <charconv>
#include <limits>
#include <utility>

#include "krrdistill/errors.h"

namespace krrdistill::library {
namespace {

[[noreturn]] void refuse(const std::string& key, const std::string& expected) {
  throw DataError("meta: " + key + " must be " + expected);
}

void write_unit(std::string& out, uint32_t unit) {
  constexpr std::string_view hex = "0123456789abcdef";
  out += "\\u";
  for (const uint32_t shift : {12U, 8U, 4U, 0U}) {
    out += hex[unit >> shift & 15U];
  }
}

// The text is UTF-8 that this parser, or the library, made.
void write_text(std::string& out, const std::string& text) {
  out += '"';
  for (size_t i = 0; i < text.size(); ++i) {
    const auto first = static_cast<unsigned char>(text[i]);
    const uint32_t byte = first;
    if (byte == '"' || byte == '\\') {
      out += '\\';
      out += text[i];
    } else if (byte >= 0x20 && byte < 0x7F) {
      out += text[i];
    } else if (byte < 0x80) {
      write_unit(out, byte);
    } else {
      const auto more = static_cast<uint32_t>(std::countl_one(first) - 1);  // bytes that follow
      uint32_t letter = byte & (0x3FU >> more);
      for (uint32_t j = 0; j < more && i + 1 < text.size(); ++j) {
        letter = letter << 6 | (static_cast<unsigned char>(text[++i]) & 0x3FU);
      }
      if (letter >= 0x10000) {
        write_unit(out, 0xD800 + ((letter - 0x10000) >> 10));
        letter = 0xDC00 + (letter & 0x3FFU);
      }
      write_unit(out, letter);
    }
  }
  out += '"';
}

void write(std::string& out, const Json& json) {  // NOLINT(misc-no-recursion): as deep as what was parsed
  if (const auto* flag = std::get_if<bool>(&json.value)) {
    out += *flag ? "true" : "false";
  } else if (const auto* integer = std::get_if<int64_t>(&json.value)) {
    out += std::to_string(*integer);
  } else if (const auto* natural = std::get_if<uint64_t>(&json.value)) {
    out += std::to_string(*natural);
  } else if (const auto* real = std::get_if<double>(&json.value)) {
    out += shortest(*real);
  } else if (const auto* text = std::get_if<std::string>(&json.value)) {
    write_text(out, *text);
  } else if (const auto* array = std::get_if<Json::Array>(&json.value)) {
    out += '[';
    for (const Json& each : *array) {
      out += &each == array->data() ? "" : ", ";
      write(out, each);
    }
    out += ']';
  } else if (const auto* object = std::get_if<Json::Object>(&json.value)) {
    out += '{';
    for (auto each = object->begin(); each != object->end(); ++each) {
      out += each == object->begin() ? "" : ", ";
      write_text(out, each->first);
      out += ": ";
      write(out, each->second);
    }
    out += '}';
  } else {
    out += "null";
  }
}

}  // namespace

const Json& Json::operator[](const std::string& key) const {
  static const Json null;
  const auto* object = std::get_if<Object>(&value);
  const auto found = object == nullptr ? Object::const_iterator() : object->find(key);
  return object == nullptr || found == object->end() ? null : found->second;
}

const std::string& Json::text(const std::string& key) const {
  const auto* found = std::get_if<std::string>(&(*this)[key].value);
  if (found == nullptr) {
    refuse(key, "a text");
  }
  return *found;
}

double Json::number(const std::string& key) const {
  const Json& json = (*this)[key];
  if (const auto* real = std::get_if<double>(&json.value)) {
    return *real;
  }
  if (const auto* integer = std::get_if<int64_t>(&json.value)) {
    return static_cast<double>(*integer);
  }
  refuse(key, "a number");
}

uint64_t Json::natural(const std::string& key) const {
  const Json& json = (*this)[key];
  if (const auto* natural = std::get_if<uint64_t>(&json.value)) {
    return *natural;
  }
  const auto* integer = std::get_if<int64_t>(&json.value);
  if (integer == nullptr || *integer < 0) {
    refuse(key, "an integer >= 0");
  }
  return static_cast<uint64_t>(*integer);
}

int64_t Json::size(const std::string& key) const {
  const auto* found = std::get_if<int64_t>(&(*this)[key].value);
  if (found == nullptr || *found < 1 || *found > std::numeric_limits<int32_t>::max()) {
    refuse(key, "an integer from 1 to 2^31 - 1");
  }
  return *found;
}

std::vector<int64_t> Json::sizes(const std::string& key) const {
  const auto* array = std::get_if<Array>(&(*this)[key].value);
  if (array == nullptr) {
    refuse(key, "a list of integers");
  }
  std::vector<int64_t> out;
  for (const Json& each : *array) {
    out.push_back(Json{Object{{key, each}}}.size(key));
  }
  return out;
}

Json list(const std::vector<int64_t>& values) {
  Json::Array out;
  for (const int64_t each : values) {
    out.push_back({each});
  }
  return {std::move(out)};
}

std::string to_text(const Json& json) {
  std::string out;
  write(out, json);
  return out;
}

std::string shortest(double value) {
  std::array<char, 32> digits = {};
  auto* end = std::to_chars(digits.data(), digits.data() + digits.size(), value, std::chars_format::scientific).ptr;
  std::string text(digits.data(), end);
  const size_t mark = text.find('e');
  const int exponent = std::stoi(text.substr(mark + 1));
  if (exponent < -4 || exponent >= 16) {
    return text;  // two digits of the exponent at least, as Python has
  }
  auto* fixed = std::to_chars(digits.data(), digits.data() + digits.size(), value, std::chars_format::fixed).ptr;
  text.assign(digits.data(), fixed);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

}  // namespace krrdistill::library
