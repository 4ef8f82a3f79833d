// The contents of datasets/tasks/*.textproto, put into the program when it is built.
#ifndef NIBBLE_DATASETS_KNOWN_TASKS_H_
#define NIBBLE_DATASETS_KNOWN_TASKS_H_

#include "absl/types/span.h"

namespace nibble::datasets {

extern const absl::Span<const char* const> kKnownTaskTexts;

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_KNOWN_TASKS_H_
