"use strict";
(() => {
  const valueOf = (cell) => {
    const number = Number(cell?.dataset.value);
    return cell?.dataset.value !== undefined && !Number.isNaN(number) ? number : cell?.textContent.trim() ?? "";
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), undefined, { numeric: true }));
  const make = (tag, text, attributes = {}) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.textContent = text;
    return element;
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
      const falling = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[column]), row]);
      rows.sort(([a], [b]) => (falling ? compare(b, a) : compare(a, b)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
      if (table === cases && more) showMatches();
    }));
  }

  const filter = document.getElementById("filter");
  const below = document.getElementById("below");
  const cases = document.getElementById("cases");
  const more = document.getElementById("more");
  const pageRows = more ? Number(more.dataset.rows) : Infinity;
  let mostRows = pageRows;
  const texts = new Map();
  const textOf = (row) => {
    if (!texts.has(row)) texts.set(row, row.textContent.toLocaleLowerCase());
    return texts.get(row);
  };
  const showMatches = () => {
    const wanted = filter.value.trim().toLocaleLowerCase();
    const limit = below?.value ? Number(below.value) : Infinity;
    let matching = 0;
    for (const row of cases.tBodies[0].rows) {
      const isLow = limit === Infinity || valueOf(row.cells[below.dataset.column]) < limit;
      const isMatch = isLow && textOf(row).includes(wanted);
      matching += isMatch ? 1 : 0;
      row.hidden = !isMatch || matching > mostRows;
    }
    const shown = Math.min(matching, mostRows);
    document.getElementById("shown").textContent = shown < matching ? `${shown} of ${matching} shown` : `${shown} shown`;
    if (more) more.hidden = shown === matching;
  };
  const showFirstMatches = () => {
    mostRows = pageRows;
    showMatches();
  };
  filter?.addEventListener("input", showFirstMatches);
  below?.addEventListener("input", showFirstMatches);
  more?.addEventListener("click", () => {
    mostRows += pageRows;
    showMatches();
  });

  const viewer = document.getElementById("viewer");
  const keyOf = (button) => button.dataset.key ?? button.dataset.name;
  const rowOf = new Map();
  for (const row of cases?.tBodies[0].rows ?? []) rowOf.set(keyOf(row.querySelector(".open")), row);
  let current = null;

  const showFacts = (row) => {
    const facts = document.getElementById("viewer-facts");
    facts.replaceChildren();
    [...row.cells].slice(1).forEach((cell, index) => {
      if (!cell.textContent.trim() || cell.colSpan > 1) return;
      const title = row.cells.length === cases.tHead.rows[0].cells.length
        ? cases.tHead.rows[0].cells[index + 1].textContent : "remarks";
      facts.append(make("dt", title), make("dd", cell.textContent));
    });
  };
  const showDetails = (row) => {
    const table = document.getElementById("viewer-details");
    if (!table) return;
    table.hidden = !row.dataset.details;
    table.replaceChildren();
    if (table.hidden) return;
    const details = JSON.parse(row.dataset.details);
    const head = table.createTHead().insertRow();
    head.append(...details.titles.map((title) => make("th", title, { scope: "col" })));
    const body = table.createTBody();
    for (const [name, ...values] of details.rows) {
      body.insertRow().append(make("th", name, { scope: "row" }), ...values.map((value) => make("td", value)));
    }
  };
  const show = (row) => {
    current = row;
    const { name } = row.querySelector(".open").dataset;
    const picture = row.querySelector("img");
    document.getElementById("viewer-title").textContent = name;
    const large = document.getElementById("viewer-picture");
    large.hidden = !picture;
    if (picture) large.src = picture.src;
    large.alt = picture ? `planes of ${name} with its labels` : "";
    showFacts(row);
    showDetails(row);
    if (!viewer.open) viewer.showModal();
    viewer.dispatchEvent(new CustomEvent("case-open", { detail: keyOf(row.querySelector(".open")) }));
  };
  const step = (direction) => {
    const shown = [...cases.tBodies[0].rows].filter((row) => !row.hidden);
    const next = shown[shown.indexOf(current) + direction];
    if (next) show(next);
  };
  for (const button of document.querySelectorAll(".open")) {
    button.addEventListener("click", () => show(rowOf.get(keyOf(button))));
  }
  document.getElementById("previous")?.addEventListener("click", () => step(-1));
  document.getElementById("next")?.addEventListener("click", () => step(1));
  viewer?.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  viewer?.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
})();
