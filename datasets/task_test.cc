#include "datasets/task.h"

#include <cmath>
#include <cstdlib>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/file.h"
#include "core/base/proto.h"
#include "core/base/testing.h"
#include "datasets/rows.h"
#include "datasets/template.h"
#include "datasets/whitespace.h"
#include "google/protobuf/text_format.h"

namespace nibble::datasets {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

template <typename T>
std::string Message(const T& result) {
  return std::string(ToStatus(result).message());
}

// A file of the running test. The folder is emptied once a test.
std::string Write(const std::string& name, absl::string_view contents) {
  static const ::testing::TestInfo* last = nullptr;
  static std::string folder;
  const auto* now = ::testing::UnitTest::GetInstance()->current_test_info();
  if (now != last) folder = TestTempDir();
  last = now;
  const std::string path = absl::StrCat(folder, "/", name);
  EXPECT_OK(WriteFile(path, contents));
  return path;
}

TaskDescription Describe(const std::string& fields) {
  TaskDescription description;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString("name: 't' version: '1' " + fields, &description)) << fields;
  return description;
}

// The items of a description whose part is one file with these contents.
absl::StatusOr<Task> Read(const std::string& fields, absl::string_view contents, const TaskOptions& options = {}, const std::string& shots = "",
                          const std::string& file = "items.jsonl") {
  const std::string path = Write(file, contents);
  std::string part = absl::StrCat("part { file: '", path, "' ");
  if (!shots.empty()) absl::StrAppend(&part, "shots_file: '", Write("shots.jsonl", shots), "' ");
  NIBBLE_ASSIGN_OR_RETURN(const ResolvedTask resolved, ResolveFiles(Describe(absl::StrCat(fields, " ", part, "}")), "", "."));
  return ReadTask(resolved, options);
}

constexpr char kChoices[] = "kind: MULTIPLE_CHOICE context: '{query}' choice: '{choices}' gold_index: '{gold}'";

TEST(Whitespace, IsPythons) {
  EXPECT_EQ(StripWhitespace("\u00a0 \x1f\u3000a b\n\t"), "a b");
  EXPECT_EQ(StripTrailingWhitespace(" a\u2003 "), " a");
  EXPECT_EQ(StripLeadingWhitespace("\u200b a"), "\u200b a");  // a zero-width space is none
  EXPECT_EQ(CountWords(" a  b\n"), 4);                        // ['', 'a', 'b', '']
  EXPECT_EQ(CountWords("a"), 1);
  EXPECT_EQ(CountWords(""), 1);
  EXPECT_EQ(CountWords("\u00a0"), 2);
}

std::vector<std::string> Column(const std::vector<Row>& rows, const char* column) {
  std::vector<std::string> values;
  for (const Row& row : rows) values.push_back(row.columns[column].get<std::string>());
  return values;
}

TEST(ReadRows, Csv) {
  const std::string path = Write("a.csv", "q,\"the, answer\"\r\n\"say \"\"hi\"\"\nto all\",1\r\n\nplain, 2\n,\"\"\nlast,4");
  ASSERT_OK_AND_ASSIGN(const auto rows, ReadRows(path, TaskDescription::AUTO));
  EXPECT_THAT(Column(rows, "q"), ElementsAre("say \"hi\"\nto all", "plain", "", "last"));
  EXPECT_THAT(Column(rows, "the, answer"), ElementsAre("1", " 2", "", "4"));
  EXPECT_THAT(rows[1].place, EndsWith("a.csv:5"));
  const auto error = [](absl::string_view text) { return Message(ReadRows(Write("b.csv", text), TaskDescription::AUTO)); };
  EXPECT_THAT(error("a,b\n1,2\n1\n"), HasSubstr("b.csv:3: 1 fields; the header has 2 (a, b)"));
  EXPECT_THAT(error("a,b\n\"x\ny,2\n"), HasSubstr("b.csv:2: a quote is not closed"));
  EXPECT_THAT(error("a,b\n\"x\"y,2\n"), HasSubstr("b.csv:2: text after a field's closing quote"));
  EXPECT_THAT(error("a,a\n"), HasSubstr("b.csv:1: two columns of the header are called 'a'"));
  EXPECT_THAT(error("a,\n"), HasSubstr("b.csv:1: column 2 of the header has no name"));
  EXPECT_THAT(error("a,b\n1,2\n3,\xff\n"), HasSubstr("b.csv:3: not UTF-8 text: byte 10 of the file starts no character"));
  EXPECT_THAT(error("a,b\n"), HasSubstr("b.csv holds no items"));
  EXPECT_THAT(error(""), HasSubstr("b.csv holds no items"));
}

