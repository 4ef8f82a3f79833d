// Method documentation from embedded descriptors, comments included.

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "methods/method.h"

namespace nibble {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

// A pool of its own that keeps source comments; generated pools drop them.
class DocPool {
 public:
  static DocPool& Get() {
    static auto* pool = new DocPool;
    return *pool;
  }

  void Add(const unsigned char* bytes, size_t size) {
    google::protobuf::FileDescriptorSet set;
    NIBBLE_CHECK(set.ParseFromArray(bytes, static_cast<int>(size)));
    for (const auto& file : set.file()) files_.push_back(file);
  }

  const Descriptor* Options(const MethodInfo& info) {
    Build();
    return pool_.FindMessageTypeByName(info.extension->message_type()->full_name());
  }

 private:
  void Build() {
    for (const auto& file : files_) {
      BuildFile(file);
    }
  }

  void BuildFile(const google::protobuf::FileDescriptorProto& file) {
    if (pool_.FindFileByName(file.name()) != nullptr) return;
    for (const std::string& name : file.dependency()) BuildFile(FileOf(name));
    pool_.BuildFile(file);
  }

  // As it was added, or without comments from the generated pool.
  google::protobuf::FileDescriptorProto FileOf(const std::string& name) const {
    for (const auto& file : files_) {
      if (file.name() == name) return file;
    }
    const auto* generated = google::protobuf::DescriptorPool::generated_pool()->FindFileByName(name);
    NIBBLE_CHECK(generated != nullptr);
    google::protobuf::FileDescriptorProto proto;
    generated->CopyTo(&proto);
    return proto;
  }

  std::vector<google::protobuf::FileDescriptorProto> files_;
  google::protobuf::DescriptorPool pool_;
};

template <typename D>
std::string Comment(const D* descriptor) {
  google::protobuf::SourceLocation location;
  if (!descriptor->GetSourceLocation(&location)) return "";
  std::string text;
  for (absl::string_view line : absl::StrSplit(location.leading_comments + location.trailing_comments, '\n')) {
    absl::StrAppend(&text, absl::StripAsciiWhitespace(line), "\n");
  }
  return std::string(absl::StripAsciiWhitespace(text));
}

std::string Indent(absl::string_view text, absl::string_view by) {
  std::string out;
  for (absl::string_view line : absl::StrSplit(text, '\n')) absl::StrAppend(&out, by, line, "\n");
  return out;
}

std::string TypeName(const FieldDescriptor& field) {
  std::string type = field.type_name();
  if (field.message_type() != nullptr) type = field.message_type()->name();
  if (field.enum_type() != nullptr) {
    std::vector<std::string> names;
    for (int i = 0; i < field.enum_type()->value_count(); ++i) names.push_back(field.enum_type()->value(i)->name());
    type = absl::StrCat(names[0]);
    for (size_t i = 1; i < names.size(); ++i) absl::StrAppend(&type, " | ", names[i]);
  }
  return field.is_repeated() ? absl::StrCat("repeated ", type) : type;
}

std::string DefaultText(const FieldDescriptor& field) {
  if (!field.has_default_value()) return "";
  if (field.enum_type() != nullptr) return absl::StrCat(" = ", field.default_value_enum()->name());
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return absl::StrCat(" = ", field.default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64: return absl::StrCat(" = ", field.default_value_int64());
    case FieldDescriptor::CPPTYPE_UINT64: return absl::StrCat(" = ", field.default_value_uint64());
    case FieldDescriptor::CPPTYPE_DOUBLE: return absl::StrCat(" = ", field.default_value_double());
    case FieldDescriptor::CPPTYPE_FLOAT: return absl::StrCat(" = ", field.default_value_float());
    case FieldDescriptor::CPPTYPE_BOOL: return field.default_value_bool() ? " = true" : " = false";
    case FieldDescriptor::CPPTYPE_STRING: return absl::StrCat(" = \"", field.default_value_string(), "\"");
    default: return "";
  }
}

// Each option with its type, default and comment; options of a documented
// message below the field that has it.
std::string OptionsText(const Descriptor& message, const std::string& indent) {
  std::string text;
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    absl::StrAppend(&text, indent, field.name(), ": ", TypeName(field), DefaultText(field), "\n", Indent(Comment(&field), indent + "    "));
    const Descriptor* nested = field.message_type();
    if (nested != nullptr && nested->name() != "Step" && !Comment(nested).empty()) text += OptionsText(*nested, indent + "    ");
  }
  return text;
}

absl::StatusOr<const MethodInfo*> FindMethod(const std::string& name) {
  const auto& methods = RegisteredMethods();
  if (const auto it = methods.find(name); it != methods.end()) return &it->second;
  std::vector<std::string> names;
  for (const auto& [known, info] : methods) names.push_back(known);
  return absl::NotFoundError(UnknownName("method", name, names));
}

}  // namespace

ProtoDocs::ProtoDocs(const unsigned char* descriptor_set, size_t size) { DocPool::Get().Add(descriptor_set, size); }

absl::StatusOr<std::string> DescribeMethod(const std::string& name) {
  NIBBLE_ASSIGN_OR_RETURN(const MethodInfo* info, FindMethod(name));
  const Descriptor* options = DocPool::Get().Options(*info);
  NIBBLE_CHECK(options != nullptr);
  std::string text = absl::StrCat(name, "\n\n", Indent(Comment(options), "  "), "\n  step { [nibble.", name, "] { ... } }\n\n");
  if (options->field_count() > 0) absl::StrAppend(&text, "options:\n", OptionsText(*options, "  "));
  return text;
}

std::string MethodSummary(const std::string& name) {
  const auto info = FindMethod(name);
  if (!info.ok()) return "";
  std::string text = Comment(DocPool::Get().Options(**info));
  for (char& c : text) c = c == '\n' ? ' ' : c;
  const size_t end = text.find(". ");
  return end == std::string::npos ? text : text.substr(0, end + 1);
}

}  // namespace nibble
