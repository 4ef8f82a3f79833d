#include "datasets/task.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "core/base/suggest.h"
#include "datasets/json_lines.h"
#include "core/base/regex.h"
#include "datasets/rows.h"
#include "datasets/template.h"
#include "datasets/whitespace.h"

namespace nibble::datasets {
namespace {

using Kind = TaskDescription::Kind;

// Fields that a description of any kind may set.
const std::set<std::string>& CommonFields() {
  static const auto* const kFields = new std::set<std::string>(
      {"name", "alias", "version", "follows", "base", "home", "url", "licence", "obtain", "kind", "format", "part", "derive", "category"});
  return *kFields;
}

struct KindFields {
  std::vector<std::string> needed, allowed;
};

KindFields FieldsOf(Kind kind) {
  const std::vector<std::string> gold = {"gold_index", "gold_label", "gold_text", "gold_first", "label"};
  const auto with = [](std::vector<std::string> fields, const std::vector<std::string>& more) {
    fields.insert(fields.end(), more.begin(), more.end());
    return fields;
  };
  const std::vector<std::string> examples = {"shots", "preamble", "shot_delimiter"};
  switch (kind) {
    case TaskDescription::TEXT: return {{}, {}};
    case TaskDescription::MULTIPLE_CHOICE: return {{"context", "choice"}, with(with({"delimiter", "start", "accuracy_norm"}, examples), gold)};
    case TaskDescription::PARTIAL: return {{"choice", "ending"}, with(with({"delimiter"}, examples), gold)};
    case TaskDescription::MINIMAL_PAIR: return {{"good", "bad"}, {"delimiter", "start"}};
    case TaskDescription::LAST_WORD: return {{"text"}, examples};
    case TaskDescription::EXACT_MATCH:
      return {{"context", "answer"}, with({"delimiter", "stop", "max_tokens", "filter", "ignore", "ignore_case"}, examples)};
    case TaskDescription::ROLLING: return {{"text"}, {"detokenizer"}};
  }
  return {};
}

absl::Status CheckFields(const TaskDescription& description) {
  const std::string kind = TaskDescription::Kind_Name(description.kind());
  const KindFields fields = FieldsOf(description.kind());
  std::set<std::string> known = CommonFields(), set;
  known.insert(fields.needed.begin(), fields.needed.end());
  known.insert(fields.allowed.begin(), fields.allowed.end());
  std::vector<const google::protobuf::FieldDescriptor*> listed;
  description.GetReflection()->ListFields(description, &listed);
  for (const auto* field : listed) {
    set.insert(field->name());
    if (known.count(field->name()) > 0) continue;
    return absl::InvalidArgumentError(absl::StrCat("kind ", kind, " has no use for ", field->name()));
  }
  for (const std::string& field : fields.needed) {
    if (set.count(field) == 0) return absl::InvalidArgumentError(absl::StrCat("kind ", kind, " needs ", field));
  }
  if (known.count("gold_index") == 0) return absl::OkStatus();
  const size_t golds = set.count("gold_index") + set.count("gold_label") + set.count("gold_text");
  if (golds != 1) return absl::InvalidArgumentError(absl::StrCat("kind ", kind, " needs one of gold_index, gold_label and gold_text"));
  if (set.count("label") != set.count("gold_label")) return absl::InvalidArgumentError("gold_label and label need each other");
  if (set.count("gold_first") > set.count("gold_index")) return absl::InvalidArgumentError("gold_first is of gold_index, which is not set");
  return absl::OkStatus();
}

absl::Status CheckParts(const TaskDescription& description) {
  std::set<std::string> names;
  for (const TaskDescription::Part& part : description.part()) {
    if (part.file().empty()) return absl::InvalidArgumentError("a part needs a file");
    if (description.part_size() > 1 && !names.insert(part.name()).second) {
      return absl::InvalidArgumentError(absl::StrCat("two parts are called '", part.name(), "'"));
    }
    for (const auto& column : part.column()) {
      if (column.name().empty()) return absl::InvalidArgumentError(absl::StrCat("part '", part.name(), "': a column needs a name"));
    }
  }
  if (description.part().empty()) return absl::InvalidArgumentError("needs a part { file: ... }");
  return absl::OkStatus();
}

absl::Status CheckNumbers(const TaskDescription& description) {
  if (description.shots() < 0) return absl::InvalidArgumentError(absl::StrCat("shots: ", description.shots(), " must be 0 or more"));
  if (description.max_tokens() < 1) return absl::InvalidArgumentError(absl::StrCat("max_tokens: ", description.max_tokens(), " must be 1 or more"));
  for (const std::string& stop : description.stop()) {
    if (stop.empty()) return absl::InvalidArgumentError("stop: an empty text would end every answer");
  }
  std::set<std::string> names;
  for (const auto& filter : description.filter()) {
    if (filter.has_regex() == filter.last_number()) {
      return absl::InvalidArgumentError(absl::StrCat("filter '", filter.name(), "' needs a regex or last_number: true, not both"));
    }
    if (!names.insert(filter.name()).second) return absl::InvalidArgumentError(absl::StrCat("two filters are called '", filter.name(), "'"));
    if (filter.has_regex()) NIBBLE_RETURN_IF_ERROR(Annotate(Regex::Compile(filter.regex()).status(), absl::StrCat("filter '", filter.name(), "'")));
  }
  for (const std::string& ignore : description.ignore()) NIBBLE_RETURN_IF_ERROR(Annotate(Regex::Compile(ignore).status(), "ignore"));
  return absl::OkStatus();
}

// A `derive` of a description, ready for use.
struct Derivation {
  Template from;
  Regex regex;

