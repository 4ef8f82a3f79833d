// What a killed training goes on from: steps.csv and checkpoint.safetensors, parted by a
// line "%%". The second is also read as learned rotations.

#include "core/base/thread_pool.h"
#include "core/kernels/kernel_table.h"
#include "core/models/llama.h"
#include "core/train/rotation_learner.h"
#include "core/train/trainer.h"
#include "core/train/weight_learner.h"
#include "fuzz/input.h"
#include "fuzz/tiny_training.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nibble;
  static fuzz::TinyTraining& training = *new fuzz::TinyTraining;
  const auto parts = fuzz::Parts(fuzz::Text(data, size), 2);
  const fuzz::ScratchFolder folder;
  const std::string log = folder.Put("steps.csv", parts[0]), checkpoint = folder.Put("checkpoint.safetensors", parts[1]);
  fuzz::CheckError(train::ReadStepLog(log).status(), log, size);
  fuzz::CheckError(training.learner().Restore(checkpoint).status(), "", size);
  fuzz::CheckError(train::ReadRotations(checkpoint).status(), checkpoint, size);
  return 0;
}
