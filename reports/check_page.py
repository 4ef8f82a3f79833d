"""Checks a page as no browser does: check_page.py PAGE prints what is wrong with it, a line each.

Well-formed (as XML, but for scripts), nothing loaded from elsewhere, every link
within it leads somewhere, tables and pictures say what they are, and each chart
has a specification and a still picture.
"""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree

LOADING = {"src", "srcset", "poster", "data", "background"}  # attributes that load by themselves
LOADING_BY_HREF = {"link", "script", "image", "use", "feImage", "pattern", "linearGradient"}


def local(name):
    """Without the namespace."""
    return name.split("}")[-1]


def check_loads(element, problems):
    tag = local(element.tag)
    if tag in ("link", "iframe", "object", "embed", "base"):
        problems.append("<%s> loads from elsewhere" % tag)
    for name, value in element.attrib.items():
        loads = local(name) in LOADING or (local(name) == "href" and tag in LOADING_BY_HREF)
        if loads and not value.startswith(("data:", "#")):
            problems.append("<%s %s> loads %s" % (tag, local(name), value[:80]))
        if re.search(r"url\((?!#|['\"]?data:)", value) and local(name) in ("style", "fill", "stroke", "clip-path", "filter", "mask"):
            problems.append("<%s %s> loads by its style: %s" % (tag, local(name), value[:80]))
    if tag == "style" and re.search(r"url\(|@import", element.text or ""):
        problems.append("the style loads from elsewhere")


def check_links(root, problems):
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    problems += ["id '%s' stands %d times" % (name, ids.count(name)) for name in sorted(set(ids)) if ids.count(name) > 1]
    for element in root.iter():
        target = element.get("href")
        if local(element.tag) != "a" or target is None:
            continue
        if target.startswith("#"):
            if target[1:] not in ids:
                problems.append("link to nowhere: %s" % target)
        elif re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//", target):
            problems.append("link to elsewhere: %s" % target)


def check_words(root, problems):
    for element in root.iter():
        tag = local(element.tag)
        if tag == "img" and not element.get("alt"):
            problems.append("an <img> without alt")
        if element.get("role") in ("img", "region") and not element.get("aria-label"):
            problems.append("a %s without a label" % element.get("role"))
        if tag == "th" and element.get("scope") not in ("col", "row"):
            problems.append("a <th> without scope")
        if tag == "table":
            check_table(element, problems)
    if root.get("lang") is None:
        problems.append("no language")
    if len(list(root.iter("h1"))) != 1 or not list(root.iter("main")):
        problems.append("not one <h1> and a <main>")


def check_table(table, problems):
    caption = table.find("caption")
    if caption is None or not caption.text:
        problems.append("a table without caption")
        return
    columns = len(table.find("thead/tr"))
    for row in table.find("tbody"):
        if len(row) != columns:
            problems.append("table '%s': a row of %d cells under %d heads" % (caption.text, len(row), columns))
        if len(row) and row[0].tag != "th":
            problems.append("table '%s': a row without head" % caption.text)


def check_charts(root, scripts, problems):
    specs = [json.loads(text) for attributes, text in scripts if 'id="charts"' in attributes]
    drawings = {element.get("data-chart"): element for element in root.iter() if element.get("data-chart")}
    if sorted(drawings) != sorted(specs[0] if specs else {}):
        problems.append("charts %s, but specifications of %s" % (sorted(drawings), sorted(specs[0] if specs else {})))
    for name, drawing in drawings.items():
        if not any(local(child.tag) == "svg" for child in drawing):
            problems.append("chart '%s' has no still picture" % name)
    for name, spec in (specs[0] if specs else {}).items():
        if "/vega-lite/" not in spec["$schema"] or not spec["description"] or not spec["layer"] or not spec["data"]["values"]:
            problems.append("chart '%s': not a specification" % name)
        if '"url"' in json.dumps(spec):
            problems.append("chart '%s' loads data from elsewhere" % name)


def check(text):
    problems, scripts = [], []

    def take(match):
        scripts.append((match[1], match[2]))
        return "<script%s></script>" % match[1]

    page = re.sub(r"<script([^>]*)>(.*?)</script>", take, text.replace("<!DOCTYPE html>", "", 1), flags=re.S)
    if re.search(r"</?script", "".join(body for _, body in scripts), re.I):
        problems.append("a script holds the tag of a script")
    if any(re.search(r"\bsrc=", attributes) for attributes, _ in scripts):
        problems.append("a script is loaded from elsewhere")
    try:
        root = ElementTree.fromstring(page)
    except ElementTree.ParseError as error:
        return problems + ["not well-formed: %s" % error]
    policy = [m.get("content") for m in root.iter("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    if not policy or "default-src 'none'" not in policy[0] or "http" in policy[0]:
        problems.append("no policy that forbids loads")
    for element in root.iter():
        check_loads(element, problems)
    check_links(root, problems)
    check_words(root, problems)
    check_charts(root, scripts, problems)
    return problems


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        for problem in check(file.read()):
            print(problem)
