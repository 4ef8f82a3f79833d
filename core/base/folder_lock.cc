#include "core/base/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "core/base/file.h"
#include "core/base/status.h"

namespace nibble {

absl::StatusOr<FolderLock> FolderLock::Take(const std::string& folder) {
  NIBBLE_RETURN_IF_ERROR(MakeDirectories(folder));
  const std::string path = folder + "/.lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return absl::FailedPreconditionError(absl::StrCat("cannot write ", path));
  FolderLock lock(fd);
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return lock;
  std::fprintf(stderr, "another process works in %s; waiting for it\n", folder.c_str());
  if (::flock(fd, LOCK_EX) == 0) return lock;
  return absl::FailedPreconditionError(absl::StrCat("cannot lock ", path));
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace nibble
