#include "experiments/text_config.h"

#include <filesystem>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/base/file.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "core/text/utf8.h"
#include "datasets/task.pb.h"
#include "experiments/experiment.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "methods/training/training.pb.h"

namespace nibble {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::vector<std::string> FieldNames(const Descriptor& descriptor) {
  std::vector<std::string> names;
  for (int i = 0; i < descriptor.field_count(); ++i) names.push_back(descriptor.field(i)->name());
  std::vector<const FieldDescriptor*> extensions;
  descriptor.file()->pool()->FindAllExtensions(&descriptor, &extensions);
  for (const FieldDescriptor* extension : extensions) names.push_back(extension->full_name());
  return names;
}

// The quoted words of a parser's message, in order.
std::vector<std::string> QuotedWords(const std::string& message) {
  std::vector<std::string> parts = absl::StrSplit(message, '"'), words;
  for (size_t i = 1; i < parts.size(); i += 2) words.push_back(parts[i]);
  return words;
}

const Descriptor* FindMessage(const std::string& name) {
  return google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(name);
}

// The values of every enum field of that name: the parser's message does not
// say whose field it is.
std::vector<std::string> EnumValues(const std::string& field_name) {
  std::vector<const FieldDescriptor*> steps;
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  pool->FindAllExtensions(Step::descriptor(), &steps);
  std::vector<const Descriptor*> types;
  for (const FieldDescriptor* step : steps) types.push_back(step->message_type());
  for (int i = 0; i < Experiment::descriptor()->file()->message_type_count(); ++i) {
    types.push_back(Experiment::descriptor()->file()->message_type(i));
  }
  types.insert(types.end(), {TaskDescription::descriptor(), TaskDescription::Filter::descriptor()});
  std::vector<std::string> names;
  for (const Descriptor* type : types) {
    const FieldDescriptor* field = type->FindFieldByName(field_name);
    if (field == nullptr || field->enum_type() == nullptr) continue;
    for (int i = 0; i < field->enum_type()->value_count(); ++i) names.push_back(field->enum_type()->value(i)->name());
  }
  return names;
}

// What a parser's message should have offered: the nearest field of the type,
// extension of the message, or value of the enum that it names.
std::string Hint(const std::string& message) {
  const std::vector<std::string> words = QuotedWords(message);
  if (words.size() < 2) return "";
  if (message.find("has no field named") != std::string::npos) {
    const Descriptor* type = FindMessage(words[0]);
    return type == nullptr ? "" : DidYouMean(words[1], FieldNames(*type));
  }
  if (message.find("is not defined or is not an extension of") != std::string::npos) {
    const Descriptor* type = FindMessage(words[1]);
    return type == nullptr ? "" : DidYouMean(words[0], FieldNames(*type));
  }
  if (message.find("Unknown enumeration value") != std::string::npos) return DidYouMean(words[0], EnumValues(words[1]));
  return "";
}

// Collects the first few errors of a parse.
class Collector : public google::protobuf::io::ErrorCollector {
 public:
  explicit Collector(std::string source) : source_(std::move(source)) {}

  void AddError(int line, google::protobuf::io::ColumnNumber column, const std::string& message) override {
    if (++count_ > 5) return;
    const std::string place = line < 0 ? source_ : absl::StrCat(source_, ":", line + 1, ":", column + 1);
    absl::StrAppend(&text_, text_.empty() ? "" : "\n", place, ": ", message, Hint(message));
  }

  const std::string& text() const { return text_; }

 private:
  const std::string source_;
  std::string text_;
  int count_ = 0;
};

// How deep messages may nest: a recipe within a recipe takes three levels. The parser,
// and all that walks a message after it, recurses.
constexpr int kMaxDepth = 100;

void Prepare(Collector* collector, google::protobuf::TextFormat::Parser* parser) {
  parser->RecordErrorsTo(collector);
  parser->SetRecursionLimit(kMaxDepth);
}

// One component of a path: a field and perhaps an index.
struct Component {
  std::string field;
  std::string index;  // "" for none
};

absl::StatusOr<Component> ParseComponent(absl::string_view text) {
  const size_t open = text.find('[');
  if (open == absl::string_view::npos) return Component{std::string(text), ""};
  if (text.back() != ']' || open + 2 > text.size() - 1) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not a field; write name or name[index]"));
  }
  return Component{std::string(text.substr(0, open)), std::string(text.substr(open + 1, text.size() - open - 2))};
}

// Components are split at dots outside brackets (a variant's name may hold dots).
std::vector<std::string> SplitPath(absl::string_view path) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : path) {
    if (c == '[') ++depth;
    if (c == ']') --depth;
    if (c == '.' && depth == 0) {
      parts.emplace_back();
    } else {
      parts.back().push_back(c);
    }
  }
  return parts;
}

// A message that holds exactly one extension (a step) stands for that
// extension's message.
Message* ThroughStep(Message* message) {
  std::vector<const FieldDescriptor*> set;
  message->GetReflection()->ListFields(*message, &set);
  if (message->GetDescriptor()->field_count() == 0 && set.size() == 1 && set[0]->is_extension()) {
    return message->GetReflection()->MutableMessage(message, set[0]);
  }
  return message;
}

absl::StatusOr<const FieldDescriptor*> FindField(const Message& message, const std::string& name) {
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
  if (field == nullptr) {
    return absl::InvalidArgumentError(UnknownName(absl::StrCat("field of ", message.GetDescriptor()->full_name()), name,
                                                  FieldNames(*message.GetDescriptor())));
  }
  return field;
}