TEST(ReadRows, JsonLines) {
  ASSERT_OK_AND_ASSIGN(const auto rows, ReadRows(Write("a.jsonl", "{\"a\": \"x\"}\r\n\n{\"a\": \"y\"}"), TaskDescription::AUTO));
  EXPECT_THAT(Column(rows, "a"), ElementsAre("x", "y"));
  EXPECT_THAT(rows[1].place, EndsWith("a.jsonl:3"));
  const auto error = [](absl::string_view text) { return Message(ReadRows(Write("b.jsonl", text), TaskDescription::AUTO)); };
  EXPECT_THAT(error("\n{\"a\": "), HasSubstr("b.jsonl:2: not valid JSON"));
  EXPECT_THAT(error("{}\n{\"a\": \"\xff\"}"), AllOf(HasSubstr("b.jsonl:2: not valid JSON"), HasSubstr("UTF-8")));
  EXPECT_THAT(error("[]"), HasSubstr("b.jsonl:1: not a JSON object"));
  EXPECT_THAT(error("\n"), HasSubstr("holds no items"));
  EXPECT_THAT(Message(ReadRows("/no/such.jsonl", TaskDescription::AUTO)), HasSubstr("/no/such.jsonl"));
  EXPECT_THAT(Message(ReadRows("items.parquet", TaskDescription::AUTO)), HasSubstr("items.parquet: items are read from .jsonl, .csv"));
}

TEST(ReadRows, HellaSwag) {
  ASSERT_OK_AND_ASSIGN(const auto rows, ReadRows(Write("h.txt", "Act: ctx\n2\na\nb\nc\nd\nB: e\n0\nf\ng\nh\ni\n"), TaskDescription::AUTO));
  EXPECT_THAT(Column(rows, "query"), ElementsAre("Act: ctx", "B: e"));
  EXPECT_EQ(rows[0].columns["gold"], 2);
  EXPECT_EQ(rows[1].columns["choices"][3], "i");
  EXPECT_THAT(rows[1].place, EndsWith("h.txt:7"));
  const auto error = [](absl::string_view text) { return Message(ReadRows(Write("h.txt", text), TaskDescription::AUTO)); };
  EXPECT_THAT(error("c\n0\na\nb\nc\n"), HasSubstr("h.txt: 5 lines, not a multiple of 6"));
  EXPECT_THAT(error("c\nx\na\nb\nc\nd\n"), HasSubstr("h.txt:2: field 'gold' must be an index, not 'x'"));
  EXPECT_THAT(error("c\n0\na\n\nc\nd\n"), HasSubstr("h.txt:4: an empty ending"));
  EXPECT_THAT(error("c\n0\na\n\xe9\nc\nd\n"), HasSubstr("h.txt:4: not UTF-8"));
  EXPECT_THAT(error(""), HasSubstr("holds no items"));
}

TEST(ReadRows, WikitextPages) {
  const std::string text = " \n = One = \n \n First . \n = = Part = = \n \n Second . \n = Two = \n \n Third = x = .\n";
  ASSERT_OK_AND_ASSIGN(const auto rows, ReadRows(Write("w.raw", text), TaskDescription::WIKITEXT_PAGES));
  EXPECT_THAT(Column(rows, "page"),
              ElementsAre(" = One = \n \n First . \n = = Part = = \n \n Second . ", " = Two = \n \n Third = x = .\n"));
  EXPECT_THAT(rows[0].place, EndsWith("w.raw:2"));
  EXPECT_THAT(rows[1].place, EndsWith("w.raw:8"));
  ASSERT_OK_AND_ASSIGN(const auto early, ReadRows(Write("w.raw", "before\n = A = "), TaskDescription::WIKITEXT_PAGES));
  EXPECT_THAT(Column(early, "page"), ElementsAre("before", " = A = "));
  EXPECT_THAT(Message(ReadRows(Write("w.raw", " \n\n"), TaskDescription::WIKITEXT_PAGES)), HasSubstr("holds no items"));
}

