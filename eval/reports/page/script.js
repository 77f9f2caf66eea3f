"use strict";
// Everything shown is set as text, never as HTML: what models answered is not to be trusted.
const data = JSON.parse(document.getElementById("data").textContent);
const PER_PAGE = 25;
const form = document.getElementById("filters");
const list = document.getElementById("list");
const count = document.getElementById("count");
let page = 0;

const option = (select, value, text) => select.add(new Option(text, value));
// Free text is no choice of a few: then the list offers "any" alone, and the search is there.
function fill(name, values) {
  const distinct = [...new Set(values)].sort();
  if (distinct.length <= data.most) distinct.forEach((text) => option(form.elements[name], text, text));
}

data.sets.forEach((set, index) => option(form.elements.set, index, set.name));
data.models.forEach((model, index) => option(form.elements.model, index, model));
fill("expected", data.rows.map((row) => row.expected));
fill("predicted", data.rows.flatMap((row) => row.answers.map((a) => a.predicted)));

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function matches(row, wanted) {
  const asked = row.answers.filter((a) => wanted.model === "" || a.model === Number(wanted.model));
  const said = new Set(row.answers.map((a) => a.predicted));
  const text = [row.question, row.expected, ...row.answers.map((a) => a.output)].join("\n").toLowerCase();
  return (
    (wanted.set === "" || row.set === Number(wanted.set)) &&
    asked.some((a) => !a.right && (wanted.predicted === "" || a.predicted === wanted.predicted)) &&
    (wanted.expected === "" || row.expected === wanted.expected) &&
    (wanted.agree === "" || (wanted.agree === "agree") === (said.size === 1)) &&
    text.includes(wanted.text.toLowerCase())
  );
}

function answer(found) {
  const item = document.createElement("li");
  const sure = found.confidence === null ? "" : ` (${(100 * found.confidence).toFixed(0)} %)`;
  const verdict = found.right ? "✓ correct" : "✗ incorrect";
  item.append(element("strong", "", data.models[found.model]), ": ");
  item.append(element("span", found.right ? "right" : "wrong", `${verdict}: ${found.predicted}${sure}`));
  if (found.output !== found.predicted) item.append(element("div", "output", found.output));
  return item;
}

function card(row) {
  const item = document.createElement("li");
  const answers = element("ul", "answers", "");
  answers.append(...row.answers.map(answer));
  item.append(element("div", "where", `${data.sets[row.set].name}, example ${row.row}`));
  item.append(element("div", "question", row.question));
  item.append(element("div", "", `expected: ${row.expected}`), answers);
  return item;
}

function show() {
  const wanted = Object.fromEntries(new FormData(form));
  const found = data.rows.filter((row) => matches(row, wanted));
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  page = Math.min(page, pages - 1);
  list.replaceChildren(...found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(card));
  count.textContent = `${found.length} of ${data.rows.length} examples, page ${page + 1} of ${pages}`;
  document.getElementById("previous").disabled = page === 0;
  document.getElementById("next").disabled = page === pages - 1;
}

function turn(step) {
  page += step;
  show();
  document.getElementById("errors").scrollIntoView();
}

form.addEventListener("input", () => { page = 0; show(); });
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => { page = 0; show(); }));
document.getElementById("previous").addEventListener("click", () => turn(-1));
document.getElementById("next").addEventListener("click", () => turn(1));
show();