  absl::Status Apply(Row& row) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, from.Render(row));
    const auto matches = regex.FindAll(text);
    if (!matches.ok()) return Annotate(matches.status(), row.place);
    if (matches->empty()) return FieldError(row.place, from.name(), absl::StrCat("does not match regex '", regex.pattern(), "'"));
    for (const auto& [name, group] : regex.names()) row.columns[name] = std::string((*matches)[0][group]);
    return absl::OkStatus();
  }
};

int64_t CodePoints(absl::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

// Makes items of a description's rows.
class ItemMaker {
 public:
  static absl::StatusOr<ItemMaker> Create(const TaskDescription& description) {
    ItemMaker maker(description);
    for (const auto& [name, text] : maker.Texts()) {
      auto parsed = Template::Parse(*text);
      if (!parsed.ok()) return Annotate(parsed.status(), name);
      maker.templates_.emplace(name, *std::move(parsed));
    }
    NIBBLE_RETURN_IF_ERROR(ParseList("choice", description.choice(), &maker.choices_));
    NIBBLE_RETURN_IF_ERROR(ParseList("label", description.label(), &maker.labels_));
    for (const auto& derive : description.derive()) {
      auto from = Template::Parse(derive.from());
      if (!from.ok()) return Annotate(from.status(), "derive");
      auto regex = Regex::Compile(derive.regex());
      if (!regex.ok()) return Annotate(regex.status(), "derive");
      if (regex->names().empty()) return absl::InvalidArgumentError(absl::StrCat("derive: regex '", derive.regex(), "' names no group: (?<name>...)"));
      maker.derivations_.push_back({*std::move(from), *std::move(regex)});
    }
    return maker;
  }

  // Adds the part's and the derived columns to a row.
  absl::Status Complete(const TaskDescription::Part& part, Row& row) const {
    for (const auto& column : part.column()) {
      if (row.columns.contains(column.name())) {
        return FieldError(row.place, column.name(), absl::StrCat("is in the file and a column of part '", part.name(), "'"));
      }
      row.columns[column.name()] = column.value();
    }
    for (const Derivation& derivation : derivations_) NIBBLE_RETURN_IF_ERROR(derivation.Apply(row));
    return absl::OkStatus();
  }

  // Everything of an item but what comes before its context.
  absl::StatusOr<TaskItem> Make(const TaskDescription::Part& part, const Row& row) const {
    TaskItem item;
    item.place = row.place;
    item.category = part.category();
    if (!Get("category").empty()) {
      NIBBLE_ASSIGN_OR_RETURN(item.category, NotEmpty("category", row));
    }
    NIBBLE_RETURN_IF_ERROR(Fill(row, item));
    return item;
  }

  absl::StatusOr<std::string> Preamble(const Row& row) const { return Get("preamble").Render(row); }

  // An item as an example before others.
  std::string Shot(const TaskItem& item) const {
    const bool partial = description_.kind() == TaskDescription::PARTIAL;
    const std::string& context = item.context(partial ? item.gold : 0);
    const std::string ending = description_.kind() == TaskDescription::EXACT_MATCH ? absl::StrCat(description_.delimiter(), item.answer)
                                                                                 : item.continuations[partial ? 0 : item.gold];
    return absl::StrCat(context, ending, description_.shot_delimiter());
  }

 private:
  explicit ItemMaker(const TaskDescription& description) : description_(description) {}

  std::vector<std::pair<std::string, const std::string*>> Texts() const {
    const TaskDescription& d = description_;
    return {{"context", &d.context()},       {"ending", &d.ending()},         {"good", &d.good()},           {"bad", &d.bad()},
            {"text", &d.text()},             {"answer", &d.answer()},         {"category", &d.category()},   {"gold_index", &d.gold_index()},
            {"gold_label", &d.gold_label()}, {"gold_text", &d.gold_text()},   {"preamble", &d.preamble()}};
  }

  static absl::Status ParseList(const char* field, const google::protobuf::RepeatedPtrField<std::string>& texts, std::vector<Template>* list) {
    for (const std::string& text : texts) {
      auto parsed = Template::Parse(text);
      if (!parsed.ok()) return Annotate(parsed.status(), field);
      list->push_back(*std::move(parsed));
    }
    return absl::OkStatus();
  }

  const Template& Get(const std::string& field) const { return templates_.at(field); }

  absl::StatusOr<std::string> NotEmpty(const std::string& field, const Row& row) const {
    NIBBLE_ASSIGN_OR_RETURN(std::string text, Get(field).Render(row));
    if (StripWhitespace(text).empty()) return FieldError(row.place, Get(field).name(), "must not be empty");
    return text;
  }

  static absl::StatusOr<std::vector<std::string>> RenderAll(const std::vector<Template>& templates, const Row& row) {
    if (templates.size() == 1) return templates[0].RenderList(row);
    std::vector<std::string> texts;
    for (const Template& each : templates) {
      NIBBLE_ASSIGN_OR_RETURN(std::string text, each.Render(row));
      texts.push_back(std::move(text));
    }
    return texts;
  }

  absl::StatusOr<std::vector<std::string>> Choices(const Row& row) const {
    NIBBLE_ASSIGN_OR_RETURN(std::vector<std::string> choices, RenderAll(choices_, row));
    if (choices.size() < 2) {
      return FieldError(row.place, choices_[0].name(), absl::StrCat("must be a list of two or more choices, not of ", choices.size()));
    }
    for (size_t c = 0; c < choices.size(); ++c) {
      if (!choices[c].empty()) continue;
      const std::string name = choices_.size() == 1 ? absl::StrCat(choices_[0].name(), "[", c, "]") : choices_[c].name();
      return FieldError(row.place, name, "must not be empty");
    }
    return choices;
  }

  absl::StatusOr<int> Gold(const Row& row, const std::vector<std::string>& choices) const {
    if (description_.has_gold_index()) return GoldIndex(row, choices.size());
    const bool by_label = description_.has_gold_label();
    const Template& gold = Get(by_label ? "gold_label" : "gold_text");
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, gold.Render(row));
    std::vector<std::string> names = choices;
    if (by_label) {
      NIBBLE_ASSIGN_OR_RETURN(names, RenderAll(labels_, row));
      if (names.size() != choices.size()) {
        return FieldError(row.place, labels_[0].name(), absl::StrCat("gives ", names.size(), " labels to ", choices.size(), " choices"));
      }
    }
    const int64_t matches = std::count(names.begin(), names.end(), text);
    if (matches != 1) {
      return FieldError(row.place, gold.name(), absl::StrCat("is '", text, "', ", matches == 0 ? "none" : "several", " of ", absl::StrJoin(names, ", ")));
    }
    return static_cast<int>(std::find(names.begin(), names.end(), text) - names.begin());
  }

  absl::StatusOr<int> GoldIndex(const Row& row, size_t choices) const {
    const Template& gold = Get("gold_index");
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, gold.Render(row));
    const int first = description_.gold_first();
    int index = 0;
    if (!absl::SimpleAtoi(text, &index)) return FieldError(row.place, gold.name(), absl::StrCat("must be an integer, not '", text, "'"));
    if (index >= first && index - first < static_cast<int64_t>(choices)) return index - first;
    return FieldError(row.place, gold.name(), absl::StrCat("is ", index, "; there are ", choices, " choices, counted from ", first));
  }

  absl::Status Fill(const Row& row, TaskItem& item) const {
    switch (description_.kind()) {
      case TaskDescription::MULTIPLE_CHOICE: return FillChoices(row, item);
      case TaskDescription::PARTIAL: return FillPartial(row, item);
      case TaskDescription::MINIMAL_PAIR: return FillPair(row, item);
      case TaskDescription::LAST_WORD: return FillLastWord(row, item);
      case TaskDescription::EXACT_MATCH: return FillAnswer(row, item);
      case TaskDescription::ROLLING: return FillPage(row, item);
      case TaskDescription::TEXT: break;
    }
    return absl::InvalidArgumentError("kind TEXT has no items; it is for perplexity, divergence, calibration and training");
  }

  absl::Status FillChoices(const Row& row, TaskItem& item) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::string context, Get("context").Render(row));
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> choices, Choices(row));
    NIBBLE_ASSIGN_OR_RETURN(item.gold, Gold(row, choices));
    item.contexts = {context};
    for (const std::string& choice : choices) {
      item.continuations.push_back(absl::StrCat(description_.delimiter(), choice));
      item.characters.push_back(CodePoints(choice));
    }
    return absl::OkStatus();
  }

  absl::Status FillPartial(const Row& row, TaskItem& item) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::string ending, NotEmpty("ending", row));
    NIBBLE_ASSIGN_OR_RETURN(item.contexts, Choices(row));
    NIBBLE_ASSIGN_OR_RETURN(item.gold, Gold(row, item.contexts));
    item.continuations.assign(item.contexts.size(), absl::StrCat(description_.delimiter(), ending));
    return absl::OkStatus();
  }

  absl::Status FillPair(const Row& row, TaskItem& item) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::string good, NotEmpty("good", row));
    NIBBLE_ASSIGN_OR_RETURN(const std::string bad, NotEmpty("bad", row));
    item.contexts = {""};
    item.continuations = {absl::StrCat(description_.delimiter(), good), absl::StrCat(description_.delimiter(), bad)};
    return absl::OkStatus();
  }

  absl::Status FillLastWord(const Row& row, TaskItem& item) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, NotEmpty("text", row));
    const size_t space = text.rfind(' ');
    if (space == std::string::npos || StripWhitespace(absl::string_view(text).substr(0, space)).empty()) {
      return FieldError(row.place, Get("text").name(), "must have two words or more");
    }
    if (space + 1 == text.size()) return FieldError(row.place, Get("text").name(), "ends with a space, so it has no last word");
    item.contexts = {text.substr(0, space)};
    item.continuations = {text.substr(space)};
    return absl::OkStatus();
  }

  absl::Status FillAnswer(const Row& row, TaskItem& item) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::string context, NotEmpty("context", row));
    NIBBLE_ASSIGN_OR_RETURN(item.answer, NotEmpty("answer", row));
    item.contexts = {context};
    return absl::OkStatus();
  }

  absl::Status FillPage(const Row& row, TaskItem& item) const {
    NIBBLE_ASSIGN_OR_RETURN(const std::string text, NotEmpty("text", row));
    item.words = CountWords(text);
    item.bytes = static_cast<int64_t>(text.size());
    item.contexts = {""};
    item.continuations = {description_.detokenizer() == TaskDescription::WIKITEXT ? DetokenizeWikitext(text) : text};
    return absl::OkStatus();
  }

  const TaskDescription& description_;
  std::map<std::string, Template> templates_;
  std::vector<Template> choices_, labels_;
  std::vector<Derivation> derivations_;
};

