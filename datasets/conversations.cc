#include "datasets/conversations.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/base/status.h"
#include "datasets/json_lines.h"

namespace nibble::datasets {
namespace {

absl::StatusOr<std::string> TextField(const nlohmann::json& object, const char* name, absl::string_view place) {
  NIBBLE_ASSIGN_OR_RETURN(std::string text, StringField(object, name, place));
  if (text.empty()) return FieldError(place, name, "must not be empty");
  return text;
}

absl::StatusOr<Conversation> ParseMessages(const nlohmann::json& messages, const std::string& place) {
  if (!messages.is_array() || messages.empty()) return FieldError(place, "messages", "must be a list of objects with role and content");
  Conversation conversation;
  for (const nlohmann::json& entry : messages) {
    const std::string where = absl::StrCat(place, ": messages[", conversation.messages.size(), "]");
    if (!entry.is_object()) return absl::InvalidArgumentError(absl::StrCat(where, ": not a JSON object"));
    Message message;
    NIBBLE_ASSIGN_OR_RETURN(message.role, TextField(entry, "role", where));
    NIBBLE_ASSIGN_OR_RETURN(message.content, StringField(entry, "content", where));
    conversation.messages.push_back(std::move(message));
  }
  const auto& all = conversation.messages;
  if (std::any_of(all.begin(), all.end(), [](const Message& m) { return m.role == "assistant"; })) return conversation;
  return FieldError(place, "messages", "has none of role 'assistant', so there is nothing to learn");
}

absl::StatusOr<Conversation> ParseConversation(const nlohmann::json& object, const std::string& place) {
  const auto messages = object.find("messages");
  if (messages != object.end()) return ParseMessages(*messages, place);
  if (object.find("prompt") == object.end()) return FieldError(place, "messages", "is missing (or prompt and completion)");
  Conversation conversation;
  NIBBLE_ASSIGN_OR_RETURN(const std::string prompt, StringField(object, "prompt", place));
  NIBBLE_ASSIGN_OR_RETURN(const std::string completion, TextField(object, "completion", place));
  conversation.messages = {{"user", prompt}, {"assistant", completion}};
  return conversation;
}

absl::StatusOr<Preference> ParsePreference(const nlohmann::json& object, const std::string& place) {
  Preference preference;
  if (object.find("sentence_good") != object.end()) {
    NIBBLE_ASSIGN_OR_RETURN(preference.chosen, TextField(object, "sentence_good", place));
    NIBBLE_ASSIGN_OR_RETURN(preference.rejected, TextField(object, "sentence_bad", place));
    return preference;
  }
  NIBBLE_ASSIGN_OR_RETURN(preference.prompt, StringField(object, "prompt", place));
  NIBBLE_ASSIGN_OR_RETURN(preference.chosen, TextField(object, "chosen", place));
  NIBBLE_ASSIGN_OR_RETURN(preference.rejected, TextField(object, "rejected", place));
  return preference;
}

}  // namespace

absl::StatusOr<std::vector<Conversation>> ReadConversations(const std::string& path) {
  std::vector<Conversation> conversations;
  NIBBLE_RETURN_IF_ERROR(ForJsonLines(path, [&](const nlohmann::json& object, const std::string& place) -> absl::Status {
    NIBBLE_ASSIGN_OR_RETURN(Conversation conversation, ParseConversation(object, place));
    conversations.push_back(std::move(conversation));
    return absl::OkStatus();
  }));
  return conversations;
}

absl::StatusOr<std::vector<Preference>> ReadPreferences(const std::string& path) {
  std::vector<Preference> preferences;
  NIBBLE_RETURN_IF_ERROR(ForJsonLines(path, [&](const nlohmann::json& object, const std::string& place) -> absl::Status {
    NIBBLE_ASSIGN_OR_RETURN(Preference preference, ParsePreference(object, place));
    preferences.push_back(std::move(preference));
    return absl::OkStatus();
  }));
  return preferences;
}

}  // namespace nibble::datasets
