// A fuzz target as an ordinary test: every file of its corpus, and damaged copies of
// them, the same ones on every run. Links with the target in place of libFuzzer.
//
// usage: replay FOLDER... [--damages=N]

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/io/damage_testing.h"
#include "gtest/gtest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace nibble::fuzz {
namespace {

constexpr unsigned kSeconds = 20;  // for one input
// As libFuzzer's -malloc_limit_mb: no input here justifies more at once.
constexpr size_t kMostAllocated = size_t{64} << 20;

std::vector<std::string> folders;
int damages = 1000;
char current[512];  // what is being read, for the message of a crash

void OnSignal(int number) {
  for (const char* text : {number == SIGALRM ? "\nhangs on " : "\ndies on ", static_cast<const char*>(current), "\n"}) {
    if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) break;
  }
  ::signal(number, SIG_DFL);
  ::raise(number);
}

void Feed(const std::string& what, const std::string& input) {
  std::snprintf(current, sizeof(current), "%s (%zu bytes)", what.c_str(), input.size());
  ::alarm(kSeconds);
  // A copy of just this size, so that a sanitizer sees what reads beyond it.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  EXPECT_EQ(LLVMFuzzerTestOneInput(bytes.data(), bytes.size()), 0) << what;
  ::alarm(0);
}

struct Input {
  std::string path, bytes;
};

std::vector<Input> Corpus() {
  std::vector<Input> inputs;
  for (const std::string& folder : folders) {
    if (!std::filesystem::is_directory(folder)) continue;  // its seeds lie elsewhere
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      inputs.push_back({entry.path().string(), std::string(std::istreambuf_iterator<char>(file), {})});
    }
  }
  std::sort(inputs.begin(), inputs.end(), [](const Input& a, const Input& b) { return a.path < b.path; });
  return inputs;
}

TEST(Replay, Corpus) {
  const std::vector<Input> inputs = Corpus();
  EXPECT_FALSE(inputs.empty()) << "no corpus in " << folders.size() << " folders";
  for (const Input& input : inputs) Feed(input.path, input.bytes);
  Feed("the empty input", "");
}

// Half are truncations, evenly spread, half changed bytes and words.
TEST(Replay, DamagedCorpus) {
  const std::vector<Input> inputs = Corpus();
  const size_t each = std::max<size_t>(10, damages / std::max<size_t>(1, inputs.size()) / 2);
  Rng rng(20240601);
  for (const Input& input : inputs) {
    const std::string& bytes = input.bytes;
    if (bytes.empty()) continue;
    for (size_t i = 0; i < std::min(each, bytes.size()); ++i) {
      const size_t length = bytes.size() * i / std::min(each, bytes.size());
      Feed(absl::StrCat(input.path, ", its first bytes"), bytes.substr(0, length));
    }
    for (size_t i = 0; i < each; ++i) Feed(absl::StrCat(input.path, ", damage ", i), io::Damaged(bytes, bytes.size(), &rng));
  }
}

int Main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (!absl::ConsumePrefix(&argument, "--damages=")) {
      folders.emplace_back(argument);
    } else if (!absl::SimpleAtoi(argument, &damages)) {
      return 2;
    }
  }
  for (const int number : {SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) ::signal(number, OnSignal);
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace nibble::fuzz

#ifndef __SANITIZE_ADDRESS__
namespace {

void* Allocate(size_t size, size_t alignment) {
  if (size > nibble::fuzz::kMostAllocated) {
    std::fprintf(stderr, "asks for %zu bytes at once\n", size);
    std::abort();
  }
  void* memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (memory == nullptr && size > 0) std::abort();
  return memory;
}

}  // namespace

void* operator new(size_t size) { return Allocate(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
void* operator new[](size_t size) { return Allocate(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
void* operator new(size_t size, std::align_val_t alignment) { return Allocate(size, static_cast<size_t>(alignment)); }
void* operator new[](size_t size, std::align_val_t alignment) { return Allocate(size, static_cast<size_t>(alignment)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
#endif

int main(int argc, char** argv) { return nibble::fuzz::Main(argc, argv); }