// Reads the parts of a task one by one.
class TaskReader {
 public:
  TaskReader(const TaskOptions& options, const ItemMaker& maker, Task& task) : options_(options), maker_(maker), task_(task) {}

  absl::Status ReadPart(const TaskDescription::Part& part, const ResolvedTask::Files& files) {
    NIBBLE_ASSIGN_OR_RETURN(std::vector<Row> rows, ReadRows(files.items, task_.description.format()));
    const size_t items = options_.limit > 0 ? std::min<size_t>(options_.limit, rows.size()) : rows.size();
    NIBBLE_ASSIGN_OR_RETURN(const std::vector<std::string> shots, Shots(part, files, rows));
    for (size_t i = 0; i < items; ++i) {
      NIBBLE_RETURN_IF_ERROR(maker_.Complete(part, rows[i]));
      NIBBLE_ASSIGN_OR_RETURN(TaskItem item, maker_.Make(part, rows[i]));
      NIBBLE_ASSIGN_OR_RETURN(std::string preamble, maker_.Preamble(rows[i]));
      int left = task_.shots;
      for (size_t s = 0; left > 0; ++s) {
        if (files.shots.empty() && s == i) continue;  // an item is no example of itself
        preamble += shots[s];
        --left;
      }
      item.preamble = PreambleIndex(preamble);
      task_.items.push_back(std::move(item));
    }
    task_.part_ends.push_back(task_.items.size());
    return absl::OkStatus();
  }

