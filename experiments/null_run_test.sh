#!/usr/bin/env bash
# usage: null_run_test.sh NIBBLE
# A whole run in which a variant is the baseline under another name, from config to report: no
# figure differs, and every interval says that none does.
set -u
nibble=$PWD/$1
cat > "$TEST_TMPDIR/null.textproto" <<'CONFIG'
name: "null"
model { source: "configs/models/novelist" }
baseline { name: "bf16" step { [nibble.baseline] {} } }
variant { name: "twin" step { [nibble.baseline] {} } }
contrast { variant: "twin" against: "bf16" }
metric { perplexity { text: "quickstart/passages" window: 128 limit: 8 } }
metric { multiple_choice { set: "quickstart/questions" limit: 16 } }
metric { divergence { text: "quickstart/passages" window: 128 limit: 2 } }
metric { size {} }
gate { variant: "twin" metric: "perplexity/*" min_ratio: 1 max_ratio: 1 }
CONFIG
out=$TEST_TMPDIR/out
"$nibble" run "$TEST_TMPDIR/null.textproto" --out "$out" --work "$TEST_TMPDIR/work" > "$TEST_TMPDIR/log" 2>&1 ||
  { cat "$TEST_TMPDIR/log" >&2; exit 1; }
python3 - "$out" <<'PYTHON'
import json, sys

out = sys.argv[1]
results = json.load(open(f"{out}/results.json"))
twin = {r["metric"]: r for r in results["records"] if r["variant"] == "twin"}
text, questions = "quickstart/passages", "quickstart/questions"

def expect(name, holds):
    if not holds:
        sys.exit(f"{name}: {twin.get(name)}")

perplexity = twin[f"perplexity/{text}"]
expect(perplexity["metric"], perplexity["ratio"] == 1 and perplexity["ratio_low"] <= 1 <= perplexity["ratio_high"])
for name in (f"accuracy/{questions}", f"accuracy_norm/{questions}"):
    record = twin[name]
    expect(name, record["difference"] == 0 and record["difference_low"] < 0 < record["difference_high"])
    expect(name, record["gained"] == 0 and record["lost"] == 0 and record["mcnemar_p"] == 1)
expect(f"kl/{text}", twin[f"kl/{text}"]["value"] == 0)
expect(f"top1_agreement/{text}", twin[f"top1_agreement/{text}"]["value"] == 1)
expect("size_mib", twin["size_mib"]["ratio"] == 1)

report = open(f"{out}/report.md", encoding="utf-8").read()
if "×1.000 [1.000, 1.000]" not in report:
    sys.exit("report.md does not say ×1.000 [1.000, 1.000]:\n" + report)
verdicts = {contrast["metric"]: contrast["verdict"] for contrast in results["contrasts"]}
if set(verdicts) != set(twin) or any(verdicts.values()):
    sys.exit(f"contrasts: {verdicts}")
PYTHON
