#include "library/archive.h"

#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#else
#include <fcntl.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <system_error>
#include <utility>

#include "krrdistill/errors.h"
#include "library/npy.h"

namespace krrdistill::library {
namespace {

using Bytes = std::span<const std::byte>;

constexpr uint32_t local_mark = 0x04034b50, central_mark = 0x02014b50, end_mark = 0x06054b50;
constexpr size_t local_size = 30, central_size = 46, end_size = 22;
constexpr size_t most_bytes = 0xFFFFFFFE;  // beyond it a zip archive has other records
constexpr size_t longest_name = 200;
constexpr uint16_t encrypted = 0x41;
constexpr uint16_t first_of_1980 = 0x21;  // a date: the same arrays give the same bytes

constexpr std::array<uint32_t, 256> crc_table = [] {
  std::array<uint32_t, 256> table = {};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) {
      value = (value & 1U) != 0 ? 0xEDB88320 ^ value >> 1 : value >> 1;
    }
    table[i] = value;
  }
  return table;
}();

uint32_t crc32(Bytes bytes, uint32_t before = 0) {
  uint32_t value = ~before;
  for (const std::byte byte : bytes) {
    value = crc_table[(value ^ std::to_integer<uint32_t>(byte)) & 0xFFU] ^ value >> 8;
  }
  return ~value;
}

template <typename Integer>
Integer read(Bytes bytes, size_t at) {
  Integer out = 0;
  for (size_t i = sizeof(Integer); i-- > 0;) {
    out = static_cast<Integer>(static_cast<uint64_t>(out) << 8 | std::to_integer<uint64_t>(bytes[at + i]));
  }
  return out;
}

struct Member {
  std::string name;  // without .npy
  uint32_t crc;
  size_t size;
  size_t record;  // where its local record begins
};

// The record of the directory at `at`, which is moved behind it.
Member read_member(Bytes directory, size_t& at) {
  if (directory.size() - at < central_size || read<uint32_t>(directory, at) != central_mark) {
    throw DataError("its directory is damaged");
  }
  const size_t name_size = read<uint16_t>(directory, at + 28);
  const size_t record =
      central_size + name_size + read<uint16_t>(directory, at + 30) + read<uint16_t>(directory, at + 32);
  if (directory.size() - at < record) {
    throw DataError("its directory is damaged");
  }
  std::string name(as_text(directory.subspan(at + central_size, name_size)));
  if (name.size() > longest_name || !name.ends_with(".npy") || name.find_first_of("/\\") != std::string::npos) {
    throw DataError("has a member that is no array");
  }
  name.resize(name.size() - 4);
  const Member out{.name = std::move(name),
                   .crc = read<uint32_t>(directory, at + 16),
                   .size = read<uint32_t>(directory, at + 20),
                   .record = read<uint32_t>(directory, at + 42)};
  if ((read<uint16_t>(directory, at + 8) & encrypted) != 0) {
    throw DataError(out.name + " is encrypted");
  }
  if (read<uint16_t>(directory, at + 10) != 0 || read<uint32_t>(directory, at + 24) != out.size) {
    throw DataError(out.name +
                    " is compressed, which krrdistill never writes: write the file again with Python, "
                    "krrdistill.DistilledDataset.load(path).save(path)");
  }
  if (out.size > most_bytes) {
    throw DataError(out.name + " has 4 GiB or more, which the C++ library does not read");
  }
  at += record;
  return out;
}

// The bytes of a member, whose local record must agree with the directory; `end` is where the next one begins.
Bytes content(Bytes file, const Member& member, size_t end) {
  const size_t at = member.record;
  if (end - at < local_size || read<uint32_t>(file, at) != local_mark) {
    throw DataError(member.name + " is not where the directory says");
  }
  const size_t name_size = read<uint16_t>(file, at + 26), extra = read<uint16_t>(file, at + 28);
  if (end - at - local_size < name_size + extra + member.size) {
    throw DataError(member.name + " overlaps what comes after it");
  }
  if (as_text(file.subspan(at + local_size, name_size)) != member.name + ".npy") {
    throw DataError(member.name + " has another name in the directory");
  }
  const Bytes bytes = file.subspan(at + local_size + name_size + extra, member.size);
  if (crc32(bytes) != member.crc) {
    throw DataError(member.name + " is damaged (its CRC-32 does not fit)");
  }
  return bytes;
}

Arrays read_archive(Bytes file) {
  const size_t end = file.size() - std::min(file.size(), end_size);
  if (file.size() < end_size || read<uint32_t>(file, end) != end_mark || read<uint16_t>(file, end + 20) != 0) {
    throw DataError("not an .npz file: cut short, or another kind of file");
  }
  const size_t size = read<uint32_t>(file, end + 12), start = read<uint32_t>(file, end + 16);
  if (start > end || size != end - start) {
    throw DataError("its directory is not in front of its end, or the file has 4 GiB or more");
  }
  std::vector<Member> members;
  for (size_t at = 0; at < size;) {
    members.push_back(read_member(file.subspan(start, size), at));
  }
  if (members.size() != read<uint16_t>(file, end + 10)) {
    throw DataError("its directory has another number of members than it says");
  }
  std::ranges::sort(members, {}, &Member::record);
  Arrays out;
  for (size_t i = 0; i < members.size(); ++i) {
    const Member& member = members[i];
    const size_t after = i + 1 < members.size() ? members[i + 1].record : start;
    if (after > start || member.record > after) {
      throw DataError(member.name + " is not where the directory says");
    }
    const Bytes bytes = content(file, member, after);
    try {
      if (!out.try_emplace(member.name, read_npy(bytes)).second) {
        throw DataError("is there twice");
      }
    } catch (const DataError& error) {
      throw DataError(member.name + " " + error.what());
    }
  }
  return out;
}

