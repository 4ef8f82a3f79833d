#include "eval/raw_records.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/io/safetensors.h"

namespace nibble::eval {
namespace {

constexpr char kVersionKey[] = "nibble.records", kVersion[] = "1";

template <typename T>
constexpr DType kTypeOf = std::is_same_v<T, float>     ? DType::kF32
                          : std::is_same_v<T, int32_t> ? DType::kI32
                          : std::is_same_v<T, int64_t> ? DType::kI64
                                                       : DType::kU8;

// Bits of rows of `width` flags, each row from a byte of its own on.
std::vector<uint8_t> PackBits(const std::vector<uint8_t>& flags, int64_t width) {
  const int64_t rows = static_cast<int64_t>(flags.size()) / width, bytes = (width + 7) / 8;
  std::vector<uint8_t> packed(rows * bytes);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < width; ++i) packed[r * bytes + i / 8] |= flags[r * width + i] << (i % 8);
  }
  return packed;
}

std::vector<uint8_t> UnpackBits(const std::vector<uint8_t>& packed, int64_t rows, int64_t width) {
  const int64_t bytes = (width + 7) / 8;
  std::vector<uint8_t> flags(rows * width);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < width; ++i) flags[r * width + i] = packed[r * bytes + i / 8] >> (i % 8) & 1;
  }
  return flags;
}

bool HasChoices(const TaskDescription& task) { return task.kind() != TaskDescription::ROLLING && task.kind() != TaskDescription::EXACT_MATCH; }

// A field of each item.
template <typename T>
std::vector<T> Each(const std::vector<ItemResult>& items, T ItemResult::*field) {
  std::vector<T> values;
  for (const ItemResult& item : items) values.push_back(item.*field);
  return values;
}

// A list of each item, one after the other, and how many values each has.
template <typename T>
std::vector<T> Joined(const std::vector<ItemResult>& items, std::vector<T> ItemResult::*list) {
  std::vector<T> values;
  for (const ItemResult& item : items) values.insert(values.end(), (item.*list).begin(), (item.*list).end());
  return values;
}
template <typename T>
std::vector<int32_t> Counts(const std::vector<ItemResult>& items, std::vector<T> ItemResult::*list) {
  std::vector<int32_t> counts;
  for (const ItemResult& item : items) counts.push_back(static_cast<int32_t>((item.*list).size()));
  return counts;
}

class FileBuilder {
 public:
  FileBuilder(const std::string& kind, Arithmetic arithmetic)
      : metadata_({{kVersionKey, kVersion}, {"kind", kind}, {"arithmetic", Arithmetic_Name(arithmetic)}}) {}

  absl::StatusOr<std::string> Build(const PerplexityRecords& records) {
    AddHead(records);
    const int64_t windows = static_cast<int64_t>(records.nll.size()) / records.predictions;
    Add("nll", records.nll, {windows, records.predictions});
    Add("target", records.targets, {windows, records.predictions});
    return io::SafetensorsWriter::ToBytes(tensors_, metadata_);
  }

  absl::StatusOr<std::string> Build(const DivergenceRecords& records) {
    AddHead(records);
    const int64_t windows = static_cast<int64_t>(records.kl.size()) / records.predictions;
    Add("kl", records.kl, {windows, records.predictions});
    Add("agree", PackBits(records.agree, records.predictions), {windows, (records.predictions + 7) / 8});
    return io::SafetensorsWriter::ToBytes(tensors_, metadata_);
  }

  absl::StatusOr<std::string> Build(const TaskRecords& records) {
    metadata_["label"] = records.label;
    NIBBLE_ASSIGN_OR_RETURN(metadata_["task"], ProtoToJson(records.description));
    metadata_["shots"] = absl::StrCat(records.shots);
    metadata_["window"] = absl::StrCat(records.window);
    metadata_["bos"] = records.adds_bos ? "item" : "none";
    Add("category", Each(records.items, &ItemResult::category));
    AddTexts("categories", records.categories);
    AddTruncated(records);
    if (HasChoices(records.description)) AddChoices(records);
    else if (records.description.kind() == TaskDescription::ROLLING) AddDocuments(records.items);
    else AddAnswers(records);
    return io::SafetensorsWriter::ToBytes(tensors_, metadata_);
  }