TEST(Template, RendersColumns) {
  const Row row{nlohmann::json::parse(R"({"q": "why?", "n": 3, "x": 0.5, "b": true, "list": ["a", {"t": "deep"}], "none": null})"), "f:7"};
  const auto render = [&](const char* text) -> std::string {
    const auto parsed = Template::Parse(text);
    if (!parsed.ok()) return Message(parsed);
    const auto rendered = parsed->Render(row);
    return rendered.ok() ? *rendered : Message(rendered);
  };
  EXPECT_EQ(render("Q: {q} {{n}}={n}, {x}, {b}\nA:"), "Q: why? {n}=3, 0.5, true\nA:");
  EXPECT_EQ(render("{list[0]}{list[1].t}"), "adeep");
  EXPECT_EQ(render(""), "");
  EXPECT_EQ(render("{who}"), "f:7: field 'who' is missing");
  EXPECT_EQ(render("{list[2]}"), "f:7: field 'list[2]' is missing");
  EXPECT_EQ(render("{list}"), "f:7: field 'list' is a list; an element of it is {list[0]}");
  EXPECT_EQ(render("{list[1]}"), "f:7: field 'list[1]' is an object; a field of it is {list[1].name}");
  EXPECT_EQ(render("{none}"), "f:7: field 'none' is null");
  EXPECT_EQ(render("{q"), "'{q' has a { without its }; {{ stands for the brace");
  EXPECT_EQ(render("q}"), "'q}' has a } without its {; }} stands for the brace");
  EXPECT_EQ(render("{}"), "'{}' names no column");
  EXPECT_EQ(render("{a.}"), "'{a.}' names no column");
  EXPECT_EQ(render("{a[x]}"), "'{a[x]}': an element is written {name[0]}");
}

TEST(Detokenize, Wikitext) {
  EXPECT_EQ(DetokenizeWikitext(" = Two = \n \n = = Sub = = \n"), " = Two =\n\n== Sub ==\n");
  EXPECT_EQ(DetokenizeWikitext("the 1 @,@ 234 @.@ 5 @-@ mile race , or so ; it was : good ! ? no . "), "the 1,234.5-mile race, or so; it was: good!? no. ");
  EXPECT_EQ(DetokenizeWikitext("he ( that is , Bob ) said \" yes \" and [ sic ] { x } ( )"), "he (that is, Bob) said \"yes\" and [sic] {x} ()");
  EXPECT_EQ(DetokenizeWikitext("the boys ' dog 's N times at 5 \u00b0 C \" open"), "the boys'dog's 1 times at 5\u00b0C \" open");
  EXPECT_EQ(DetokenizeWikitext("/' 5/"), "/'[0-9]/");
}

TEST(ReadTask, MultipleChoice) {
  ASSERT_OK_AND_ASSIGN(const Task task, Read(kChoices, R"({"query": "Q", "choices": ["a", "né"], "gold": 1, "id": 7})"
                                                       "\n"
                                                       R"({"query": "", "choices": ["x", "y", "z"], "gold": 0})"));
  ASSERT_EQ(task.items.size(), 2);
  EXPECT_EQ(task.label, "t");
  EXPECT_EQ(task.items[0].context(1), "Q");
  EXPECT_THAT(task.items[0].continuations, ElementsAre(" a", " né"));
  EXPECT_THAT(task.items[0].characters, ElementsAre(1, 2));
  EXPECT_EQ(task.items[0].gold, 1);
  EXPECT_EQ(task.items[1].continuations.size(), 3);
  EXPECT_THAT(task.preambles, ElementsAre(""));
  EXPECT_THAT(task.part_ends, ElementsAre(2));
  EXPECT_TRUE(Categories(task).empty());
}

TEST(ReadTask, MistakesInItemsNameLineAndColumn) {
  const auto error = [](absl::string_view line) { return Message(Read(kChoices, absl::StrCat("\n", line, "\n"))); };
  EXPECT_THAT(error(R"({"choices": ["a", "b"], "gold": 0})"), HasSubstr("items.jsonl:2: field 'query' is missing"));
  EXPECT_THAT(error(R"({"query": ["q"], "choices": ["a", "b"], "gold": 0})"), HasSubstr("'query' is a list"));
  EXPECT_THAT(error(R"({"query": "q", "gold": 0})"), HasSubstr("'choices' is missing"));
  EXPECT_THAT(error(R"({"query": "q", "choices": ["a"], "gold": 0})"), HasSubstr("'choices' must be a list of two or more choices, not of 1"));
  EXPECT_THAT(error(R"({"query": "q", "choices": "a", "gold": 0})"), HasSubstr("'choices' must be a list"));
  EXPECT_THAT(error(R"({"query": "q", "choices": ["a", ""], "gold": 0})"), HasSubstr("'choices[1]' must not be empty"));
  EXPECT_THAT(error(R"({"query": "q", "choices": ["a", null], "gold": 0})"), HasSubstr("'choices[1]' is null"));
  EXPECT_THAT(error(R"({"query": "q", "choices": ["a", "b"]})"), HasSubstr("'gold' is missing"));
  EXPECT_THAT(error(R"({"query": "q", "choices": ["a", "b"], "gold": "one"})"), HasSubstr("'gold' must be an integer, not 'one'"));
  EXPECT_THAT(error(R"({"query": "q", "choices": ["a", "b"], "gold": 2})"), HasSubstr("'gold' is 2; there are 2 choices, counted from 0"));
  EXPECT_THAT(error(R"({"query": "q", "choices": ["a", "b"], "gold": -1})"), HasSubstr("'gold' is -1"));
}