// The element's position: a number, or the value of its `name` field.
absl::StatusOr<int> FindElement(const Message& message, const FieldDescriptor* field, const std::string& index) {
  const auto* reflection = message.GetReflection();
  const int size = reflection->FieldSize(message, field);
  int position = -1;
  if (absl::SimpleAtoi(index, &position) && position >= 0 && position < size) return position;
  std::vector<std::string> names;
  if (field->message_type() != nullptr) {
    const FieldDescriptor* name = field->message_type()->FindFieldByName("name");
    for (int i = 0; name != nullptr && i < size; ++i) {
      const Message& element = reflection->GetRepeatedMessage(message, field, i);
      names.push_back(element.GetReflection()->GetString(element, name));
      if (names.back() == index) return i;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(field->name(), "[", index, "] does not exist; there are ", size, " elements",
                                                 DidYouMean(index, names)));
}

absl::StatusOr<Message*> Descend(Message* message, const Component& component) {
  NIBBLE_ASSIGN_OR_RETURN(const FieldDescriptor* field, FindField(*message, component.field));
  if (field->message_type() == nullptr) return absl::InvalidArgumentError(absl::StrCat(component.field, " has no fields of its own"));
  const auto* reflection = message->GetReflection();
  if (!field->is_repeated()) return ThroughStep(reflection->MutableMessage(message, field));
  if (component.index.empty()) return absl::InvalidArgumentError(absl::StrCat(component.field, " is repeated; write ", component.field, "[0]"));
  NIBBLE_ASSIGN_OR_RETURN(const int position, FindElement(*message, field, component.index));
  return ThroughStep(reflection->MutableRepeatedMessage(message, field, position));
}

absl::Status SetLeaf(Message* message, const Component& component, const std::string& value) {
  NIBBLE_ASSIGN_OR_RETURN(const FieldDescriptor* field, FindField(*message, component.field));
  if (!component.index.empty()) return absl::InvalidArgumentError("the last component of a path takes no index");
  std::string text = value;
  const bool quoted = value.size() >= 2 && (value[0] == '"' || value[0] == '\'');
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING && !quoted) text = absl::StrCat("\"", value, "\"");
  const bool braces = field->message_type() != nullptr && (value.empty() || value[0] != '{');
  if (braces) text = absl::StrCat("{ ", value, " }");
  message->GetReflection()->ClearField(message, field);
  google::protobuf::TextFormat::Parser parser;
  Collector collector(absl::StrCat(component.field, "=", value));
  Prepare(&collector, &parser);
  std::unique_ptr<Message> parsed(message->New());
  parser.AllowPartialMessage(true);
  if (!parser.ParseFromString(absl::StrCat(field->name(), ": ", text), parsed.get())) {
    return absl::InvalidArgumentError(collector.text());
  }
  message->MergeFrom(*parsed);
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseText(absl::string_view text, const std::string& source, Message* message,
                       google::protobuf::TextFormat::ParseInfoTree* locations) {
  NIBBLE_RETURN_IF_ERROR(text::CheckUtf8(text, source));
  google::protobuf::TextFormat::Parser parser;
  if (locations != nullptr) parser.WriteLocationsTo(locations);
  Collector collector(source);
  Prepare(&collector, &parser);
  if (!parser.ParseFromString(std::string(text), message)) return absl::InvalidArgumentError(collector.text());
  return absl::OkStatus();
}

absl::Status ReadTextFile(const std::string& path, Message* message, google::protobuf::TextFormat::ParseInfoTree* locations) {
  NIBBLE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseText(text, path, message, locations);
}

std::string DirectoryOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

absl::Status ResolveIncludedData(Message* message, const std::string& directory) {
  if (auto* data = google::protobuf::DynamicCastToGenerated<TrainingData>(message)) {
    if (!data->has_include()) return absl::OkStatus();
    TrainingData whole;
    const std::string path = (std::filesystem::path(directory) / data->include()).string();
    NIBBLE_RETURN_IF_ERROR(ReadTextFile(path, &whole));
    if (whole.has_include()) return absl::InvalidArgumentError(absl::StrCat(path, ": an included file includes no other"));
    whole.MergeFrom(*data);
    whole.clear_include();
    *data = std::move(whole);
    return absl::OkStatus();
  }
  const google::protobuf::Reflection& reflection = *message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->message_type() == nullptr) continue;
    const int count = field->is_repeated() ? reflection.FieldSize(*message, field) : 1;
    for (int i = 0; i < count; ++i) {
      Message* nested = field->is_repeated() ? reflection.MutableRepeatedMessage(message, field, i) : reflection.MutableMessage(message, field);
      NIBBLE_RETURN_IF_ERROR(ResolveIncludedData(nested, directory));
    }
  }
  return absl::OkStatus();
}

absl::Status SetField(Message* message, absl::string_view path, const std::string& value) {
  const std::vector<std::string> parts = SplitPath(path);
  Message* at = message;
  for (size_t i = 0; i < parts.size(); ++i) {
    NIBBLE_ASSIGN_OR_RETURN(const Component component, ParseComponent(parts[i]));
    if (i + 1 == parts.size()) return Annotate(SetLeaf(at, component, value), path);
    const auto next = Descend(at, component);
    if (!next.ok()) return Annotate(next.status(), path);
    at = *next;
  }
  return absl::OkStatus();
}

}  // namespace nibble
