// This program again, as a fresh process: memory is measured in one that did
// nothing else.
#ifndef NIBBLE_EXPERIMENTS_SUBPROCESS_H_
#define NIBBLE_EXPERIMENTS_SUBPROCESS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nibble {

// Runs this executable with `arguments`; its standard output. An exit status
// other than 0 or a signal is an error; standard error goes where ours does.
absl::StatusOr<std::string> RunSelf(const std::vector<std::string>& arguments);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_SUBPROCESS_H_