TEST(ReadTask, GoldByLabelTextAndCountsFromOne) {
  const std::string choices = "kind: MULTIPLE_CHOICE context: 'Q: {q}' choice: '{o.text}' ";
  const std::string row = R"({"q": "?", "o": {"text": ["x", "y"], "label": ["A", "B"]}, "key": "B", "right": "y", "number": "2"})";
  for (const char* gold : {"gold_label: '{key}' label: '{o.label}'", "gold_label: '{key}' label: 'A' label: 'B'", "gold_text: '{right}'",
                           "gold_index: '{number}' gold_first: 1"}) {
    ASSERT_OK_AND_ASSIGN(const Task task, Read(choices + gold, row));
    EXPECT_EQ(task.items[0].gold, 1) << gold;
  }
  EXPECT_THAT(Message(Read(choices + "gold_label: '{q}' label: '{o.label}'", row)), HasSubstr("items.jsonl:1: field 'q' is '?', none of A, B"));
  EXPECT_THAT(Message(Read(choices + "gold_label: '{key}' label: 'B' label: 'B'", row)), HasSubstr("is 'B', several of B, B"));
  EXPECT_THAT(Message(Read(choices + "gold_label: '{key}' label: 'A' label: 'B' label: 'C'", row)), HasSubstr("gives 3 labels to 2 choices"));
  EXPECT_THAT(Message(Read(choices + "gold_index: '{number}'", row)), HasSubstr("'number' is 2; there are 2 choices"));
}

TEST(ReadTask, PartialPutsChoicesBeforeTheEnding) {
  const std::string fields = "kind: PARTIAL derive { from: '{sentence}' regex: '^(?<head>[^_]*)_(?<tail>.*)$' } "
                             "choice: '{head}{option1}' choice: '{head}{option2}' delimiter: '' ending: '{tail}' gold_index: '{answer}' gold_first: 1";
  ASSERT_OK_AND_ASSIGN(const Task task, Read(fields, R"({"sentence": "Ann saw _ run.", "option1": "Bob", "option2": "Eve", "answer": "2"})"));
  EXPECT_THAT(task.items[0].contexts, ElementsAre("Ann saw Bob", "Ann saw Eve"));
  EXPECT_THAT(task.items[0].continuations, ElementsAre(" run.", " run."));
  EXPECT_EQ(task.items[0].gold, 1);
  EXPECT_THAT(Message(Read(fields, R"({"sentence": "no blank", "option1": "Bob", "option2": "Eve", "answer": "2"})")),
              HasSubstr("items.jsonl:1: field 'sentence' does not match regex"));
}

TEST(ReadTask, MinimalPairLastWordAndAnswer) {
  ASSERT_OK_AND_ASSIGN(const Task pair, Read("kind: MINIMAL_PAIR good: '{good}' bad: '{bad}' delimiter: ''", R"({"good": "He is.", "bad": "He are."})"));
  EXPECT_THAT(pair.items[0].continuations, ElementsAre("He is.", "He are."));
  EXPECT_EQ(pair.items[0].context(1), "");
  EXPECT_THAT(Message(Read("kind: MINIMAL_PAIR good: '{good}' bad: '{bad}'", R"({"good": "x", "bad": " "})")), HasSubstr("'bad' must not be empty"));

  const char* last_word = "kind: LAST_WORD text: '{text}'";
  ASSERT_OK_AND_ASSIGN(const Task word, Read(last_word, R"({"text": "a  long\nstory ends"})"));
  EXPECT_EQ(word.items[0].context(0), "a  long\nstory");
  EXPECT_THAT(word.items[0].continuations, ElementsAre(" ends"));
  EXPECT_THAT(Message(Read(last_word, R"({"text": "word"})")), HasSubstr("items.jsonl:1: field 'text' must have two words or more"));
  EXPECT_THAT(Message(Read(last_word, R"({"text": "two words "})")), HasSubstr("ends with a space"));

  const char* answer = "kind: EXACT_MATCH context: 'Q: {q}\\nA:' answer: '{a}'";
  ASSERT_OK_AND_ASSIGN(const Task question, Read(answer, R"({"q": "1+1", "a": 2})"));
  EXPECT_EQ(question.items[0].context(0), "Q: 1+1\nA:");
  EXPECT_EQ(question.items[0].answer, "2");
  EXPECT_THAT(Message(Read(answer, R"({"q": "1+1", "a": ""})")), HasSubstr("'a' must not be empty"));
}

