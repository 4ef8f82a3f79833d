#include "experiments/time_left.h"

#include "core/base/testing.h"

namespace nibble {
namespace {

TEST(TimeLeft, BeforeTheFirstEndEstimatesCount) {
  TimeLeft time(100);
  EXPECT_EQ(time.At(0), 100);
  time.Start(40, 5);
  EXPECT_EQ(time.At(5), 100);
  EXPECT_EQ(time.At(15), 90);
}

TEST(TimeLeft, FollowsTheSecondsOfJobsThatEnded) {
  TimeLeft time(100);
  time.Start(10, 0);
  time.End(20);  // twice its estimate
  EXPECT_EQ(time.At(20), 180);
  // Seconds between jobs are no job's.
  EXPECT_EQ(time.At(500), 180);
  time.Start(20, 500);
  EXPECT_EQ(time.At(510), 170);
}

TEST(TimeLeft, ALongJobDoesNotMakeItGrow) {
  TimeLeft time(110);
  time.Start(10, 0);
  time.End(10);
  time.Start(50, 10);
  double before = time.At(10);
  EXPECT_EQ(before, 100);
  for (double now = 20; now < 500; now += 10) {
    EXPECT_LE(time.At(now), before);
    before = time.At(now);
  }
  EXPECT_EQ(before, 50);  // of the jobs after it
}

TEST(TimeLeft, WhatIsDoneElsewhereIsTakenOff) {
  TimeLeft time(100);
  time.Skip(30);
  EXPECT_FALSE(time.is_running());
  EXPECT_EQ(time.At(7), 70);
  time.Start(70, 10);
  EXPECT_TRUE(time.is_running());
  time.End(45);
  EXPECT_EQ(time.At(45), 0);
  time.End(99);  // nothing runs
  EXPECT_EQ(time.At(99), 0);
}

}  // namespace
}  // namespace nibble