 private:
  // Without a shape a list.
  template <typename T>
  void Add(const std::string& name, const std::vector<T>& values, Shape shape = {}) {
    if (shape.empty()) shape = {static_cast<int64_t>(values.size())};
    Tensor tensor = Tensor::Zeros(kTypeOf<T>, std::move(shape));
    std::copy(values.begin(), values.end(), tensor.mutable_as<T>().begin());
    tensors_.emplace_back(name, std::move(tensor));
  }

  void AddTexts(const std::string& name, const std::vector<std::string>& texts) {
    std::vector<uint8_t> bytes;
    std::vector<int32_t> counts;
    for (const std::string& text : texts) {
      bytes.insert(bytes.end(), text.begin(), text.end());
      counts.push_back(static_cast<int32_t>(text.size()));
    }
    Add(name, bytes);
    Add(name + "_bytes", counts);
  }

  void AddHead(const TextRecords& records) {
    metadata_["set"] = records.set;
    metadata_["convention"] = records.convention;
  }

  void AddTruncated(const TaskRecords& records) {
    const std::vector<uint8_t> truncated = Each(records.items, &ItemResult::truncated);
    if (std::find(truncated.begin(), truncated.end(), 1) == truncated.end()) return;
    Add("truncated", truncated);
    metadata_["positions"] = absl::StrCat(records.max_positions);
  }

  void AddChoices(const TaskRecords& records) {
    Add("choices", Counts(records.items, &ItemResult::log_likelihoods));
    Add("log_likelihood", Joined(records.items, &ItemResult::log_likelihoods));
    Add("tokens", Joined(records.items, &ItemResult::target_tokens));
    Add("bytes", Joined(records.items, &ItemResult::bytes));
    if (records.description.kind() == TaskDescription::MULTIPLE_CHOICE) Add("characters", Joined(records.items, &ItemResult::characters));
    Add("gold", Each(records.items, &ItemResult::gold));
    if (records.description.kind() == TaskDescription::LAST_WORD) Add("greedy", Each(records.items, &ItemResult::greedy));
  }

  void AddDocuments(const std::vector<ItemResult>& items) {
    Add("windows", Counts(items, &ItemResult::window_tokens));
    Add("window_tokens", Joined(items, &ItemResult::window_tokens));
    Add("tokens", Counts(items, &ItemResult::nll));
    Add("nll", Joined(items, &ItemResult::nll));
    Add("target", Joined(items, &ItemResult::targets));
    Add("words", Each(items, &ItemResult::words));
    Add("bytes", Each(items, &ItemResult::text_bytes));
  }

  void AddAnswers(const TaskRecords& records) {
    AddTexts("said", Each(records.items, &ItemResult::said));
    AddTexts("answer", Each(records.items, &ItemResult::answer));
    Add("matched", Joined(records.items, &ItemResult::matches),
        {static_cast<int64_t>(records.items.size()), std::max(1, records.description.filter_size())});
  }

  std::vector<std::pair<std::string, Tensor>> tensors_;
  std::map<std::string, std::string> metadata_;
};

class FileReader {
 public:
  explicit FileReader(std::shared_ptr<const io::SafetensorsFile> file) : file_(std::move(file)) {}

  absl::StatusOr<RawRecords> Read() const {
    const auto version = file_->metadata().find(kVersionKey);
    if (version == file_->metadata().end()) return Bad("holds no raw records of a measurement");
    if (version->second != kVersion) return Bad(absl::StrCat("raw records of layout '", version->second, "'; this program reads '", kVersion, "'"));
    NIBBLE_ASSIGN_OR_RETURN(const std::string kind, Text("kind"));
    if (kind == "perplexity") return As(ReadPerplexity());
    if (kind == "divergence") return As(ReadDivergence());
    if (kind == "task") return As(ReadTask());
    return Bad(absl::StrCat("raw records of the kind '", kind, "'; expected perplexity, divergence or task"));
  }

 private:
  absl::Status Bad(absl::string_view problem) const { return absl::InvalidArgumentError(absl::StrCat(file_->path(), ": ", problem)); }

  template <typename T>
  static absl::StatusOr<RawRecords> As(absl::StatusOr<T> records) {
    if (!records.ok()) return records.status();
    return RawRecords(*std::move(records));
  }

