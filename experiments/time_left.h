// TimeLeft: how long jobs that run one after the other still take, by estimates of their
// seconds and by how those that have ended kept to them. Times are seconds of any clock.
#ifndef NIBBLE_EXPERIMENTS_TIME_LEFT_H_
#define NIBBLE_EXPERIMENTS_TIME_LEFT_H_

namespace nibble {

class TimeLeft {
 public:
  // Of all jobs together.
  explicit TimeLeft(double estimate) : left_(estimate) {}

  // A job of that estimate starts.
  void Start(double estimate, double now);
  // The job that runs ends.
  void End(double now);
  // A job needs not be done here: it tells nothing of how estimates are kept.
  void Skip(double estimate) { left_ -= estimate; }

  bool is_running() const { return running_; }
  // While a job runs, what is left never grows.
  double At(double now) const;

 private:
  double left_;              // estimates of the jobs that have not ended
  double done_ = 0;          // of those that have,
  double done_seconds_ = 0;  // and what they took
  bool running_ = false;
  double estimate_ = 0, started_ = 0;  // of the job that runs
};

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_TIME_LEFT_H_
