(function () {
  "use strict";

  // ---- Theme: the system's until a reader chooses.

  var root = document.documentElement, button = document.getElementById("theme");
  function stored(theme) {  // storage may be forbidden
    try {
      if (theme === undefined) return localStorage.getItem("nibble-theme");
      localStorage.setItem("nibble-theme", theme);
    } catch (error) { /* then the choice holds for this page alone */ }
    return theme;
  }
  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function show(theme) {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    button.textContent = isDark() ? "light theme" : "dark theme";
  }
  show(stored());
  button.hidden = false;
  button.addEventListener("click", function () { show(stored(isDark() ? "light" : "dark")); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { show(); });

  // ---- Tables sort by any column: numbers by value, what has no number last.

  function compare(a, b) {
    var x = a.dataset.n, y = b.dataset.n;
    if (x !== undefined && y !== undefined) return Number(x) - Number(y);
    return a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  }
  function sort(table, column, direction) {
    var body = table.tBodies[0], rows = Array.from(body.rows);
    var numbers = rows.some(function (row) { return row.cells[column].dataset.n !== undefined; });
    function rank(row) { return numbers && row.cells[column].dataset.n === undefined ? 1 : 0; }
    rows.sort(function (a, b) { return rank(a) - rank(b) || direction * compare(a.cells[column], b.cells[column]); });
    rows.forEach(function (row) { body.appendChild(row); });
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    if (table.tBodies[0].rows.length < 2) return;
    var heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      var handle = document.createElement("button");
      handle.type = "button";
      handle.title = "sort";
      while (head.firstChild) handle.appendChild(head.firstChild);
      if (!handle.textContent) handle.setAttribute("aria-label", "sort by this column");
      head.appendChild(handle);
      handle.addEventListener("click", function () {
        var descending = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending ? -1 : 1);
      });
    });
  });

  // ---- Print shows what is folded.

  addEventListener("beforeprint", function () {
    document.querySelectorAll("main details").forEach(function (details) {
      if (!details.closest(".drawing")) details.open = true;
    });
  });

  // ---- Charts: the still picture stays until the live one is there.

  var data = document.getElementById("charts");
  if (!data) return;
  var specs = JSON.parse(data.textContent);
  var options = {
    mode: "vega-lite", renderer: "svg", ast: true, tooltip: { theme: "custom" },
    actions: { export: true, source: false, compiled: false, editor: false }
  };
  function enliven(drawing) {
    var live = document.createElement("div");
    // Laid out unseen, since what is not in the page has no fonts to measure.
    live.style.cssText = "position: absolute; visibility: hidden";
    drawing.appendChild(live);
    return window.vegaEmbed(live, specs[drawing.dataset.chart], options).then(function () {
      live.querySelectorAll("a").forEach(function (link) { link.tabIndex = -1; });
      live.style.cssText = "";
      drawing.replaceChildren(live);
    }, function (error) {
      live.remove();
      var remark = document.createElement("p");
      remark.textContent = "This chart stays still: " + error.message;
      drawing.parentNode.appendChild(remark);
    });
  }
  Array.from(document.querySelectorAll("[data-chart]")).reduce(function (before, drawing) {
    return before.then(function () { return enliven(drawing); });
  }, Promise.resolve());
})();