  absl::StatusOr<std::string> Text(const std::string& key) const {
    const auto it = file_->metadata().find(key);
    if (it == file_->metadata().end()) return Bad(absl::StrCat("the metadata lacks '", key, "'"));
    return it->second;
  }

  template <typename T>
  absl::Status ReadNumber(const std::string& key, T* number) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, Text(key));
    if (absl::SimpleAtoi(text, number) && *number >= 0) return absl::OkStatus();
    return Bad(absl::StrCat("metadata '", key, "' is '", text, "', expected a whole number"));
  }

  absl::StatusOr<Arithmetic> ReadArithmetic() const {
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, Text("arithmetic"));
    Arithmetic arithmetic = NATIVE;
    if (Arithmetic_Parse(text, &arithmetic)) return arithmetic;
    return Bad(absl::StrCat("metadata 'arithmetic' is '", text, "', expected NATIVE or SIMULATED"));
  }

  // A tensor, and the shape that it must have.
  template <typename T>
  absl::StatusOr<Tensor> Find(const std::string& name, const Shape& shape) const {
    NIBBLE_ASSIGN_OR_RETURN(Tensor tensor, file_->Get(name));
    if (tensor.dtype() == kTypeOf<T> && tensor.shape() == shape) return tensor;
    return Bad(absl::StrCat("tensor '", name, "' is ", DTypeName(tensor.dtype()), " ", ShapeToString(tensor.shape()), ", the others need ",
                            DTypeName(kTypeOf<T>), " ", ShapeToString(shape)));
  }

  template <typename T>
  absl::StatusOr<std::vector<T>> Values(const std::string& name, const Shape& shape) const {
    NIBBLE_ASSIGN_OR_RETURN(const Tensor tensor, Find<T>(name, shape));
    std::vector<T> values(tensor.elements());
    // The mapping need not be aligned.
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes().data(), tensor.bytes().size());
    return values;
  }

  // The shape of what decides that of all others.
  absl::StatusOr<Shape> ShapeOf(const std::string& name, size_t rank) const {
    NIBBLE_ASSIGN_OR_RETURN(const Tensor tensor, file_->Get(name));
    if (tensor.shape().size() == rank && tensor.elements() > 0) return tensor.shape();
    return Bad(absl::StrCat("tensor '", name, "' has the shape ", ShapeToString(tensor.shape()), ", expected ", rank, " dimensions and values"));
  }

  absl::StatusOr<std::vector<int32_t>> ReadCounts(const std::string& name, int64_t size) const {
    NIBBLE_ASSIGN_OR_RETURN(std::vector<int32_t> counts, Values<int32_t>(name, {size}));
    const bool are_counts = std::all_of(counts.begin(), counts.end(), [](int32_t count) { return count >= 0; });
    if (!are_counts) return Bad(absl::StrCat("tensor '", name, "' holds negative counts"));
    return counts;
  }

  // Gives each item its part of a tensor that holds the values of all.
  template <typename T>
  absl::Status Deal(const std::string& name, const std::vector<int32_t>& counts, std::vector<T> ItemResult::*list,
                    std::vector<ItemResult>* items) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<T> values, Values<T>(name, {std::accumulate(counts.begin(), counts.end(), int64_t{0})}));
    auto next = values.begin();
    for (size_t i = 0; i < items->size(); ++i) {
      ((*items)[i].*list).assign(next, next + counts[i]);
      next += counts[i];
    }
    return absl::OkStatus();
  }

  // Gives each item its value.
  template <typename T>
  absl::Status Deal(const std::string& name, T ItemResult::*field, std::vector<ItemResult>* items) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<T> values, Values<T>(name, {static_cast<int64_t>(items->size())}));
    for (size_t i = 0; i < items->size(); ++i) (*items)[i].*field = values[i];
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> Texts(const std::string& name, int64_t size) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> counts, ReadCounts(name + "_bytes", size));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, Values<uint8_t>(name, {std::accumulate(counts.begin(), counts.end(), int64_t{0})}));
    std::vector<std::string> texts;
    auto next = bytes.begin();
    for (const int32_t count : counts) {
      texts.emplace_back(next, next + count);
      next += count;
    }
    return texts;
  }

  absl::Status ReadHead(const Shape& shape, TextRecords* records) const {
    NIBBLE_ASSIGN_OR_RETURN(records->set, Text("set"));
    NIBBLE_ASSIGN_OR_RETURN(records->convention, Text("convention"));
    NIBBLE_ASSIGN_OR_RETURN(records->arithmetic, ReadArithmetic());
    records->predictions = shape[1];
    return absl::OkStatus();
  }

  absl::StatusOr<PerplexityRecords> ReadPerplexity() const {
    PerplexityRecords records;
    NIBBLE_ASSIGN_OR_RETURN(const Shape shape, ShapeOf("nll", 2));
    NIBBLE_RETURN_IF_ERROR(ReadHead(shape, &records));
    NIBBLE_ASSIGN_OR_RETURN(records.nll, Values<float>("nll", shape));
    NIBBLE_ASSIGN_OR_RETURN(records.targets, Values<int32_t>("target", shape));
    return records;
  }

  absl::StatusOr<DivergenceRecords> ReadDivergence() const {
    DivergenceRecords records;
    NIBBLE_ASSIGN_OR_RETURN(const Shape shape, ShapeOf("kl", 2));
    NIBBLE_RETURN_IF_ERROR(ReadHead(shape, &records));
    NIBBLE_ASSIGN_OR_RETURN(records.kl, Values<float>("kl", shape));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<uint8_t> packed, Values<uint8_t>("agree", {shape[0], (shape[1] + 7) / 8}));
    records.agree = UnpackBits(packed, shape[0], shape[1]);
    return records;
  }

  absl::StatusOr<TaskRecords> ReadTask() const {
    TaskRecords records;
    NIBBLE_ASSIGN_OR_RETURN(records.label, Text("label"));
    NIBBLE_ASSIGN_OR_RETURN(const std::string task, Text("task"));
    NIBBLE_RETURN_IF_ERROR(Annotate(JsonToProto(task, &records.description), absl::StrCat(file_->path(), ": metadata 'task'")));
    if (records.description.kind() == TaskDescription::TEXT) return Bad("metadata 'task' describes no task: its kind is TEXT");
    NIBBLE_RETURN_IF_ERROR(ReadNumber("shots", &records.shots));
    NIBBLE_RETURN_IF_ERROR(ReadNumber("window", &records.window));
    NIBBLE_ASSIGN_OR_RETURN(const std::string bos, Text("bos"));
    records.adds_bos = bos == "item";
    NIBBLE_ASSIGN_OR_RETURN(records.arithmetic, ReadArithmetic());
    NIBBLE_ASSIGN_OR_RETURN(const Tensor names, file_->Get("categories_bytes"));
    NIBBLE_ASSIGN_OR_RETURN(records.categories, Texts("categories", names.elements()));
    NIBBLE_ASSIGN_OR_RETURN(const Shape shape, ShapeOf("category", 1));
    NIBBLE_RETURN_IF_ERROR(CheckItems(records.description, shape));
    records.items.resize(shape[0]);
    NIBBLE_RETURN_IF_ERROR(Deal("category", &ItemResult::category, &records.items));
    if (file_->Has("truncated")) {
      NIBBLE_RETURN_IF_ERROR(Deal("truncated", &ItemResult::truncated, &records.items));
      NIBBLE_RETURN_IF_ERROR(ReadNumber("positions", &records.max_positions));
    }
    if (HasChoices(records.description)) {
      NIBBLE_RETURN_IF_ERROR(ReadChoices(&records));
    } else if (records.description.kind() == TaskDescription::ROLLING) {
      NIBBLE_RETURN_IF_ERROR(ReadDocuments(&records.items));
    } else {
      NIBBLE_RETURN_IF_ERROR(ReadAnswers(&records));
    }
    return records;
  }

  // Whether the other tensors with a value for each item have the shape `items` too: an item
  // takes hundreds of bytes of memory, which its category alone does not justify.
  absl::Status CheckItems(const TaskDescription& task, const Shape& items) const {
    if (HasChoices(task)) {
      NIBBLE_RETURN_IF_ERROR(Find<int32_t>("choices", items).status());
      return Find<int32_t>("gold", items).status();
    }
    if (task.kind() == TaskDescription::ROLLING) {
      NIBBLE_RETURN_IF_ERROR(Find<int32_t>("windows", items).status());
      NIBBLE_RETURN_IF_ERROR(Find<int32_t>("tokens", items).status());
      NIBBLE_RETURN_IF_ERROR(Find<int64_t>("words", items).status());
      return Find<int64_t>("bytes", items).status();
    }
    NIBBLE_RETURN_IF_ERROR(Find<int32_t>("said_bytes", items).status());
    NIBBLE_RETURN_IF_ERROR(Find<int32_t>("answer_bytes", items).status());
    return Find<uint8_t>("matched", {items[0], std::max(1, task.filter_size())}).status();
  }

  absl::Status ReadChoices(TaskRecords* records) const {
    std::vector<ItemResult>* const items = &records->items;
    const TaskDescription::Kind kind = records->description.kind();
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> counts, ReadCounts("choices", static_cast<int64_t>(items->size())));
    NIBBLE_RETURN_IF_ERROR(Deal("log_likelihood", counts, &ItemResult::log_likelihoods, items));
    NIBBLE_RETURN_IF_ERROR(Deal("tokens", counts, &ItemResult::target_tokens, items));
    NIBBLE_RETURN_IF_ERROR(Deal("bytes", counts, &ItemResult::bytes, items));
    NIBBLE_RETURN_IF_ERROR(Deal("gold", &ItemResult::gold, items));
    if (kind == TaskDescription::MULTIPLE_CHOICE) {
      NIBBLE_RETURN_IF_ERROR(Deal("characters", counts, &ItemResult::characters, items));
    }
    if (kind == TaskDescription::LAST_WORD) {
      NIBBLE_RETURN_IF_ERROR(Deal("greedy", &ItemResult::greedy, items));
    }
    const int32_t least = kind == TaskDescription::MINIMAL_PAIR ? 2 : 1;
    const auto lacking = std::find_if(counts.begin(), counts.end(), [&](int32_t count) { return count < least; });
    if (lacking == counts.end()) return absl::OkStatus();
    return Bad(absl::StrCat("item ", lacking - counts.begin(), " has ", *lacking, " continuations; ", TaskDescription::Kind_Name(kind), " needs ", least));
  }

  absl::Status ReadDocuments(std::vector<ItemResult>* items) const {
    const auto size = static_cast<int64_t>(items->size());
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> windows, ReadCounts("windows", size));
    NIBBLE_RETURN_IF_ERROR(Deal("window_tokens", windows, &ItemResult::window_tokens, items));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, ReadCounts("tokens", size));
    NIBBLE_RETURN_IF_ERROR(Deal("nll", tokens, &ItemResult::nll, items));
    NIBBLE_RETURN_IF_ERROR(Deal("target", tokens, &ItemResult::targets, items));
    NIBBLE_RETURN_IF_ERROR(Deal("words", &ItemResult::words, items));
    return Deal("bytes", &ItemResult::text_bytes, items);
  }

  absl::Status ReadAnswers(TaskRecords* records) const {
    const auto size = static_cast<int64_t>(records->items.size());
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> said, Texts("said", size));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> answer, Texts("answer", size));
    for (size_t i = 0; i < records->items.size(); ++i) {
      records->items[i].said = said[i];
      records->items[i].answer = answer[i];
    }
    return Annotate(MatchAnswers(records->description, &records->items), file_->path());
  }

  const std::shared_ptr<const io::SafetensorsFile> file_;
};

const char* KindOf(const PerplexityRecords&) { return "perplexity"; }
const char* KindOf(const DivergenceRecords&) { return "divergence"; }
const char* KindOf(const TaskRecords&) { return "task"; }

}  // namespace

absl::StatusOr<std::vector<Metric>> MetricsOf(const RawRecords& records) {
  return std::visit([](const auto& each) { return MetricsOf(each); }, records);
}

absl::StatusOr<std::string> ToFileBytes(const RawRecords& records) {
  return std::visit([](const auto& each) { return FileBuilder(KindOf(each), each.arithmetic).Build(each); }, records);
}

absl::StatusOr<RawRecords> ReadRawRecords(const std::string& path) {
  NIBBLE_ASSIGN_OR_RETURN(auto file, io::SafetensorsFile::Open(path));
  return FileReader(std::move(file)).Read();
}

}  // namespace nibble::eval