TEST(ReadTask, RollingCountsWordsAndBytesOfTheTextAsItStands) {
  ASSERT_OK_AND_ASSIGN(const Task task, Read("kind: ROLLING format: WIKITEXT_PAGES text: '{page}' detokenizer: WIKITEXT",
                                             " = A = \n \n Caf\u00e9 , twice . \n = B = \n \n x \n", {}, "", "w.raw"));
  ASSERT_EQ(task.items.size(), 2);
  EXPECT_THAT(task.items[0].continuations, ElementsAre(" = A =\n\nCaf\u00e9, twice. "));
  EXPECT_EQ(task.items[0].words, 9);  // '', =, A, =, Café, ',', twice, ., ''
  EXPECT_EQ(task.items[0].bytes, 27);
}

TEST(ReadTask, ShotsFromAFile) {
  const std::string fields = std::string(kChoices) + " preamble: 'About {topic}.\\n\\n' shots: 1";
  const std::string shots = "{\"query\": \"s1\", \"choices\": [\"a\", \"b\"], \"gold\": 1}\n{\"query\": \"s2\", \"choices\": [\"c\", \"d\"], \"gold\": 0}\n";
  const std::string items = "{\"topic\": \"x\", \"query\": \"q\", \"choices\": [\"e\", \"f\"], \"gold\": 0}\n"
                            "{\"topic\": \"x\", \"query\": \"r\", \"choices\": [\"e\", \"f\"], \"gold\": 0}\n";
  ASSERT_OK_AND_ASSIGN(const Task one, Read(fields, items, {}, shots));
  EXPECT_EQ(one.shots, 1);
  EXPECT_THAT(one.preambles, ElementsAre("About x.\n\ns1 b\n\n"));
  ASSERT_OK_AND_ASSIGN(const Task two, Read(fields, items, {.shots = 2}, shots));
  EXPECT_THAT(two.preambles, ElementsAre("About x.\n\ns1 b\n\ns2 c\n\n"));
  ASSERT_OK_AND_ASSIGN(const Task none, Read(fields, items, {.shots = 0}, shots));
  EXPECT_THAT(none.preambles, ElementsAre("About x.\n\n"));
  EXPECT_THAT(Message(Read(fields, items, {.shots = 3}, shots)), HasSubstr("shots.jsonl has 2 rows; 3 examples before each item need 3"));
}

TEST(ReadTask, ShotsFromTheItemsAreNeverTheItem) {
  const std::string fields = "kind: EXACT_MATCH context: '{q}' answer: '{a}' shot_delimiter: '|'";
  const std::string items = "{\"q\": \"1\", \"a\": \"A\"}\n{\"q\": \"2\", \"a\": \"B\"}\n{\"q\": \"3\", \"a\": \"C\"}\n{\"q\": \"4\", \"a\": \"D\"}\n";
  ASSERT_OK_AND_ASSIGN(const Task task, Read(fields, items, {.shots = 2, .limit = 3}));
  ASSERT_EQ(task.items.size(), 3);
  std::vector<std::string> preambles;
  for (const TaskItem& item : task.items) preambles.push_back(task.preambles[item.preamble]);
  EXPECT_THAT(preambles, ElementsAre("2 B|3 C|", "1 A|3 C|", "1 A|2 B|"));
  EXPECT_THAT(Message(Read(fields, items, {.shots = 4})), HasSubstr("items.jsonl has 4 rows; 4 examples before each item need 5"));
  const std::string partial = "kind: PARTIAL choice: '{c}' ending: '{e}' gold_index: '{g}'";
  const std::string row = R"({"c": ["x", "y"], "e": "z", "g": 1})";
  ASSERT_OK_AND_ASSIGN(const Task shot, Read(partial, row + "\n" + row, {.shots = 1, .limit = 1}));
  EXPECT_THAT(shot.preambles, ElementsAre("y z\n\n"));
  EXPECT_THAT(Message(Read("kind: MINIMAL_PAIR good: '{g}' bad: '{b}'", R"({"g": "x", "b": "y"})", {.shots = 1})),
              HasSubstr("kind MINIMAL_PAIR takes no examples"));
}

