// Files: read-only mappings, whole-file reads, atomic writes, SHA-256.
// Every error names the path.
#ifndef NIBBLE_CORE_BASE_FILE_H_
#define NIBBLE_CORE_BASE_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace nibble {

// A whole file mapped read-only. Pages are read when touched and can be
// dropped by the kernel, so mapping a model costs no memory of its own.
class MappedFile {
 public:
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, const uint8_t* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  const std::string path_;
  const uint8_t* const data_;
  const size_t size_;
};

// Lets the kernel drop the whole pages of `bytes` where they belong to a
// MappedFile: they are read again when touched. For a caller that has copied
// what it needs and wants the peak of resident memory low. Other memory is left
// alone.
void DropMappedPages(absl::Span<const uint8_t> bytes);

// `path`, below `directory` where it is relative and that is not empty.
std::string PathFrom(const std::string& directory, const std::string& path);

absl::StatusOr<std::string> ReadFile(const std::string& path);

// A name beside `path` for what gets that name by a rename when it is whole. No other process
// has it, on this host or on another that shares the folder.
std::string TemporaryName(const std::string& path);

// Writes to a temporary name beside `path` and renames it, so that a reader or
// a kill never sees half a file.
absl::Status WriteFile(const std::string& path, absl::string_view contents);

// A file that is written piece by piece: under a temporary name beside `path`, which it
// gets when Commit succeeds, not before. Without that it is removed.
class PendingFile {
 public:
  static absl::StatusOr<std::unique_ptr<PendingFile>> Create(const std::string& path);
  ~PendingFile();
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  const std::string& path() const { return path_; }
  // What lies between pieces is zero.
  absl::Status WriteAt(int64_t offset, absl::Span<const uint8_t> bytes);
  absl::Status Commit();

 private:
  PendingFile(std::string path, std::string temporary, int fd) : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}
  const std::string path_, temporary_;
  int fd_;
};

// The bytes of plain values as they lie in memory.
template <typename Values>
absl::string_view BytesOf(const Values& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(*values.data())};
}

// Lower-case hexadecimal SHA-256 of bytes or of a file's contents.
std::string Sha256(absl::string_view bytes);
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);

bool FileExists(const std::string& path);
bool IsDirectory(const std::string& path);

// Creates `path` and its parents; fine when it exists.
absl::Status MakeDirectories(const std::string& path);

// $XDG_CACHE_HOME/nibble or ~/.cache/nibble.
std::string CacheDirectory();

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_FILE_H_