class Writer {
 public:
  template <std::unsigned_integral Integer>
  void put(Integer value) {
    for (size_t i = 0; i < sizeof(Integer); ++i) {
      bytes_.push_back(static_cast<std::byte>(static_cast<uint64_t>(value) >> (8 * i)));
    }
  }
  void put(Bytes bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void put(std::string_view text) { put(std::as_bytes(std::span(text))); }
  [[nodiscard]] size_t size() const { return bytes_.size(); }
  [[nodiscard]] Bytes bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// What a member's local record and that of the directory have in common.
void put_facts(Writer& out, std::string_view name, uint32_t crc, size_t size) {
  out.put(uint16_t{20});  // version of zip that reads it
  out.put(uint16_t{0});   // flags
  out.put(uint16_t{0});   // stored
  out.put(uint16_t{0});   // time
  out.put(first_of_1980);
  out.put(crc);
  out.put(static_cast<uint32_t>(size));
  out.put(static_cast<uint32_t>(size));
  out.put(static_cast<uint16_t>(name.size()));
  out.put(uint16_t{0});  // extra
}

Writer archive_of(const Arrays& arrays) {
  Writer out, directory;
  for (const auto& [name, array] : arrays) {
    const std::string header = npy_header(array), file = name + ".npy";
    const size_t size = header.size() + array.bytes.size(), start = out.size();
    if (start + size + longest_name + local_size > most_bytes) {
      throw DataError("would have 4 GiB or more, which the C++ library does not write");
    }
    const uint32_t crc = crc32(array.bytes, crc32(std::as_bytes(std::span(header))));
    out.put(local_mark);
    put_facts(out, file, crc, size);
    out.put(file);
    out.put(header);
    out.put(Bytes(array.bytes));
    directory.put(central_mark);
    directory.put(uint16_t{20});  // version of zip that wrote it
    put_facts(directory, file, crc, size);
    directory.put(uint16_t{0});  // comment
    directory.put(uint16_t{0});  // disk
    directory.put(uint16_t{0});  // internal attributes
    directory.put(uint32_t{0});  // external ones
    directory.put(static_cast<uint32_t>(start));
    directory.put(file);
  }
  const size_t start = out.size();
  out.put(directory.bytes());
  out.put(end_mark);
  out.put(uint32_t{0});  // disks
  out.put(static_cast<uint16_t>(arrays.size()));
  out.put(static_cast<uint16_t>(arrays.size()));
  out.put(static_cast<uint32_t>(directory.size()));
  out.put(static_cast<uint32_t>(start));
  out.put(uint16_t{0});  // comment
  return out;
}

// Removes a file that was not renamed.
class Temporary {
 public:
  explicit Temporary(std::filesystem::path target) : path_(std::move(target)) {
    std::random_device random;
    path_ += std::string(".").append(std::to_string(random())).append(std::to_string(random())).append(".partial");
  }
  ~Temporary() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  Temporary(const Temporary&) = delete;
  Temporary(Temporary&&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  Temporary& operator=(Temporary&&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Waits until the bytes of a file are where a crash of the machine leaves them; false where they do not get there.
bool is_on_disk(const std::filesystem::path& path) {
#ifdef _WIN32
  const int file = _wopen(path.c_str(), _O_RDWR);
  const bool done = file >= 0 && _commit(file) == 0;
  return file >= 0 && _close(file) == 0 && done;
#else
  const int file = open(path.c_str(), O_RDWR);
  const bool done = file >= 0 && fsync(file) == 0;
  return file >= 0 && close(file) == 0 && done;
#endif
}

}  // namespace

Arrays read_npz(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  if (!stream || std::filesystem::is_directory(path)) {
    throw DataError(path.string() + ": cannot be opened; is there such a file?");
  }
  std::vector<std::byte> file(static_cast<size_t>(std::max<std::streamoff>(stream.tellg(), 0)));
  stream.seekg(0);
  if (!stream.read(reinterpret_cast<char*>(file.data()), static_cast<std::streamsize>(file.size()))) {
    throw DataError(path.string() + ": cannot be read");
  }
  try {
    return read_archive(file);
  } catch (const DataError& error) {
    throw DataError(path.string() + ": " + error.what());
  }
}

void write_npz(const std::filesystem::path& path, const Arrays& arrays) {
  try {
    const Writer archive = archive_of(arrays);
    const Temporary temporary(path);
    std::ofstream stream(temporary.path(), std::ios::binary | std::ios::trunc);
    const std::string_view text = as_text(archive.bytes());
    stream.write(text.data(), static_cast<std::streamsize>(text.size()));
    stream.close();
    if (!stream || !is_on_disk(temporary.path())) {
      throw DataError("cannot be written; is its folder there, and room on the disk?");
    }
    std::filesystem::rename(temporary.path(), path);
  } catch (const std::filesystem::filesystem_error& error) {
    throw DataError(path.string() + ": cannot be written: " + error.what());
  } catch (const DataError& error) {
    throw DataError(path.string() + ": " + error.what());
  }
}

}  // namespace krrdistill::library
