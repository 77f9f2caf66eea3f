"use strict";
// Everything shown is set as text, never as HTML: what models answered is not to be trusted.
const data = JSON.parse(document.getElementById("data").textContent);
const PER_PAGE = 10;
const SHOWN = 4; // answers of a card that are not folded
const MOST_KINDS = 200;
const form = document.getElementById("filters");
const list = document.getElementById("list");
const count = document.getElementById("count");
const bar = document.querySelector(".pages");
let page = 0;
let found = [];

// The catalogue has the texts of the page's language by their English.
function tr(english, values = {}) {
  return (data.words[english] ?? english).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

const option = (select, value, text) => select.add(new Option(text, value));
// Free text is no choice of a few: then there is no list to choose from, and the search is there.
function fill(name, values, most) {
  const distinct = [...new Set(values)].filter((text) => text !== undefined).sort();
  if (distinct.length <= most) distinct.forEach((text) => option(form.elements[name], text, text));
  form.elements[name].parentElement.hidden = form.elements[name].length === 1;
}

data.datasets.forEach((dataset, index) => option(form.elements.dataset, index, dataset.name));
data.models.forEach((model, index) => option(form.elements.model, index, model));
fill("expected", data.rows.map((row) => row.expected), data.most);
fill("predicted", data.rows.flatMap((row) => row.answers.map((a) => a.predicted)), data.most);
fill("type", data.rows.map((row) => row.type), MOST_KINDS);
fill("subtype", data.rows.map((row) => row.subtype), MOST_KINDS);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

// A text in its own direction, whichever way the text around it runs.
function directed(tag, className, text) {
  const made = element(tag, className, text);
  made.dir = "auto";
  return made;
}

const name = (row) => `${data.datasets[row.dataset].name}/${row.row}`;
const link = (row) => `#example=${encodeURIComponent(name(row))}`;

// The answers of a row that the filters on model, outcome and prediction are about.
function meant(row, wanted) {
  const base = row.answers.find((a) => a.model === data.base);
  const outcomes = {
    "": (a) => !a.right,
    right: (a) => a.right,
    regressed: (a) => base && base.right && !a.right,
    fixed: (a) => base && !base.right && a.right,
  };
  return row.answers.filter(
    (a) =>
      (wanted.model === "" || a.model === Number(wanted.model)) &&
      outcomes[wanted.outcome](a) &&
      (wanted.predicted === "" || a.predicted === wanted.predicted),
  );
}

function matches(row, wanted) {
  const said = new Set(row.answers.map((a) => a.predicted));
  const texts = row.answers.flatMap((a) => [data.models[a.model], a.predicted, a.output]);
  const text = [name(row), row.type, row.subtype, row.question, row.expected, ...texts].join("\n");
  return (
    (wanted.dataset === "" || row.dataset === Number(wanted.dataset)) &&
    meant(row, wanted).length > 0 &&
    (wanted.expected === "" || row.expected === wanted.expected) &&
    (wanted.type === "" || row.type === wanted.type) &&
    (wanted.subtype === "" || row.subtype === wanted.subtype) &&
    (wanted.agree === "" || (wanted.agree === "agree") === (said.size === 1)) &&
    text.toLowerCase().includes(wanted.text.toLowerCase())
  );
}

// Rows by the confidence of the answers meant; those without one come last.
function ordered(rows, wanted) {
  if (wanted.order === "") return rows;
  const sign = wanted.order === "sure" ? -1 : 1;
  const place = (row) => Math.min(...meant(row, wanted).map((a) => (a.confidence === null ? 2 : sign * a.confidence)));
  return rows.map((row) => [place(row), row]).sort(([a], [b]) => a - b).map(([, row]) => row);
}

// The base and the recommended model come first, then the model that is filtered by.
function inOrder(answers) {
  const first = [data.base, data.best, Number(form.elements.model.value || -1)];
  return answers.toSorted((a, b) => first.includes(b.model) - first.includes(a.model));
}

function answer(given) {
  const item = document.createElement("li");
  const share = tr("{figure} %", { figure: (100 * given.confidence).toFixed(0) }).replace(" ", "\u00a0");
  const sure = given.confidence === null ? "" : ` (${share})`;
  const verdict = element("span", given.right ? "right" : "wrong", "");
  verdict.append(tr(given.right ? "✓ correct" : "✗ incorrect"), tr(": "), element("bdi", "", given.predicted), sure);
  item.append(element("strong", "", data.models[given.model]), tr(": "), verdict);
  if (given.output !== given.predicted) item.append(directed("div", "output", given.output));
  return item;
}

function card(row) {
  const item = document.createElement("li");
  const answers = element("ul", "answers", "");
  const where = element("a", "where", tr("{dataset}, example {row}", { dataset: data.datasets[row.dataset].name, row: row.row }));
  const expected = element("div", "", tr("expected") + tr(": "));
  const kinds = [row.type, row.subtype].filter((kind) => kind !== undefined);
  where.href = link(row);
  item.id = link(row).slice(1);
  const items = inOrder(row.answers).map(answer);
  answers.append(...items.slice(0, SHOWN));
  expected.append(element("bdi", "", row.expected));
  item.append(where, element("span", "where", kinds.map((kind) => ` · ${kind}`).join("")));
  item.append(directed("div", "question", row.question), expected, answers);
  if (items.length > SHOWN) {
    const others = element("details", "", "");
    const folded = element("ul", "answers", "");
    folded.append(...items.slice(SHOWN));
    others.append(element("summary", "", tr("{more} more", { more: items.length - SHOWN })), folded);
    item.append(others);
  }
  return item;
}

function draw() {
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  const shown = found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(card);
  list.replaceChildren(...(shown.length ? shown : [element("li", "", tr("No example matches these filters."))]));
  const [matching, all] = [found.length, data.rows.length].map((number) => number.toLocaleString("en"));
  const figures = { found: matching, all, page: page + 1, pages };
  if (data.rows.length === 1) count.textContent = tr("{found} of {all} example, page {page} of {pages}", figures);
  else count.textContent = tr("{found} of {all} examples, page {page} of {pages}", figures);
  document.getElementById("previous").disabled = page === 0;
  document.getElementById("next").disabled = page === pages - 1;
}

function show() {
  const wanted = Object.fromEntries(new FormData(form));
  found = ordered(data.rows.filter((row) => matches(row, wanted)), wanted);
  page = 0;
  draw();
}

function clear() {
  [...form.elements].forEach((field) => { field.value = ""; });
  show();
}

function turn(step) {
  page += step;
  draw();
  document.getElementById("errors").scrollIntoView();
}

// A link to an example shows it whatever the filters were, on the page on which it is.
function follow() {
  const place = data.rows.findIndex((row) => link(row) === location.hash);
  if (place < 0) return;
  clear();
  page = Math.floor(place / PER_PAGE);
  draw();
  const item = list.children[place % PER_PAGE];
  item.classList.add("linked");
  item.scrollIntoView();
}

// A cell that a spreadsheet would take for a formula begins with an apostrophe.
function cell(value) {
  const text = String(value ?? "").replace(/^(?=\s*[=+\-@＝＋－＠])/, "'");
  return `"${text.replaceAll('"', '""')}"`;
}

function table() {
  const header = ["dataset", "example", "type", "subtype", "question", "expected"];
  const columns = ["predicted", "correct", "confidence", "output"];
  const lines = found.map((row) => {
    const given = data.models.flatMap((_, index) => {
      const one = row.answers.find((a) => a.model === index) ?? {};
      return [one.predicted, one.right, one.confidence, one.output];
    });
    return [data.datasets[row.dataset].name, row.row, row.type, row.subtype, row.question, row.expected, ...given];
  });
  const named = data.models.flatMap((model) => columns.map((column) => `${column} (${model})`));
  return [[...header, ...named], ...lines].map((line) => line.map(cell).join(",") + "\r\n").join("");
}

function download() {
  const made = document.createElement("a");
  made.download = "examples.csv";
  made.href = URL.createObjectURL(new Blob(["\ufeff", table()], { type: "text/csv" }));
  made.click();
  setTimeout(() => URL.revokeObjectURL(made.href), 10000);
}

// Only tables and plots that are wider than the screen say that they scroll.
function hint() {
  document.querySelectorAll(".wide").forEach((box) => {
    box.dataset.hint = box.scrollWidth > box.clientWidth ? tr("Scrolls sideways →") : "";
  });
}

form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("previous").addEventListener("click", () => turn(-1));
document.getElementById("next").addEventListener("click", () => turn(1));
document.getElementById("clear").addEventListener("click", clear);
document.getElementById("csv").addEventListener("click", download);
window.addEventListener("hashchange", follow);
window.addEventListener("resize", hint);
form.hidden = bar.hidden = false;
// What the recommended model makes worse is looked at first.
if (data.best >= 0 && data.best !== data.base) {
  form.elements.model.value = data.best;
  form.elements.outcome.value = "regressed";
}
show();
if (!found.length) clear();
follow();
hint();
