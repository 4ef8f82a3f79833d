#include "core/base/subprocess.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"

extern char** environ;

namespace nibble {
namespace {

// Everything that can be read from `fd`, which is closed.
std::string Drain(int fd) {
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(buffer, n);
  }
  ::close(fd);
  return text;
}

absl::Status CannotStart(const std::string& title, int error) {
  const std::string message = absl::StrCat("cannot start '", title, "': ", std::strerror(error));
  return error == ENOENT ? absl::NotFoundError(message) : absl::ResourceExhaustedError(message);
}

absl::Status StatusOf(int status, const std::string& title) {
  if (WIFSIGNALED(status)) {
    return absl::AbortedError(absl::StrCat("'", title, "' was killed by signal ", WTERMSIG(status), " (", strsignal(WTERMSIG(status)),
                                           WTERMSIG(status) == SIGKILL ? "; out of memory?" : "", ")"));
  }
  if (WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("'", title, "' ended with status ", WEXITSTATUS(status)));
}

}  // namespace

absl::StatusOr<std::string> RunProgram(const std::string& program, const std::vector<std::string>& arguments, const std::string& title) {
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) return absl::ResourceExhaustedError(absl::StrCat("pipe: ", std::strerror(errno)));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(out[1]);
  if (error != 0) {
    ::close(out[0]);
    return CannotStart(title, error);
  }
  const std::string text = Drain(out[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  NIBBLE_RETURN_IF_ERROR(StatusOf(status, title));
  return text;
}

absl::StatusOr<std::string> RunSelf(const std::vector<std::string>& arguments) {
  return RunProgram("/proc/self/exe", arguments, absl::StrCat("nibble ", arguments.empty() ? "" : arguments[0]));
}

}  // namespace nibble
