// FolderLock: keeps other processes that lock the same folder out of it. A process that
// ends in any way lets go.
#ifndef NIBBLE_CORE_BASE_FOLDER_LOCK_H_
#define NIBBLE_CORE_BASE_FOLDER_LOCK_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace nibble {

class FolderLock {
 public:
  // Makes the folder where there is none, and waits, saying so, while another holds it.
  static absl::StatusOr<FolderLock> Take(const std::string& folder);

  FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FolderLock& operator=(FolderLock&&) = delete;
  ~FolderLock();

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_FOLDER_LOCK_H_