TEST(ReadTask, CategoriesAndPartsWithColumns) {
  const std::string a = Write("a.jsonl", "{\"q\": \"1\", \"c\": [\"x\", \"y\"]}\n{\"q\": \"2\", \"c\": [\"x\", \"y\"]}\n");
  const std::string b = Write("b.jsonl", "{\"q\": \"3\", \"c\": [\"x\", \"y\"]}\n");
  const std::string fields = absl::StrCat("kind: MULTIPLE_CHOICE context: '{subject}: {q}' choice: '{c}' gold_index: '0' part { name: 'a' file: '", a,
                                          "' category: 'hard' column { name: 'subject' value: 'algebra' } } part { name: 'b' file: '", b,
                                          "' category: 'soft' column { name: 'subject' value: 'art' } }");
  ASSERT_OK_AND_ASSIGN(const ResolvedTask resolved, ResolveFiles(Describe(fields), "", "."));
  ASSERT_OK_AND_ASSIGN(const Task task, ReadTask(resolved, {}));
  EXPECT_THAT(Categories(task), ElementsAre("hard", "soft"));
  EXPECT_THAT(task.part_ends, ElementsAre(2, 3));
  EXPECT_EQ(task.items[2].context(0), "art: 3");
  ASSERT_OK_AND_ASSIGN(const Task first, ReadTask(resolved, {.limit = 1}));
  EXPECT_THAT(first.part_ends, ElementsAre(1, 2));
  TaskDescription own = Describe(fields + " category: '{q}'");
  ASSERT_OK_AND_ASSIGN(const ResolvedTask by_column, ResolveFiles(own, "", "."));
  ASSERT_OK_AND_ASSIGN(const Task columns, ReadTask(by_column, {}));
  EXPECT_THAT(Categories(columns), ElementsAre("1", "2", "3"));
  own.mutable_part(0)->mutable_column(0)->set_name("q");
  ASSERT_OK_AND_ASSIGN(const ResolvedTask clash, ResolveFiles(own, "", "."));
  EXPECT_THAT(Message(ReadTask(clash, {})), HasSubstr("a.jsonl:1: field 'q' is in the file and a column of part 'a'"));
}

TEST(CheckDescription, NamesTheField) {
  const auto error = [](const std::string& fields) { return Message(CheckDescription(Describe("part { file: 'x' } " + fields))); };
  EXPECT_EQ(error(kChoices), "");
  EXPECT_THAT(Message(CheckDescription(TaskDescription())), HasSubstr("needs a name"));
  EXPECT_THAT(error("context: 'x'"), HasSubstr("task 't': needs a kind: MULTIPLE_CHOICE"));
  EXPECT_THAT(error("kind: MULTIPLE_CHOICE context: 'x' gold_index: '0'"), HasSubstr("kind MULTIPLE_CHOICE needs choice"));
  EXPECT_THAT(error("kind: MULTIPLE_CHOICE context: 'x' choice: '{c}'"), HasSubstr("needs one of gold_index, gold_label and gold_text"));
  EXPECT_THAT(error("kind: MULTIPLE_CHOICE context: 'x' choice: '{c}' gold_label: 'A'"), HasSubstr("gold_label and label need each other"));
  EXPECT_THAT(error("kind: MULTIPLE_CHOICE context: 'x' choice: '{c}' gold_text: 'A' gold_first: 1"), HasSubstr("gold_first is of gold_index"));
  EXPECT_THAT(error("kind: LAST_WORD text: '{t}' choice: 'x'"), HasSubstr("kind LAST_WORD has no use for choice"));
  EXPECT_THAT(error("kind: LAST_WORD text: '{t'"), HasSubstr("text: '{t' has a { without its }"));
  EXPECT_THAT(error("kind: LAST_WORD text: '{t}' shots: -1"), HasSubstr("shots: -1"));
  EXPECT_THAT(error("kind: LAST_WORD text: '{t}' derive { from: '{x}' regex: 'a' }"), HasSubstr("names no group"));
  EXPECT_THAT(error("kind: LAST_WORD text: '{t}' derive { from: '{x}' regex: '(' }"), HasSubstr("derive: regex '(' is wrong"));
  const std::string answer = "kind: EXACT_MATCH context: '{q}' answer: '{a}' ";
  EXPECT_THAT(error(answer + "max_tokens: 0"), HasSubstr("max_tokens: 0 must be 1 or more"));
  EXPECT_THAT(error(answer + "stop: ''"), HasSubstr("stop: an empty text"));
  EXPECT_THAT(error(answer + "filter { name: 'f' }"), HasSubstr("filter 'f' needs a regex or last_number: true"));
  EXPECT_THAT(error(answer + "filter { regex: 'a' } filter { regex: 'b' }"), HasSubstr("two filters are called ''"));
  EXPECT_THAT(error(answer + "filter { name: 'f' regex: '[' }"), HasSubstr("filter 'f': regex '[' is wrong"));
  EXPECT_THAT(error(answer + "ignore: '*'"), HasSubstr("ignore: regex '*' is wrong"));
  EXPECT_THAT(error(std::string(kChoices) + " part { file: 'y' }"), HasSubstr("two parts are called ''"));
  EXPECT_THAT(error(std::string(kChoices) + " part {}"), HasSubstr("a part needs a file"));
  EXPECT_THAT(Message(CheckDescription(Describe(kChoices))), HasSubstr("needs a part"));
  TaskDescription no_version = Describe(std::string(kChoices) + " part { file: 'x' }");
  no_version.clear_version();
  EXPECT_THAT(Message(CheckDescription(no_version)), HasSubstr("task 't': needs a version"));
}