 private:
  // The texts of the part's examples, one more than asked for where they are items themselves.
  absl::StatusOr<std::vector<std::string>> Shots(const TaskDescription::Part& part, const ResolvedTask::Files& files, const std::vector<Row>& items) const {
    std::vector<std::string> shots;
    if (task_.shots == 0) return shots;
    const bool own_file = !files.shots.empty();
    std::vector<Row> rows = items;
    if (own_file) {
      NIBBLE_ASSIGN_OR_RETURN(rows, ReadRows(files.shots, task_.description.format()));
    }
    const size_t needed = static_cast<size_t>(task_.shots) + (own_file ? 0 : 1);
    if (rows.size() < needed) {
      return absl::InvalidArgumentError(absl::StrCat(own_file ? files.shots : files.items, " has ", rows.size(), " rows; ", task_.shots,
                                                     " examples before each item need ", needed));
    }
    for (size_t i = 0; i < needed; ++i) {
      NIBBLE_RETURN_IF_ERROR(maker_.Complete(part, rows[i]));
      NIBBLE_ASSIGN_OR_RETURN(const TaskItem item, maker_.Make(part, rows[i]));
      shots.push_back(maker_.Shot(item));
    }
    return shots;
  }

  size_t PreambleIndex(const std::string& preamble) {
    const auto [at, is_new] = preambles_.emplace(preamble, task_.preambles.size());
    if (is_new) task_.preambles.push_back(preamble);
    return at->second;
  }

