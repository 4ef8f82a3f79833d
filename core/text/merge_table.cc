#include "core/text/merge_table.h"

#include <algorithm>

namespace nibble::text {

bool MergeTable::Add(int32_t left, int32_t right, int32_t rank, int32_t result) {
  return merges_.try_emplace(Key(left, right), Merge{rank, result}).second;
}

// One application: the symbols as a doubly linked list and a heap of candidate
// pairs. A candidate whose symbols have changed since is skipped when it is met.
class MergeTable::Run {
 public:
  Run(const MergeTable& table, const std::vector<int32_t>& symbols) : table_(table) {
    const int64_t count = static_cast<int64_t>(symbols.size());
    nodes_.reserve(count);
    for (int64_t i = 0; i < count; ++i) nodes_.push_back({symbols[i], i - 1, i + 1 < count ? i + 1 : kNone});
    for (int64_t i = 0; i + 1 < count; ++i) Propose(i);
    std::make_heap(heap_.begin(), heap_.end(), IsLater);
  }

  void MergeAll() {
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), IsLater);
      const Candidate candidate = heap_.back();
      heap_.pop_back();
      if (IsCurrent(candidate)) MergeAt(candidate);
    }
  }

  void Write(std::vector<int32_t>* symbols) const {
    symbols->clear();
    for (int64_t i = nodes_.empty() ? kNone : 0; i != kNone; i = nodes_[i].next) symbols->push_back(nodes_[i].id);
  }

 private:
  static constexpr int64_t kNone = -1;
  static constexpr int32_t kMergedAway = -1;

  struct Node {
    int32_t id;
    int64_t previous;
    int64_t next;
  };
  struct Candidate {
    int64_t position;  // of the left symbol
    int32_t rank;
    int32_t left;
    int32_t right;
    int32_t result;
  };

  static bool IsLater(const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  }

  // Pushes the pair that starts at `position` if it can merge. The constructor
  // makes the heap of what it proposed.
  bool Propose(int64_t position) {
    const int32_t left = nodes_[position].id;
    const int32_t right = nodes_[nodes_[position].next].id;
    const auto it = table_.merges_.find(Key(left, right));
    if (it == table_.merges_.end()) return false;
    heap_.push_back({position, it->second.rank, left, right, it->second.result});
    return true;
  }

  void ProposeInHeap(int64_t position) {
    if (Propose(position)) std::push_heap(heap_.begin(), heap_.end(), IsLater);
  }

  bool IsCurrent(const Candidate& candidate) const {
    const Node& node = nodes_[candidate.position];
    return node.id == candidate.left && node.next != kNone && nodes_[node.next].id == candidate.right;
  }

  void MergeAt(const Candidate& candidate) {
    Node& node = nodes_[candidate.position];
    Node& absorbed = nodes_[node.next];
    node.id = candidate.result;
    node.next = absorbed.next;
    absorbed.id = kMergedAway;
    if (node.next != kNone) {
      nodes_[node.next].previous = candidate.position;
      ProposeInHeap(candidate.position);
    }
    if (node.previous != kNone) ProposeInHeap(node.previous);
  }

  const MergeTable& table_;
  std::vector<Node> nodes_;
  std::vector<Candidate> heap_;
};

void MergeTable::Apply(std::vector<int32_t>* symbols) const {
  if (symbols->size() < 2) return;
  Run run(*this, *symbols);
  run.MergeAll();
  run.Write(symbols);
}

}  // namespace nibble::text
