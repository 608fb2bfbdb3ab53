/* What a page does beyond being read: its contents follow the reader, tables sort, filter and can be
   taken away, and only what scrolls takes the keyboard's focus. Without this script everything is there. */
const make = (name, properties, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

(() => {
  "use strict";

  const LINE = 0.3; // of the window's height: the section that has passed it is being read
  const FILTER_FROM = 20; // rows
  const MOST_CHOICES = 8;
  const BLANK = /^(?:|[-–—?]|n\/a|none|nan)$/i;
  const NUMBER = /^[~≈<>≤≥=±\s]*([-+−–]?)\s*((?:\d[\d,]*)?\.?\d+(?:e[-+−]?\d+)?)\s*([kMG](?![A-Za-z]))?(?![\d.-]|[A-Za-z]\d)/;
  const SCALE = { k: 1e3, M: 1e6, G: 1e9 };
  const BOXES = ".table, .picture, .input > div, pre.log";
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const textOf = (element) => element.textContent.trim();

  function followReader(nav) {
    const fold = nav.querySelector("details");
    const links = new Map([...nav.querySelectorAll("a")]
      .map((link) => [document.getElementById(link.hash.slice(1)), link]));
    const headings = [...links.keys()];
    let chosen = null; // by a link, until the reader scrolls: a short last section cannot go up
    const mark = () => {
      const passed = headings.filter((h) => h.getBoundingClientRect().top < LINE * innerHeight);
      const atEnd = scrollY > 0 && scrollY + innerHeight >= document.body.scrollHeight - 2;
      const current = chosen ?? (atEnd ? headings : passed).at(-1);
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(current)?.setAttribute("aria-current", "location");
      nav.querySelector(".here").textContent = current ? textOf(current) : "";
      const link = links.get(current);
      if (link && nav.scrollHeight > nav.clientHeight) {
        nav.scrollTop = link.offsetTop - nav.clientHeight / 2;
      }
    };
    const choose = (hash) => {
      const target = document.getElementById(hash.slice(1));
      chosen = links.has(target) ? target : null;
      mark();
    };
    const narrow = matchMedia("(max-width: 63.99rem)");
    const refold = () => { fold.open = !narrow.matches; };
    narrow.addEventListener("change", refold);
    refold();
    for (const kind of ["wheel", "touchmove", "keydown"]) {
      addEventListener(kind, () => { chosen = null; }, { passive: true });
    }
    addEventListener("scroll", mark, { passive: true });
    addEventListener("hashchange", () => choose(location.hash));
    document.addEventListener("click", (event) => {
      const link = event.target.closest("nav a");
      if (link) choose(link.hash);
      if (narrow.matches && (link || !nav.contains(event.target))) fold.open = false;
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !narrow.matches || !fold.open) return;
      fold.open = false;
      fold.querySelector("summary").focus();
    });
    choose(location.hash);
  }

  function numberIn(text) {
    const match = NUMBER.exec(text);
    if (!match) return null;
    const value = Number(match[2].replaceAll(",", "").replace("−", "-"));
    return (/[-−–]/.test(match[1]) ? -1 : 1) * value * (SCALE[match[3]] ?? 1);
  }

  function comparison(rows, column, direction) {
    const text = new Map(rows.map((row) => [row, textOf(row.cells[column])]));
    const number = new Map(rows.map((row) => [row, numberIn(text.get(row))]));
    const missing = (row) => BLANK.test(text.get(row));
    const numeric = rows.every((row) => missing(row) || number.get(row) !== null);
    return (a, b) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b); // last, up and down
      return direction * (numeric
        ? number.get(a) - number.get(b) : collator.compare(text.get(a), text.get(b)));
    };
  }

  function makeSortable(table, rows, heads) {
    heads.forEach((head, column) => {
      if (!textOf(head)) return;
      const button = make("button", { type: "button" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "" }[head.ariaSort] ?? "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next) head.setAttribute("aria-sort", next);
        const by = comparison(rows, column, next === "ascending" ? 1 : -1);
        table.tBodies[0].append(...(next ? rows.toSorted(by) : rows));
      });
    });
  }

  function makeFilter(rows, heads, box) {
    const search = make("input", { type: "search", autocomplete: "off" });
    const said = make("output", {});
    const controls = make("div", { className: "filter" }, make("label", {}, "Filter", search));
    controls.setAttribute("role", "group");
    controls.setAttribute("aria-label", `Filter of: ${box.getAttribute("aria-label")}`);
    const selects = new Map();
    heads.forEach((head, column) => {
      const choices = [...new Set(rows.map((row) => textOf(row.cells[column])))].filter(Boolean);
      if (choices.length < 2 || choices.length > Math.min(MOST_CHOICES, rows.length / 4)) return;
      if (choices.some((choice) => numberIn(choice) !== null || choice.length > 40)) return;
      const options = ["", ...choices].map((choice) =>
        make("option", { value: choice, textContent: choice || "any" }));
      selects.set(column, make("select", {}, ...options));
      controls.append(make("label", {}, textOf(head), selects.get(column)));
    });
    const apply = () => {
      const wanted = search.value.toLowerCase().split(/\s+/);
      for (const row of rows) {
        const chosen = [...selects].every(([column, select]) =>
          !select.value || textOf(row.cells[column]) === select.value);
        const words = row.textContent.toLowerCase();
        row.hidden = !chosen || !wanted.every((word) => words.includes(word));
      }
      const shown = rows.filter((row) => !row.hidden).length;
      said.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
    };
    controls.append(said);
    controls.addEventListener("input", apply);
    box.before(controls);
    apply();
  }

  // Taking away: what a table shows, in the order shown, as CSV and LaTeX; a figure as SVG

  function wordsOf(cell) {
    const copy = cell.cloneNode(true);
    for (const head of copy.querySelectorAll(".command > summary")) head.remove();
    return textOf(copy).replace(/\s+/g, " ");
  }

  function gridOf(table) { // every cell of every row, a cell that spans several repeated in each
    const rows = [...table.rows].filter((row) => !row.hidden), grid = rows.map(() => []);
    rows.forEach((row, y) => {
      for (const cell of row.cells) {
        let x = 0;
        while (grid[y][x] !== undefined) x++;
        for (let down = 0; down < Math.min(cell.rowSpan, rows.length - y); down++) {
          for (let along = 0; along < cell.colSpan; along++) grid[y + down][x + along] = wordsOf(cell);
        }
      }
    });
    return grid;
  }

  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const asCsv = (grid) => grid.map((row) => `${row.map(quoted).join(",")}\r\n`).join("");

  const TEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "–": "--", "−": "$-$", "±": "$\\pm$", "≤": "$\\le$", "≥": "$\\ge$", "<": "$<$", ">": "$>$" };
  const inTex = (text) => text.replace(/[\\~^–−±≤≥<>&%$#_{}]/g, (sign) => TEX[sign] ?? `\\${sign}`);

  function asLatex(grid, heads, sides, caption) {
    // After the end of a line, [ and * would be an option of it.
    const lines = grid.map((row) => `${row.map(inTex).join(" & ").replace(/^[[*]/, "{}$&")} \\\\`);
    return ["\\begin{table}", `\\caption{${inTex(caption)}}`, `\\begin{tabular}{${sides}}`, "\\hline",
      ...lines.slice(0, heads), "\\hline", ...lines.slice(heads), "\\hline", "\\end{tabular}", "\\end{table}", ""].join("\n");
  }

  function save(name, kind, text) {
    const link = make("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: kind })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  const fileName = (text, ending) =>
    `${text.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40).replace(/^-+|-+$/g, "") || "table"}.${ending}`;

  function offerTable(table) {
    const caption = table.caption ? textOf(table.caption) : "";
    const name = table.parentElement.getAttribute("aria-label") || caption;
    const button = (text, of, action) => {
      const made = make("button", { type: "button", textContent: text, ariaLabel: `${text} of: ${of}` });
      made.addEventListener("click", action);
      return made;
    };
    table.parentElement.after(make("p", { className: "get" },
      button("CSV", name, () => save(fileName(name, "csv"), "text/csv", asCsv(gridOf(table)))),
      button("LaTeX", name, () => {
        const grid = gridOf(table), heads = table.tHead?.rows.length ?? 0, cells = table.tBodies[0].rows[0].cells;
        const sides = [...cells].map((cell) => (getComputedStyle(cell).textAlign === "right" ? "r" : "l"));
        const all = sides.join("").padStart(grid[0].length, "l");
        save(fileName(name, "tex"), "text/x-tex", asLatex(grid, heads, all, caption));
      })));
  }

  function offerFigure(figure) {
    const drawing = figure.querySelector(".picture > svg"), title = figure.closest(".output");
    const place = figure.querySelector(".get"), pdf = place.querySelector("a"); // a published page has none
    const headings = [...document.querySelectorAll("h1, h2, h3")]
      .filter((h) => h.compareDocumentPosition(title) & Node.DOCUMENT_POSITION_FOLLOWING);
    const name = headings.length ? textOf(headings.at(-1)) : "figure";
    if (pdf) pdf.download = fileName(name, "pdf");
    const button = make("button", { type: "button", textContent: "SVG" });
    button.addEventListener("click", () => {
      const text = new XMLSerializer().serializeToString(drawing);
      save(fileName(name, "svg"), "image/svg+xml", text.replace(/var\(--\w+, (#\w+)\)/g, "$1"));
    });
    place.prepend(button);
  }

  function fit(box) {
    const table = box.querySelector(":scope > table");
    if (table) box.classList.toggle("fits", table.offsetWidth <= box.clientWidth);
    const scrolls = !box.classList.contains("fits")
      && (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1);
    if (scrolls) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }

  function openNotebooks() { // where Jupyter's server shows the page, a notebook opens there
    const here = new URL(document.baseURI);
    if (!here.protocol.startsWith("http") || !here.pathname.includes("/files/")) return;
    for (const link of document.querySelectorAll("a[href$='.ipynb']")) {
      link.href = new URL(link.href).pathname.replace("/files/", "/lab/tree/");
      link.append(" in JupyterLab");
      if (self !== top) link.target = "_blank";
    }
  }

  document.documentElement.classList.add("js"); // before anything is shown
  document.addEventListener("DOMContentLoaded", () => {
    const nav = document.querySelector("nav[aria-label=Contents]");
    if (nav) followReader(nav);
    for (const table of document.querySelectorAll(".table > table")) {
      const rows = [...(table.tBodies[0]?.rows ?? [])];
      const heads = table.tHead?.rows.length === 1 ? [...table.tHead.rows[0].cells] : [];
      if (rows.length < 2 || rows.some((row) => row.cells.length !== heads.length)) continue;
      if (rows.length >= FILTER_FROM) {
        makeFilter(rows, heads, table.parentElement);
        table.parentElement.classList.add("long");
      }
      makeSortable(table, rows, heads);
    }
    document.querySelectorAll(".table > table").forEach(offerTable);
    document.querySelectorAll("figure:has(.get)").forEach(offerFigure);
    openNotebooks();
    const watcher = new ResizeObserver((entries) => {
      for (const box of new Set(entries.map((entry) => entry.target.closest(BOXES)))) fit(box);
    });
    for (const box of document.querySelectorAll(BOXES)) {
      watcher.observe(box);
      if (box.firstElementChild) watcher.observe(box.firstElementChild);
    }
  });
})();
