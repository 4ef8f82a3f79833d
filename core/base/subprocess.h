// Programs as child processes.
#ifndef NIBBLE_CORE_BASE_SUBPROCESS_H_
#define NIBBLE_CORE_BASE_SUBPROCESS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nibble {

// Runs `program` (a path, or a name that PATH finds) with `arguments`; its
// standard output. One that cannot be started is NotFound where there is no such
// program; an exit status other than 0 or a signal is Aborted, under the name
// `title`. Standard error goes where ours does.
absl::StatusOr<std::string> RunProgram(const std::string& program, const std::vector<std::string>& arguments, const std::string& title);

// Runs this executable: what is measured in a fresh process did nothing else.
absl::StatusOr<std::string> RunSelf(const std::vector<std::string>& arguments);

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_SUBPROCESS_H_
