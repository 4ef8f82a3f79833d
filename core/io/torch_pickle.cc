#include <algorithm>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "core/io/torch_file.h"

namespace nibble::io {
namespace {

constexpr size_t kMaxPickleBytes = 4 << 20;
constexpr int kMaxDepth = 16;
// What is copied for each tensor has a bound, so that memory grows with the file.
constexpr size_t kMaxName = 512, kMaxStorageKey = 64, kMaxDimensions = 8;
// torch.save puts a thousand items of a dict on the stack at a time.
constexpr size_t kMaxStack = 1 << 16, kMaxMemo = 1 << 17;

struct StorageType {
  const char* name;
  DType dtype;
};
constexpr StorageType kStorageTypes[] = {{"FloatStorage", DType::kF32}, {"HalfStorage", DType::kF16},  {"BFloat16Storage", DType::kBF16},
                                         {"DoubleStorage", DType::kF64}, {"CharStorage", DType::kI8},   {"ByteStorage", DType::kU8},
                                         {"ShortStorage", DType::kI16},  {"IntStorage", DType::kI32},   {"LongStorage", DType::kI64},
                                         {"BoolStorage", DType::kBool}};

enum class Kind { kMark, kNone, kBool, kInteger, kText, kOrderedDict, kRebuildTensor, kRebuildParameter, kStorageType, kTuple, kDict, kStorage, kTensor };

// Texts, tuples and dicts are shared, so that a value costs the same however often it
// is on the stack. Dicts hold tensors alone and tuples nest a few levels deep, so
// that nothing nests without end.
struct Value {
  Kind kind = Kind::kNone;
  int depth = 0;
  DType dtype = DType::kF32;
  int64_t number = 0;
  std::shared_ptr<const std::string> text;
  std::shared_ptr<const std::vector<Value>> tuple;
  std::shared_ptr<std::map<std::string, TorchTensor>> dict;
  std::shared_ptr<const TorchTensor> tensor;  // a storage has no shape
};

Value Make(Kind kind, int64_t number = 0) {
  Value value;
  value.kind = kind;
  value.number = number;
  return value;
}

Value MakeDict() {
  Value value = Make(Kind::kDict);
  value.dict = std::make_shared<std::map<std::string, TorchTensor>>();
  return value;
}

class Interpreter {
 public:
  explicit Interpreter(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  absl::StatusOr<std::map<std::string, TorchTensor>> Run() {
    if (bytes_.size() > kMaxPickleBytes) return Bad(absl::StrCat(bytes_.size(), " bytes of pickle, expected at most ", kMaxPickleBytes));
    while (!stopped_) {
      op_at_ = at_;
      NIBBLE_ASSIGN_OR_RETURN(const uint64_t op, Read(1));
      NIBBLE_RETURN_IF_ERROR(Execute(static_cast<uint8_t>(op)));
    }
    if (stack_.size() != 1 || stack_[0].kind != Kind::kDict) return Bad("the pickle is no dict of tensors");
    return *stack_[0].dict;
  }

 private:
  absl::Status Bad(absl::string_view problem) const {
    return absl::InvalidArgumentError(absl::StrCat("pickle, byte ", op_at_, ": ", problem));
  }

  // A little-endian number.
  absl::StatusOr<uint64_t> Read(size_t size) {
    if (size > bytes_.size() - at_) return Bad("ends too soon");
    uint64_t value = 0;
    std::memcpy(&value, bytes_.data() + at_, size);
    at_ += size;
    return value;
  }

  absl::StatusOr<std::string> ReadText(uint64_t size) {
    if (size > bytes_.size() - at_) return Bad("ends too soon");
    std::string text(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return text;
  }

  absl::StatusOr<std::string> ReadLine() {
    const void* end = std::memchr(bytes_.data() + at_, '\n', bytes_.size() - at_);
    if (end == nullptr) return Bad("ends too soon");
    NIBBLE_ASSIGN_OR_RETURN(const std::string line, ReadText(static_cast<const uint8_t*>(end) - bytes_.data() - at_));
    ++at_;
    return line;
  }

  absl::Status Push(Value value) {
    if (stack_.size() >= kMaxStack) return Bad(absl::StrCat("more than ", kMaxStack, " values on the stack"));
    stack_.push_back(std::move(value));
    return absl::OkStatus();
  }

  absl::StatusOr<Value> Pop() {
    if (stack_.empty() || stack_.back().kind == Kind::kMark) return Bad("the stack is empty");
    Value value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }

  // What was pushed since the last mark.
  absl::StatusOr<std::vector<Value>> PopToMark() {
    size_t mark = stack_.size();
    while (mark > 0 && stack_[mark - 1].kind != Kind::kMark) --mark;
    if (mark == 0) return Bad("no mark on the stack");
    std::vector<Value> values(stack_.begin() + mark, stack_.end());
    stack_.resize(mark - 1);
    return values;
  }

  absl::Status PushTuple(std::vector<Value> values) {
    Value tuple = Make(Kind::kTuple);
    for (const Value& value : values) tuple.depth = std::max(tuple.depth, value.depth + 1);
    if (tuple.depth > kMaxDepth) return Bad(absl::StrCat("tuples nested deeper than ", kMaxDepth));
    tuple.tuple = std::make_shared<const std::vector<Value>>(std::move(values));
    return Push(std::move(tuple));
  }

  absl::Status PushTupleOf(size_t count) {
    std::vector<Value> values(count);
    for (size_t i = count; i-- > 0;) {
      NIBBLE_ASSIGN_OR_RETURN(values[i], Pop());
    }
    return PushTuple(std::move(values));
  }

  absl::Status PushInteger(size_t size, bool is_signed) {
    NIBBLE_ASSIGN_OR_RETURN(const uint64_t raw, Read(size));
    return Push(Make(Kind::kInteger, is_signed ? static_cast<int32_t>(raw) : static_cast<int64_t>(raw)));
  }

  // LONG1: a length and a two's complement number.
  absl::Status PushLong() {
    NIBBLE_ASSIGN_OR_RETURN(const uint64_t size, Read(1));
    if (size > 8) return Bad("a number of more than 8 bytes");
    NIBBLE_ASSIGN_OR_RETURN(const uint64_t raw, Read(size));
    const int unused = 64 - 8 * static_cast<int>(size);
    return Push(Make(Kind::kInteger, size == 0 ? 0 : static_cast<int64_t>(raw << unused) >> unused));
  }

  absl::Status PushText() {
    NIBBLE_ASSIGN_OR_RETURN(const uint64_t size, Read(4));
    NIBBLE_ASSIGN_OR_RETURN(std::string text, ReadText(size));
    Value value = Make(Kind::kText);
    value.text = std::make_shared<const std::string>(std::move(text));
    return Push(std::move(value));
  }

  absl::Status PushGlobal() {
    NIBBLE_ASSIGN_OR_RETURN(const std::string module, ReadLine());
    NIBBLE_ASSIGN_OR_RETURN(const std::string name, ReadLine());
    if (module == "collections" && name == "OrderedDict") return Push(Make(Kind::kOrderedDict));
    if (module == "torch._utils" && name == "_rebuild_tensor_v2") return Push(Make(Kind::kRebuildTensor));
    if (module == "torch._utils" && name == "_rebuild_parameter") return Push(Make(Kind::kRebuildParameter));
    for (const StorageType& type : kStorageTypes) {
      if (module != "torch" || name != type.name) continue;
      Value value = Make(Kind::kStorageType);
      value.dtype = type.dtype;
      return Push(std::move(value));
    }
    return Bad(absl::StrCat("the name ", module.substr(0, 100), ".", name.substr(0, 100),
                            " is not allowed: a checkpoint is a dict of tensors and calls nothing"));
  }

  absl::Status Memoize(size_t size) {
    NIBBLE_ASSIGN_OR_RETURN(const uint64_t index, Read(size));
    if (stack_.empty() || stack_.back().kind == Kind::kMark) return Bad("nothing to remember");
    if (memo_.size() >= kMaxMemo) return Bad(absl::StrCat("more than ", kMaxMemo, " values remembered"));
    memo_[index] = stack_.back();
    return absl::OkStatus();
  }

  absl::Status Recall(size_t size) {
    NIBBLE_ASSIGN_OR_RETURN(const uint64_t index, Read(size));
    const auto it = memo_.find(index);
    return it == memo_.end() ? Bad(absl::StrCat("nothing is remembered as ", index)) : Push(it->second);
  }

  // ("storage", type, key, location, elements).
  absl::Status PushStorage() {
    NIBBLE_ASSIGN_OR_RETURN(const Value id, Pop());
    if (id.kind != Kind::kTuple || id.tuple->size() != 5) return Bad("a persistent id that is no storage");
    const std::vector<Value>& parts = *id.tuple;
    if (parts[0].kind != Kind::kText || *parts[0].text != "storage" || parts[1].kind != Kind::kStorageType || parts[2].kind != Kind::kText ||
        parts[2].text->size() > kMaxStorageKey || parts[4].kind != Kind::kInteger || parts[4].number < 0) {
      return Bad("a persistent id that is no storage");
    }
    TorchTensor tensor;
    tensor.dtype = parts[1].dtype;
    tensor.storage = *parts[2].text;
    tensor.storage_elements = parts[4].number;
    Value value = Make(Kind::kStorage);
    value.tensor = std::make_shared<const TorchTensor>(std::move(tensor));
    return Push(std::move(value));
  }

  static std::optional<Shape> Sizes(const Value& value) {
    if (value.kind != Kind::kTuple || value.tuple->size() > kMaxDimensions) return std::nullopt;
    Shape sizes;
    for (const Value& size : *value.tuple) {
      if (size.kind != Kind::kInteger || size.number < 0) return std::nullopt;
      sizes.push_back(size.number);
    }
    return sizes;
  }

  // _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks).
  absl::Status RebuildTensor(const std::vector<Value>& arguments) {
    if (arguments.size() < 6 || arguments[0].kind != Kind::kStorage || arguments[1].kind != Kind::kInteger || arguments[1].number < 0) {
      return Bad("_rebuild_tensor_v2 without a storage and an offset");
    }
    const std::optional<Shape> shape = Sizes(arguments[2]), strides = Sizes(arguments[3]);
    if (!shape.has_value() || !strides.has_value() || shape->size() != strides->size()) return Bad("_rebuild_tensor_v2 without sizes and strides");
    TorchTensor tensor = *arguments[0].tensor;
    tensor.offset = arguments[1].number;
    tensor.shape = *shape;
    tensor.strides = *strides;
    Value value = Make(Kind::kTensor);
    value.tensor = std::make_shared<const TorchTensor>(std::move(tensor));
    return Push(std::move(value));
  }

  absl::Status Reduce() {
    NIBBLE_ASSIGN_OR_RETURN(const Value arguments, Pop());
    NIBBLE_ASSIGN_OR_RETURN(const Value function, Pop());
    if (arguments.kind != Kind::kTuple) return Bad("a call without arguments");
    if (function.kind == Kind::kOrderedDict && arguments.tuple->empty()) return Push(MakeDict());
    if (function.kind == Kind::kRebuildTensor) return RebuildTensor(*arguments.tuple);
    if (function.kind == Kind::kRebuildParameter && !arguments.tuple->empty() && (*arguments.tuple)[0].kind == Kind::kTensor) {
      return Push((*arguments.tuple)[0]);
    }
    return Bad("a call that no state dict needs");
  }

  absl::Status SetItem(const Value& dict, const Value& key, const Value& value) {
    if (value.kind != Kind::kTensor) return absl::OkStatus();
    if (key.kind != Kind::kText || key.text->size() > kMaxName) return Bad("a tensor whose key is no text, or a very long one");
    if (dict.dict->emplace(*key.text, *value.tensor).second) return absl::OkStatus();
    return Bad(absl::StrCat("tensor '", *key.text, "' appears twice"));
  }

  absl::Status SetItems(const std::vector<Value>& items) {
    if (stack_.empty() || stack_.back().kind != Kind::kDict || items.size() % 2 != 0) return Bad("items without a dict");
    for (size_t i = 0; i < items.size(); i += 2) NIBBLE_RETURN_IF_ERROR(SetItem(stack_.back(), items[i], items[i + 1]));
    return absl::OkStatus();
  }

  absl::Status SetOneItem() {
    std::vector<Value> items(2);
    NIBBLE_ASSIGN_OR_RETURN(items[1], Pop());
    NIBBLE_ASSIGN_OR_RETURN(items[0], Pop());
    return SetItems(items);
  }

  // Attributes of a dict (a module's "_metadata"), which are dropped.
  absl::Status Build() {
    NIBBLE_RETURN_IF_ERROR(Pop().status());
    return !stack_.empty() && stack_.back().kind == Kind::kDict ? absl::OkStatus() : Bad("attributes of what is no dict");
  }

  absl::Status Protocol() {
    NIBBLE_ASSIGN_OR_RETURN(const uint64_t version, Read(1));
    return version == 2 ? absl::OkStatus() : Bad(absl::StrCat("pickle protocol ", version, ", expected 2"));
  }

  absl::Status Execute(uint8_t op) {
    switch (op) {
      case 0x80: return Protocol();
      case '}': return Push(MakeDict());
      case ')': return PushTuple({});
      case '(': return Push(Make(Kind::kMark));
      case 't': {
        NIBBLE_ASSIGN_OR_RETURN(std::vector<Value> values, PopToMark());
        return PushTuple(std::move(values));
      }
      case 0x85: return PushTupleOf(1);
      case 0x86: return PushTupleOf(2);
      case 0x87: return PushTupleOf(3);
      case 'N': return Push(Make(Kind::kNone));
      case 0x88: case 0x89: return Push(Make(Kind::kBool, op == 0x88));
      case 'K': return PushInteger(1, false);
      case 'M': return PushInteger(2, false);
      case 'J': return PushInteger(4, true);
      case 0x8A: return PushLong();
      case 'X': return PushText();
      case 'c': return PushGlobal();
      case 'q': return Memoize(1);
      case 'r': return Memoize(4);
      case 'h': return Recall(1);
      case 'j': return Recall(4);
      case 'Q': return PushStorage();
      case 'R': return Reduce();
      case 's': return SetOneItem();
      case 'u': {
        NIBBLE_ASSIGN_OR_RETURN(const std::vector<Value> items, PopToMark());
        return SetItems(items);
      }
      case 'b': return Build();
      case '.': stopped_ = true; return absl::OkStatus();
      default: return Bad(absl::StrCat("opcode 0x", absl::Hex(op, absl::kZeroPad2), " is not one of a state dict"));
    }
  }

  const absl::Span<const uint8_t> bytes_;
  size_t at_ = 0, op_at_ = 0;
  bool stopped_ = false;
  std::vector<Value> stack_;
  std::map<uint64_t, Value> memo_;
};

}  // namespace

absl::StatusOr<std::map<std::string, TorchTensor>> ReadTorchPickle(absl::Span<const uint8_t> pickle) { return Interpreter(pickle).Run(); }

}  // namespace nibble::io
