// One step of two where a method takes several schemes in one pass: what calibrates sees
// the model once, and each linear's inputs as the mix makes them.
#ifndef NIBBLE_EXPERIMENTS_SEARCH_JOIN_STEP_H_
#define NIBBLE_EXPERIMENTS_SEARCH_JOIN_STEP_H_

#include "methods/step.pb.h"

namespace nibble {

// Whether both are steps of one method whose options have a repeated field `other`, messages of
// some of the options' own fields, by name, and nothing but those fields tells them apart. Then
// `step` has those of `next` as one more `other`; else it stays as it is.
bool JoinStep(const Step& next, Step* step);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_SEARCH_JOIN_STEP_H_
