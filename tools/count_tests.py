"""Counts test cases from the XML that Bazel kept of a test run.

usage: count_tests.py ROOT BAZEL_STATUS BUILD_EVENTS LABEL...

BUILD_EVENTS is what `bazel test --build_event_json_file` wrote: the files of an
earlier run may still be there. Prints what was skipped and what failed, then
"N passed, N failed" alone on a line. A target that did not build or died before
it wrote its cases counts as one failure. The exit status is that of the run.
"""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree


def bazel(root, *arguments):
    return subprocess.run(["bazel", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout


def test_targets(root, labels):
    tests = "tests(set(%s))" % " ".join(labels)
    if any(label.endswith("...") or label.endswith(":all") for label in labels):
        # As `bazel test` does: a wildcard leaves tests tagged manual out.
        tests = 'let t = %s in $t except attr(tags, "\\bmanual\\b", $t)' % tests
    lines = bazel(root, "query", tests).split()
    return [line for line in lines if line.startswith("//")]


def ran(events):
    """The labels of the tests that ran, or whose result Bazel kept."""
    labels = set()
    with open(events, encoding="utf-8") as lines:
        for line in lines:
            labels.add(json.loads(line).get("id", {}).get("testResult", {}).get("label"))
    return labels


def count(path):
    """(passed, failed names, skipped reasons) of one test.xml."""
    passed, failed, skipped = 0, [], []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = "%s.%s" % (case.get("classname", ""), case.get("name", ""))
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif case.find("skipped") is not None or case.get("result") == "skipped":
            reason = case.find("skipped")
            skipped.append((name, (reason.get("message") or "") if reason is not None else ""))
        elif case.get("status") != "notrun":
            passed += 1
    return passed, failed, skipped


def main():
    root, status, results, labels = sys.argv[1], int(sys.argv[2]), ran(sys.argv[3]), sys.argv[4:]
    logs = bazel(root, "info", "bazel-testlogs").strip()
    passed, failed, skipped = 0, [], []
    for label in test_targets(root, labels):
        path = os.path.join(logs, label[2:].replace(":", "/"), "test.xml")
        try:
            p, f, s = count(path) if label in results else (0, [label + " (did not run)"], [])
        except (OSError, ElementTree.ParseError):
            p, f, s = 0, [label + " (left no results)"], []
        passed += p
        failed += f
        skipped += s
    if status != 0 and not failed:
        failed.append("bazel test (exit status %d)" % status)
    for name, reason in skipped:
        print("skipped: %s %s" % (name, " ".join(reason.split())))
    for name in failed:
        print("FAILED: %s" % name)
    if skipped:
        print("%d skipped" % len(skipped))
    print("%d passed, %d failed" % (passed, len(failed)))
    return 1 if failed or status != 0 else 0


sys.exit(main())