  const TaskOptions& options_;
  const ItemMaker& maker_;
  Task& task_;
  std::map<std::string, size_t> preambles_;
};

}  // namespace

absl::Status CheckDescription(const TaskDescription& description) {
  if (description.name().empty()) return absl::InvalidArgumentError("needs a name");
  const auto check = [&]() -> absl::Status {
    if (description.version().empty()) {
      return absl::InvalidArgumentError("needs a version, which rises with anything that can move a score: version: \"1\"");
    }
    if (!description.has_kind()) return absl::InvalidArgumentError("needs a kind: MULTIPLE_CHOICE, PARTIAL, MINIMAL_PAIR, LAST_WORD, EXACT_MATCH or ROLLING");
    NIBBLE_RETURN_IF_ERROR(CheckFields(description));
    NIBBLE_RETURN_IF_ERROR(CheckParts(description));
    NIBBLE_RETURN_IF_ERROR(CheckNumbers(description));
    return ItemMaker::Create(description).status();
  };
  return Annotate(check(), absl::StrCat("task '", description.name(), "'"));
}

absl::StatusOr<Task> ReadTask(const ResolvedTask& resolved, const TaskOptions& options) {
  const TaskDescription& description = resolved.description;
  NIBBLE_RETURN_IF_ERROR(CheckDescription(description));
  Task task;
  task.label = description.name();
  task.description = description;
  task.shots = options.shots < 0 ? description.shots() : options.shots;
  const std::vector<std::string> allowed = FieldsOf(description.kind()).allowed;
  if (task.shots > 0 && std::find(allowed.begin(), allowed.end(), "shots") == allowed.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("task '", task.label, "': kind ", TaskDescription::Kind_Name(description.kind()), " takes no examples (shots: ", task.shots, ")"));
  }
  NIBBLE_ASSIGN_OR_RETURN(const ItemMaker maker, ItemMaker::Create(task.description));
  TaskReader reader(options, maker, task);
  for (int p = 0; p < description.part_size(); ++p) {
    NIBBLE_RETURN_IF_ERROR(Annotate(reader.ReadPart(description.part(p), resolved.parts[p]), absl::StrCat("task '", task.label, "'")));
  }
  return task;
}

std::vector<std::string> Categories(const Task& task) {
  std::vector<std::string> categories;
  for (const TaskItem& item : task.items) {
    if (!item.category.empty() && std::find(categories.begin(), categories.end(), item.category) == categories.end()) {
      categories.push_back(item.category);
    }
  }
  return categories.size() > 1 ? categories : std::vector<std::string>();
}

}  // namespace nibble::datasets
