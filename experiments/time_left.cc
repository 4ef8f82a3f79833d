#include "experiments/time_left.h"

#include <algorithm>

namespace nibble {

void TimeLeft::Start(double estimate, double now) {
  running_ = true;
  estimate_ = estimate;
  started_ = now;
}

void TimeLeft::End(double now) {
  if (!running_) return;
  running_ = false;
  left_ -= estimate_;
  done_ += estimate_;
  done_seconds_ += now - started_;
}

// Before the first job has ended estimates count for what they say.
double TimeLeft::At(double now) const {
  const double factor = done_ > 0 ? done_seconds_ / done_ : 1;
  if (!running_) return factor * std::max(0.0, left_);
  return factor * std::max(0.0, left_ - estimate_) + std::max(0.0, factor * estimate_ - (now - started_));
}

}  // namespace nibble
