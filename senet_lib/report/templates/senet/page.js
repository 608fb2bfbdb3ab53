/* What a page does beyond being read: its contents list follows, tables sort and filter, and only
   what scrolls takes the keyboard's focus. Without this script everything is there all the same. */
(() => {
  "use strict";

  const LINE = 30; // percent of the window's height: the section that has passed it is being read
  const FILTER_FROM = 20; // rows
  const MOST_CHOICES = 8;
  const MOST_SELECTS = 2;
  const BLANK = /^(?:|[-–—?]|n\/a|none|nan)$/i;
  const DATE = /^\d{4}-\d\d/;
  const NUMBER =
    /^[~≈<>≤≥=±\s]*([-+−–]?)\s*((?:\d[\d,\u00a0\u202f]*)?\.?\d+(?:e[-+−]?\d+)?)(?:\s*([kMGT])(?![A-Za-z]))?(?![\d.]|[A-Za-z]\d)/;
  const SCALE = { k: 1e3, M: 1e6, G: 1e9, T: 1e12 };
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const boxes = ".table, .picture, .input, pre.log";

  const make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const textOf = (element) => element.textContent.trim();

  /* Contents */

  function followReader(nav) {
    const links = new Map();
    for (const link of nav.querySelectorAll("a")) {
      const heading = document.getElementById(decodeURIComponent(link.hash.slice(1)));
      if (heading) links.set(heading, link);
    }
    const headings = [...links.keys()];
    const passed = new Set();
    const here = nav.querySelector(".here");
    let atEnd = false;
    let chosen = null; // by a link, until the reader scrolls: a short last section cannot go up

    const mark = () => {
      const last = headings.filter((heading) => passed.has(heading)).pop();
      const current = chosen ?? (atEnd && passed.size ? headings.at(-1) : last);
      for (const [heading, link] of links) {
        if (heading === current) link.setAttribute("aria-current", "location");
        else link.removeAttribute("aria-current");
      }
      const item = current && links.get(current).closest("nav > ol > li");
      for (const other of nav.querySelectorAll("li.within")) other.classList.remove("within");
      item?.classList.add("within");
      here.textContent = item ? textOf(item.querySelector("a")) : "";
      if (current) keepInSight(nav, links.get(current));
    };

    // The root reaches far up, so that a heading above the line counts wherever it is.
    const line = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) passed.add(target);
        else passed.delete(target);
      }
      mark();
    }, { rootMargin: `1000000px 0px -${100 - LINE}% 0px` });
    for (const heading of headings) line.observe(heading);

    const end = make("div", {});
    document.querySelector("main").append(end);
    new IntersectionObserver(([entry]) => {
      atEnd = entry.isIntersecting;
      mark();
    }).observe(end);

    const choose = (hash) => {
      const target = hash && document.getElementById(decodeURIComponent(hash.slice(1)));
      chosen = links.has(target) ? target : null;
      mark();
    };
    const release = () => { chosen = null; };
    for (const kind of ["wheel", "touchmove", "keydown"]) {
      window.addEventListener(kind, release, { passive: true });
    }
    window.addEventListener("hashchange", () => choose(location.hash));
    nav.addEventListener("click", (event) => {
      const link = event.target.closest("a");
      if (link) choose(link.hash);
    });
    choose(location.hash);
  }

  function keepInSight(nav, link) {
    const outer = nav.getBoundingClientRect();
    const inner = link.getBoundingClientRect();
    if (nav.scrollHeight <= nav.clientHeight) return;
    if (inner.top < outer.top) nav.scrollTop += inner.top - outer.top - 40;
    if (inner.bottom > outer.bottom) nav.scrollTop += inner.bottom - outer.bottom + 40;
  }

  function unfold(nav) {
    const button = nav.querySelector("button");
    const open = (yes) => button.setAttribute("aria-expanded", String(yes));
    button.hidden = false;
    button.addEventListener("click", () => open(button.getAttribute("aria-expanded") !== "true"));
    document.addEventListener("click", (event) => {
      if (!nav.contains(event.target) || event.target.closest("a")) open(false);
    });
    nav.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !nav.contains(event.relatedTarget)) open(false);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || button.getAttribute("aria-expanded") !== "true") return;
      open(false);
      button.focus();
    });
  }

  /* Tables */

  function numberIn(text) {
    const match = DATE.test(text) ? null : NUMBER.exec(text);
    if (!match) return null;
    const value = Number(match[2].replace(/[,\u00a0\u202f]/g, "").replace("−", "-"));
    return (/[-−–]/.test(match[1]) ? -1 : 1) * value * (SCALE[match[3]] ?? 1);
  }

  function comparison(rows, column, numeric) {
    const texts = new Map(rows.map((row) => [row, textOf(row.cells[column])]));
    const filled = rows.filter((row) => !BLANK.test(texts.get(row)));
    const numbers = new Map(filled.map((row) => [row, numberIn(texts.get(row))]));
    const byNumber = numeric || filled.every((row) => numbers.get(row) !== null);
    const missing = (row) => (byNumber ? numbers.get(row) ?? null : texts.get(row) || null) === null
      || BLANK.test(texts.get(row));
    return (direction) => (a, b) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b); // last, up and down
      return direction * (byNumber
        ? numbers.get(a) - numbers.get(b)
        : collator.compare(texts.get(a), texts.get(b)));
    };
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    if (rows.length < 2 || rows.some((row) => row.cells.length !== heads.length)) return;
    heads.forEach((head, column) => {
      if (!textOf(head)) return;
      const button = make("button", { type: "button" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "" }[head.getAttribute("aria-sort")]
          ?? "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        if (!next) return body.append(...rows);
        head.setAttribute("aria-sort", next);
        const by = comparison(rows, column, head.classList.contains("number"));
        body.append(...rows.toSorted(by(next === "ascending" ? 1 : -1)));
      });
    });
  }

  function makeFilter(table, box) {
    const rows = [...table.tBodies[0].rows];
    const heads = table.tHead ? [...table.tHead.rows[0].cells] : [];
    if (rows.length < FILTER_FROM || rows.some((row) => row.cells.length !== heads.length)) return;
    const search = make("input", { type: "search", autocomplete: "off" });
    const said = make("output", {});
    const selects = new Map();
    heads.forEach((head, column) => {
      if (/number|code|sentences/.test(head.className) || selects.size === MOST_SELECTS) return;
      const choices = [...new Set(rows.map((row) => textOf(row.cells[column])))].filter(Boolean);
      if (choices.length < 2 || choices.length > Math.min(MOST_CHOICES, rows.length / 4)) return;
      const options = ["", ...choices].map((choice) =>
        make("option", { value: choice, textContent: choice || "any" }));
      selects.set(column, make("select", {}, ...options));
    });
    const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

    const apply = () => {
      const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const chosen = [...selects].every(([column, select]) =>
          !select.value || textOf(row.cells[column]) === select.value);
        row.hidden = !chosen || !wanted.every((word) => words.get(row).includes(word));
      }
      const shown = rows.filter((row) => !row.hidden).length;
      said.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
    };
    const controls = make("div", { className: "filter" }, make("label", {}, "Filter", search));
    for (const [column, select] of selects) {
      controls.append(make("label", {}, textOf(heads[column]), select));
    }
    controls.append(said);
    controls.setAttribute("role", "group");
    controls.setAttribute("aria-label", `Filter of: ${box.getAttribute("aria-label")}`);
    controls.addEventListener("input", apply);
    box.before(controls);
    apply();
  }

  /* Boxes */

  function fit(box) {
    const table = box.querySelector(":scope > table");
    if (table) box.classList.toggle("fits", table.offsetWidth <= box.clientWidth);
    const scrolls = !box.classList.contains("fits")
      && (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1);
    if (scrolls) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }

  function openForPrint() {
    const folded = "details:not(.words):not([open])";
    let opened = [];
    window.addEventListener("beforeprint", () => {
      opened = [...document.querySelectorAll(folded)];
      for (const one of opened) one.open = true;
    });
    window.addEventListener("afterprint", () => {
      for (const one of opened) one.open = false;
    });
  }

  document.documentElement.classList.add("js"); // before anything is shown
  document.addEventListener("DOMContentLoaded", () => {
    const nav = document.querySelector("nav.contents");
    if (nav) {
      unfold(nav);
      followReader(nav);
    }
    for (const table of document.querySelectorAll(".table > table")) {
      if (!table.tBodies.length) continue;
      makeFilter(table, table.parentElement);
      if (table.tHead?.rows.length === 1) makeSortable(table);
    }
    const watcher = new ResizeObserver((entries) => {
      for (const box of new Set(entries.map((entry) => entry.target.closest(boxes)))) fit(box);
    });
    for (const box of document.querySelectorAll(boxes)) {
      watcher.observe(box);
      if (box.firstElementChild) watcher.observe(box.firstElementChild);
    }
    openForPrint();
  });
})();