TEST(KnownTasks, AreWellFormed) {
  EXPECT_GE(KnownTasks().size(), 18u);
  for (const TaskDescription& task : KnownTasks()) {
    EXPECT_OK(CheckDescription(task));
    EXPECT_FALSE(task.url().empty() || task.licence().empty()) << task.name();
    EXPECT_TRUE(FindKnownTask(task.name()).has_value()) << task.name();
  }
}

TEST(KnownTasks, GroupsPartsAndAliases) {
  EXPECT_EQ(FindKnownTask("mmlu")->part_size(), 57);
  EXPECT_EQ(FindKnownTask("mmlu_anatomy")->part(0).name(), "anatomy");
  EXPECT_EQ(FindKnownTask("mmlu_anatomy")->part_size(), 1);
  EXPECT_EQ(FindKnownTask("mmlu_stem")->part_size(), 19);
  EXPECT_EQ(FindKnownTask("mmlu_stem")->name(), "mmlu_stem");
  EXPECT_EQ(FindKnownTask("blimp_anaphor_gender_agreement")->part_size(), 1);
  EXPECT_EQ(FindKnownTask("blimp_sentences_anaphor_gender_agreement")->delimiter(), "");
  EXPECT_EQ(FindKnownTask("blimp_sentences")->part_size(), 67);
  EXPECT_EQ(FindKnownTask("blimp")->delimiter(), " ");
  EXPECT_EQ(FindKnownTask("openbook_qa")->name(), "openbook_qa");
  EXPECT_FALSE(FindKnownTask("mmlu_").has_value());
  EXPECT_FALSE(FindKnownTask("mmlu_astrology").has_value());
}

TEST(KnownTasks, ServeAsBases) {
  const TaskDescription mine = Describe("base: 'arc_easy' context: '{query}\\nThe answer:'");
  ASSERT_OK_AND_ASSIGN(const TaskDescription merged, WithBase(mine));
  EXPECT_EQ(merged.context(), "{query}\nThe answer:");
  EXPECT_EQ(merged.name(), "t");
  EXPECT_EQ(merged.part(0).file(), "multiple-choice/arc_easy.jsonl");
  EXPECT_THAT(merged.choice(), ElementsAre("{choices}"));
  EXPECT_OK(CheckDescription(merged));
  EXPECT_THAT(Message(WithBase(Describe("base: 'arc_eazy'"))), HasSubstr("did you mean 'arc_easy'?"));
}

TEST(KnownTasks, SayWhereTheyAreFromAndHowToGetThem) {
  for (const TaskDescription& task : KnownTasks()) {
    EXPECT_NE(task.url(), "") << task.name();
    EXPECT_NE(task.licence(), "") << task.name();
    if (absl::StartsWith(task.name(), "quickstart/")) continue;  // part of the project
    EXPECT_THAT(task.home(), ::testing::StartsWith("https://")) << task.name();
    EXPECT_NE(task.obtain(), "") << task.name();
    for (const auto& part : task.part()) {
      EXPECT_EQ(part.sha256().size(), 64) << part.file();
      EXPECT_THAT(task.obtain(), HasSubstr(part.file().substr(0, part.file().find('/')))) << task.name();
    }
  }
}

// What can move a task's scores, so that none changes under the same version: where
// this test fails, raise the version and put the new digest here.
TEST(KnownTasks, ChangeWithTheirVersions) {
  const std::map<std::string, std::string> digests = {
#include "datasets/known_digests.inc"
  };
  for (TaskDescription task : KnownTasks()) {
    const std::string key = absl::StrCat(task.name(), "@", task.version());
    for (const char* field : {"name", "alias", "version", "follows", "home", "url", "licence", "obtain"}) {
      task.GetReflection()->ClearField(&task, TaskDescription::descriptor()->FindFieldByName(field));
    }
    for (auto& part : *task.mutable_part()) part.clear_file(), part.clear_shots_file();
    const std::string digest = Sha256(ProtoToLine(task)).substr(0, 12);
    const auto known = digests.find(key);
    EXPECT_EQ(known == digests.end() ? "" : known->second, digest) << key;
  }
}

class SharedTasks : public ::testing::Test {
 protected:
  void SetUp() override {
    NIBBLE_REQUIRE_SHARED();
    ::setenv("NIBBLE_DATA", (SharedDir() + "/data").c_str(), 1);
  }
  void TearDown() override { ::unsetenv("NIBBLE_DATA"); }

