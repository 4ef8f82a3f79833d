// Places of a file's tensors.
#ifndef NIBBLE_CORE_IO_EXTENTS_H_
#define NIBBLE_CORE_IO_EXTENTS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace nibble::io {

// Bytes [begin, end) of a file.
struct Extent {
  std::string name;
  uint64_t begin = 0, end = 0;
};

// "tensors 'a' and 'b' overlap" of two that do; "" where none does. Empty ones overlap nothing.
std::string DescribeOverlap(std::vector<Extent> extents);

}  // namespace nibble::io

#endif  // NIBBLE_CORE_IO_EXTENTS_H_
