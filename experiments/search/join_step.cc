#include "experiments/search/join_step.h"

#include <memory>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "google/protobuf/text_format.h"

namespace nibble {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

std::vector<const FieldDescriptor*> FieldsOf(const Message& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  return fields;
}

std::unique_ptr<Message> CopyOf(const Message& message) {
  std::unique_ptr<Message> copy(message.New());
  copy->CopyFrom(message);
  return copy;
}

// Null where the options have no such list.
const FieldDescriptor* OtherSchemes(const Message& options) {
  const FieldDescriptor* field = options.GetDescriptor()->FindFieldByName("other");
  return field != nullptr && field->is_repeated() ? field : nullptr;
}

// The fields of `options` that `type` has too, or those that it has not.
std::unique_ptr<Message> PartOf(const Message& options, const Message& type, bool shared) {
  std::unique_ptr<Message> part = CopyOf(options);
  for (const FieldDescriptor* field : FieldsOf(options)) {
    const bool has = type.GetDescriptor()->FindFieldByName(field->name()) != nullptr;
    if (has != shared) part->GetReflection()->ClearField(part.get(), field);
  }
  return part;
}

}  // namespace

bool JoinStep(const Step& next, Step* step) {
  const std::vector<const FieldDescriptor*> method = FieldsOf(*step);
  if (method.size() != 1 || FieldsOf(next) != method) return false;
  Message* options = step->GetReflection()->MutableMessage(step, method[0]);
  const Message& added = next.GetReflection()->GetMessage(next, method[0]);
  const FieldDescriptor* other = OtherSchemes(*options);
  if (other == nullptr || added.GetReflection()->FieldSize(added, other) > 0) return false;
  std::unique_ptr<Message> first = CopyOf(*options);
  first->GetReflection()->ClearField(first.get(), other);
  const std::unique_ptr<Message> scheme(options->GetReflection()->GetMessageFactory()->GetPrototype(other->message_type())->New());
  const std::string rest = PartOf(*first, *scheme, false)->SerializeAsString();
  if (PartOf(added, *scheme, false)->SerializeAsString() != rest) return false;
  // Fields of two types meet by their names.
  std::string text;
  NIBBLE_CHECK(TextFormat::PrintToString(*PartOf(added, *scheme, true), &text) && TextFormat::ParseFromString(text, scheme.get()));
  options->GetReflection()->AddMessage(options, other)->CopyFrom(*scheme);
  return true;
}

}  // namespace nibble
