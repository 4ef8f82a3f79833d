#include "core/base/file.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/base/status.h"

namespace nibble {
namespace {

absl::Status FileError(absl::string_view verb, const std::string& path) {
  const int error = errno;
  const std::string message = absl::StrCat("cannot ", verb, " ", path, ": ", std::strerror(error));
  return error == ENOENT ? absl::NotFoundError(message) : absl::FailedPreconditionError(message);
}

// Mappings alive, by address: what DropMappedPages may touch.
struct Mappings {
  std::mutex mutex;
  std::map<const uint8_t*, size_t> sizes;
};
Mappings& LiveMappings() {
  static auto* mappings = new Mappings;
  return *mappings;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: a pipe is refused below instead of waited for.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return FileError("open", path);
  struct stat info;
  if (::fstat(fd, &info) != 0) {
    const absl::Status status = FileError("stat", path);
    ::close(fd);
    return status;
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  const uint8_t* data = nullptr;
  if (size > 0) {
    void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapped == MAP_FAILED) {
      const absl::Status status = FileError("map", path);
      ::close(fd);
      return status;
    }
    data = static_cast<const uint8_t*>(mapped);
    const std::lock_guard<std::mutex> lock(LiveMappings().mutex);
    LiveMappings().sizes[data] = size;
  }
  ::close(fd);
  return std::shared_ptr<const MappedFile>(new MappedFile(path, data, size));
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(LiveMappings().mutex);
  LiveMappings().sizes.erase(data_);
  ::munmap(const_cast<uint8_t*>(data_), size_);
}

void DropMappedPages(absl::Span<const uint8_t> bytes) {
  const std::lock_guard<std::mutex> lock(LiveMappings().mutex);
  const auto& sizes = LiveMappings().sizes;
  auto it = sizes.upper_bound(bytes.data());
  if (it == sizes.begin()) return;
  --it;
  if (bytes.data() + bytes.size() > it->first + it->second) return;
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  return std::string(BytesOf(file->bytes()));
}

std::string TemporaryName(const std::string& path) {
  char host[256] = "";
  ::gethostname(host, sizeof(host) - 1);
  return absl::StrCat(path, ".tmp.", host, ".", ::getpid());
}

absl::StatusOr<std::unique_ptr<PendingFile>> PendingFile::Create(const std::string& path) {
  const std::string temporary = TemporaryName(path);
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return FileError("write", temporary);
  return std::unique_ptr<PendingFile>(new PendingFile(path, temporary, fd));
}

PendingFile::~PendingFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

absl::Status PendingFile::WriteAt(int64_t offset, absl::Span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd_, bytes.data(), std::min<size_t>(bytes.size(), 1 << 30), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return FileError("write", temporary_);
    bytes.remove_prefix(count);
    offset += count;
  }
  return absl::OkStatus();
}

absl::Status PendingFile::Commit() {
  if (::fsync(fd_) != 0 || std::rename(temporary_.c_str(), path_.c_str()) != 0) return FileError("write", path_);
  ::close(fd_);
  fd_ = -1;
  return absl::OkStatus();
}

std::string PathFrom(const std::string& directory, const std::string& path) {
  const bool below = !directory.empty() && !path.empty() && path[0] != '/';
  return below ? absl::StrCat(directory, "/", path) : path;
}

absl::Status WriteFile(const std::string& path, absl::string_view contents) {
  const std::string temporary = TemporaryName(path);
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  if (file == nullptr) return FileError("write", temporary);
  const bool written = std::fwrite(contents.data(), 1, contents.size(), file) == contents.size();
  const bool flushed = std::fflush(file) == 0 && ::fsync(::fileno(file)) == 0;
  const bool closed = std::fclose(file) == 0;
  if (!written || !flushed || !closed || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const absl::Status status = FileError("write", path);
    ::unlink(temporary.c_str());
    return status;
  }
  return absl::OkStatus();
}

std::string Sha256(absl::string_view bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return absl::BytesToHexString(BytesOf(absl::MakeConstSpan(digest)));
}

// A piece at a time, so that a large file does not stand in memory as a whole.
absl::StatusOr<std::string> Sha256OfFile(const std::string& path) {
  constexpr size_t kPiece = 16 << 20;
  NIBBLE_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  SHA256_CTX context;
  SHA256_Init(&context);
  for (size_t begin = 0; begin < file->bytes().size(); begin += kPiece) {
    const absl::Span<const uint8_t> piece = file->bytes().subspan(begin, kPiece);
    SHA256_Update(&context, piece.data(), piece.size());
    DropMappedPages(piece);
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256_Final(digest, &context);
  return absl::BytesToHexString(BytesOf(absl::MakeConstSpan(digest)));
}

bool FileExists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

bool IsDirectory(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat("cannot create folder ", path, ": ", error.message()));
  return absl::OkStatus();
}

std::string CacheDirectory() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg != '\0') return absl::StrCat(xdg, "/nibble");
  const char* home = std::getenv("HOME");
  return absl::StrCat(home != nullptr ? home : "/tmp", "/.cache/nibble");
}

}  // namespace nibble