  static Task ReadKnown(const std::string& name, const TaskOptions& options = {}) {
    const auto resolved = ResolveFiles(*FindKnownTask(name), "", "");
    EXPECT_OK(resolved);
    auto task = ReadTask(*resolved, options);
    EXPECT_OK(task);
    return *std::move(task);
  }
};

TEST_F(SharedTasks, ItemCounts) {
  const std::map<std::string, size_t> counts = {{"hellaswag", 10042}, {"arc_easy", 2376},    {"arc_challenge", 1172}, {"piqa", 1838},
                                                {"openbookqa", 500},  {"boolq", 3270},       {"winogrande", 1267},    {"mmlu", 14042},
                                                {"blimp", 67000},     {"lambada_openai", 5153}, {"wikitext", 62}};
  for (const auto& [name, count] : counts) EXPECT_EQ(ReadKnown(name).items.size(), count) << name;
}

TEST_F(SharedTasks, Prompts) {
  const auto first = [](const std::string& name) { return ReadKnown(name, {.limit = 1}).items[0]; };
  EXPECT_THAT(first("arc_easy").context(0), EndsWith("the foundation of most food webs?\nAnswer:"));
  EXPECT_EQ(first("piqa").context(0), "Question: How do I ready a guinea pig cage for it's new occupants?\nAnswer:");
  EXPECT_THAT(first("boolq").context(0), ::testing::StartsWith("All biomass goes through"));
  EXPECT_THAT(first("boolq").context(0), EndsWith("\nQuestion: does ethanol take more energy make that produces?\nAnswer:"));
  EXPECT_THAT(first("boolq").continuations, ElementsAre(" no", " yes"));
  EXPECT_EQ(first("winogrande").context(1), "Sarah was a much better surgeon than Maria so Maria");
  EXPECT_EQ(first("winogrande").continuations[0], " always got the easier cases.");
  EXPECT_EQ(first("winogrande").gold, 1);
  EXPECT_EQ(first("lambada_openai").continuations[0], " signs");
  EXPECT_EQ(first("blimp_anaphor_gender_agreement").continuations[1], " Katherine can't help himself.");
  EXPECT_EQ(first("hellaswag").continuations[3], " starts pulling up roofing on a roof.");
}

TEST_F(SharedTasks, MmluWithShots) {
  const Task task = ReadKnown("mmlu_anatomy", {.shots = 2, .limit = 3});
  ASSERT_EQ(task.preambles.size(), 1);
  EXPECT_EQ(task.preambles[0],
            "The following are multiple choice questions (with answers) about anatomy.\n\n"
            "What is the embryological origin of the hyoid bone?\nA. The first pharyngeal arch\nB. The first and second pharyngeal arches\n"
            "C. The second pharyngeal arch\nD. The second and third pharyngeal arches\nAnswer: D\n\n"
            "Which of these branches of the trigeminal nerve contain somatic motor processes?\nA. The supraorbital nerve\n"
            "B. The infraorbital nerve\nC. The mental nerve\nD. None of the above\nAnswer: D\n\n");
  EXPECT_THAT(task.items[0].continuations, ElementsAre(" A", " B", " C", " D"));
  const Task all = ReadKnown("mmlu", {.limit = 1});
  EXPECT_THAT(Categories(all), ::testing::UnorderedElementsAre("stem", "other", "social_sciences", "humanities"));
}

// 62 articles, 241,335 words and 1,290,527 bytes: 5.347 bytes a word, which lm-eval's
// word and byte perplexities of one model have between their logarithms.
TEST_F(SharedTasks, WikitextCounts) {
  const Task task = ReadKnown("wikitext");
  int64_t words = 0, bytes = 0;
  std::vector<std::string> texts;
  for (const TaskItem& item : task.items) {
    texts.push_back(item.continuations[0]);
    words += item.words;
    bytes += item.bytes;
  }
  EXPECT_EQ(words, 241335);
  EXPECT_EQ(bytes, 1290527);
  EXPECT_NEAR(static_cast<double>(bytes) / static_cast<double>(words), std::log(8.7921) / std::log(1.5016), 1e-3);
  // Of what lm-eval 0.4.13's own functions give.
  EXPECT_EQ(Sha256(absl::StrJoin(texts, absl::string_view("\0", 1))), "b0ae50e166add20959a5406d9b3c99fe1f23819ec0a10149047149434fb85d81");
  EXPECT_THAT(task.items[0].continuations[0], ::testing::StartsWith(" = Robert Boulter =\n\nRobert Boulter is an English film, television and theatre"));
}

}  // namespace
}  // namespace nibble::datasets
