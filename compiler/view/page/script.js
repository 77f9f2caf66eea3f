"use strict";
// Every text of the dataset is set as text, never as HTML: the rows are not to be trusted.
const { view, words } = JSON.parse(document.getElementById("data").textContent);
const ROWS_AT_ONCE = 20;
const TOKENS_AT_ONCE = 3000;
const CHARACTERS_AT_ONCE = 20000;
const LOSS_LEVELS = 8;
const PHONE = matchMedia("(max-width: 56rem)");
const NARROW = matchMedia("(max-width: 74rem)");
const STATES = ["masked", "learned", "cut"];
const IMAGE = /^data:image\/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+$/;
const byId = (id) => document.getElementById(id);
const tools = byId("tools");
const list = byId("list");
const tip = byId("tip");
const more = byId("more");
const buttons = [...document.querySelectorAll("[data-facet]")];
const chosen = {};
const tokenFacts = new WeakMap();
let matching = [];
let rowsShown = 0;
let currentToken = null;

// The catalogue has the texts of the page's language by their English.
function tr(english, values = {}) {
  return (words[english] ?? english).replace(/\{(\w+)(?::,)?\}/g, (_, name) => values[name]);
}

const grouped = (number) => number.toLocaleString("en-US");

// The count with its noun: "1 row", "2,000 rows".
function counted(number, singular, plural) {
  return `${grouped(number)} ${words[singular] ?? (number === 1 ? singular : plural)}`;
}

const stateName = (state) => [tr("masked"), tr("learned"), tr("cut off")][state];

function element(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

function shape(tag, attributes, ...content) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  made.append(...content);
  return made;
}

// Filters -----------------------------------------------------------------------------------------

const spansOf = (side) => side.turns.reduce((sum, turn) => sum + turn.spans.length, 0);

// Tokens as the histogram counts them: of a pair the longer side.
function length(row) {
  if (row.sides.length < 2) return row.tokens;
  return Math.max(...row.sides.map(spansOf));
}

const learnedShare = (row) => (row.tokens ? row.learned / row.tokens : 0);

const FACETS = {
  label: (row, value) => row.label === value,
  problem: (row, value) =>
    row.problems.includes(value) || (value === "dropped" && row.dropped !== "") || (value === "cut" && row.cut > 0),
  length: (row, value) => {
    const [from, to] = value.split("-").map(Number);
    return view.model !== "" && length(row) >= from && length(row) <= to;
  },
};

const searchTexts = new Map();
function searchText(row) {
  if (!searchTexts.has(row)) {
    const turns = row.sides.flatMap((side) => side.turns.map((turn) => turn.text));
    const text = [`#${row.row}`, row.label, ...row.problems, row.dropped, row.raw, turns.join("")];
    searchTexts.set(row, text.join("\n").toLowerCase());
  }
  return searchTexts.get(row);
}

function matches(row, text) {
  const facets = Object.entries(chosen);
  return facets.every(([name, value]) => FACETS[name](row, value)) && (text === "" || searchText(row).includes(text));
}

const ORDERS = {
  file: (one, other) => one.row - other.row,
  longest: (one, other) => length(other) - length(one),
  most: (one, other) => learnedShare(other) - learnedShare(one),
  least: (one, other) => learnedShare(one) - learnedShare(other),
  loss: (one, other) => (other.loss ?? -1) - (one.loss ?? -1),
};

function show() {
  const text = tools.elements.text.value.trim().toLowerCase();
  matching = view.rows.filter((row) => matches(row, text)).sort(ORDERS[tools.elements.order.value]);
  rowsShown = 0;
  hideTip();
  list.replaceChildren();
  if (matching.length === 0) list.append(element("p", "empty", tr("No row on this page matches these filters.")));
  showMore();
  showFilters(text);
}

function showMore() {
  const next = matching.slice(rowsShown, rowsShown + ROWS_AT_ONCE);
  list.append(...next.map((row) => card(row)));
  rowsShown += next.length;
  const left = matching.length - rowsShown;
  more.hidden = left === 0;
  more.textContent = tr("Show {rows} more", { rows: counted(Math.min(left, ROWS_AT_ONCE), "row", "rows") });
}

function showFilters(text) {
  const total = counted(view.rows.length, "row", "rows");
  byId("count").textContent = tr("{matching} of {rows} on this page", { matching: grouped(matching.length), rows: total });
  const active = [];
  const remove = (name, label, clear) => {
    const button = element("button", "", label, " ✕");
    button.type = "button";
    button.setAttribute("aria-label", tr("Remove the filter {name}", { name: label }));
    button.addEventListener("click", clear);
    active.push(button);
  };
  buttons.forEach((button) => {
    const pressed = chosen[button.dataset.facet] === button.dataset.value;
    button.setAttribute("aria-pressed", pressed);
    if (pressed) remove(button.dataset.facet, button.dataset.text, () => choose(button));
  });
  if (text) remove("text", `“${text}”`, () => { tools.elements.text.value = ""; show(); });
  byId("active").replaceChildren(...active);
}

// A second click on the same filter removes it. Filters of different kinds combine.
function choose(button) {
  const { facet, value } = button.dataset;
  if (chosen[facet] === value) delete chosen[facet];
  else chosen[facet] = value;
  show();
}

function clearFilters() {
  Object.keys(chosen).forEach((name) => delete chosen[name]);
  tools.elements.text.value = "";
  show();
}

// Tokens ------------------------------------------------------------------------------------------

const hasLosses = tools.elements.colour !== undefined;

// The scale ends at the 98th percentile, so that a single token does not fade all others.
function highestLoss() {
  const losses = [];
  view.rows.forEach((row) => row.sides.forEach((side) => side.turns.forEach((turn) => turn.spans.forEach((span) => {
    if (span.length > 2 && span[2] !== null) losses.push(span[2]);
  }))));
  losses.sort((one, other) => one - other);
  return Math.max(1, losses[Math.floor(0.98 * (losses.length - 1))] ?? 1);
}
const topLoss = hasLosses ? highestLoss() : 1;

// A text as characters of which spans count the lengths; plain texts are sliced without a list of them.
function slicer(text) {
  if (!/[\ud800-\udfff]/.test(text)) return (from, to) => text.slice(from, to);
  const characters = Array.from(text);
  return (from, to) => characters.slice(from, to).join("");
}

// The tokens of a turn that belong to one character are shown together: [text, spans].
function pieces(turn) {
  const slice = slicer(turn.text);
  const made = [];
  let waiting = [];
  let start = 0;
  turn.spans.forEach((span) => {
    waiting.push(span);
    if (span[0] === 0) return;
    made.push([slice(start, start + span[0]), waiting]);
    start += span[0];
    waiting = [];
  });
  if (waiting.length > 0) {
    if (made.length > 0) made[made.length - 1][1].push(...waiting);
    else made.push(["\ufffd", waiting]);
  }
  return made;
}

function token(text, spans, number, total) {
  const states = [...new Set(spans.map((span) => span[1]))];
  const losses = spans.map((span) => span[2]).filter((loss) => typeof loss === "number");
  const classes = ["t", STATES[spans[spans.length - 1][1]]];
  if (states.length > 1) classes.push("mixed");
  if (/^\s*\n\s*$/.test(text)) classes.push("nl");
  const weight = Math.max(...spans.map((span) => span[3] ?? 1));
  if (weight !== 1) classes.push(weight > 1 ? "heavy" : "light");
  if (losses.length > 0) {
    const level = Math.round((Math.max(...losses) / topLoss) * LOSS_LEVELS);
    classes.push(`l${Math.max(0, Math.min(LOSS_LEVELS, level))}`);
  }
  const made = element("span", classes.join(" "), text);
  if (spans.length > 1) made.title = tr("{tokens} make this character", { tokens: counted(spans.length, "token", "tokens") });
  tokenFacts.set(made, { number, total, spans });
  return made;
}

// "token 57 of 96 · learned · weight 5 · loss 0.02 (p 0.98)"
function factsText({ number, total, spans }) {
  const values = { number: grouped(number), last: grouped(number + spans.length - 1), total: grouped(total) };
  const place = spans.length > 1
    ? tr("tokens {number} to {last} of {total}, one character", values)
    : tr("token {number} of {total}", values);
  const facts = spans.map(([, state, loss, weight]) => {
    const parts = [stateName(state)];
    if (typeof weight === "number") parts.push(`${tr("weight")} ${weight}`);
    if (typeof loss === "number") parts.push(`${tr("loss")} ${loss.toFixed(3)} (p ${Math.exp(-loss).toFixed(3)})`);
    return parts.join(" · ");
  });
  return [place, ...new Set(facts)].join(" · ");
}

function showTip(target) {
  hideTip();
  currentToken = target;
  target.classList.add("now");
  tip.textContent = factsText(tokenFacts.get(target));
  tip.hidden = false;
  placeTip();
}

// Below the token, or above it at the lower edge of the window; it follows the token when the page scrolls.
function placeTip() {
  if (!currentToken) return;
  const place = currentToken.getClientRects()[0] ?? currentToken.getBoundingClientRect();
  const below = place.bottom + 6;
  const top = below + tip.offsetHeight > innerHeight ? place.top - tip.offsetHeight - 6 : below;
  tip.style.top = `${Math.max(4, top)}px`;
  tip.style.left = `${Math.max(4, Math.min(place.left, innerWidth - tip.offsetWidth - 4))}px`;
}

function hideTip() {
  if (currentToken) currentToken.classList.remove("now");
  currentToken = null;
  tip.hidden = true;
}

function stepToken(row, step) {
  const tokens = [...row.querySelectorAll(".t")];
  if (tokens.length === 0) return;
  const place = currentToken && row.contains(currentToken) ? tokens.indexOf(currentToken) + step : 0;
  const target = tokens[Math.max(0, Math.min(tokens.length - 1, place))];
  target.scrollIntoView({ block: "nearest" });
  showTip(target);
}

// Rows --------------------------------------------------------------------------------------------

const ROLES = {
  system: () => tr("system"),
  user: () => tr("user"),
  assistant: () => tr("assistant"),
  function: () => tr("assistant"),
  observation: () => tr("tool"),
  template: () => "",
};
const PARTS = {
  text: () => "",
  thought: () => tr("thought"),
  tool_call: () => tr("tool call"),
  tool_result: () => tr("tool result"),
  image: () => tr("image"),
};

// What is left of a row's allowance of tokens; `cut` is set when a text was not shown to its end.
const allowance = (tokens) => ({ tokens, cut: false });

function turnElement(turn, side, images, left) {
  const text = element("div", "text");
  if (turn.role === "template") text.dir = "ltr";
  else text.dir = "auto";
  if (turn.spans.length === 0) text.append(turn.text.slice(0, CHARACTERS_AT_ONCE));
  for (const [piece, spans] of pieces(turn)) {
    if (left.tokens <= 0) {
      left.cut = true;
      break;
    }
    text.append(token(piece, spans, side.next, side.total));
    side.next += spans.length;
    left.tokens -= spans.length;
  }
  const part = PARTS[turn.part]?.() ?? turn.part;
  const role = element("div", "role", ROLES[turn.role]?.() ?? turn.role);
  if (part) role.append(element("span", "", part));
  const made = element("div", `turn ${turn.role} ${turn.part}`, role);
  if (turn.part !== "image") {
    made.append(text);
    return made;
  }
  const figure = element("figure", "");
  const image = picture(images.shift());
  if (image) figure.append(image);
  const tokens = element("details", "", element("summary", "", counted(turn.spans.length, "token", "tokens")), text);
  figure.append(tokens);
  made.append(figure);
  return made;
}

function picture(uri) {
  if (uri === undefined || !IMAGE.test(uri)) return null;
  const image = element("img", "");
  image.src = uri;
  image.alt = tr("image of the row");
  return image;
}

const SIDE_NAMES = { chosen: () => tr("✓ chosen"), rejected: () => tr("✗ rejected") };
const MARKS = { good: () => tr("✓ good answer"), bad: () => tr("✗ bad answer") };

function sideElement(side, images, left) {
  const made = element("section", "side");
  const names = [SIDE_NAMES[side.name], MARKS[side.mark]].filter(Boolean);
  names.forEach((name) => {
    const good = side.name === "chosen" || side.mark === "good";
    made.append(element("h3", good ? "good" : "bad", name()));
  });
  const place = { next: 1, total: spansOf(side) };
  let previous = "";
  side.turns.filter((turn) => turn.text !== "" || turn.spans.length > 0).forEach((turn) => {
    if (left.tokens <= 0) {
      left.cut = true;
      return;
    }
    const next = turnElement(turn, place, images, left);
    // Pieces of the template in a row are one line.
    if (turn.role === "template" && previous === "template") {
      made.lastChild.querySelector(".text").append(...next.querySelector(".text").childNodes);
    } else {
      made.append(next);
    }
    previous = turn.role;
  });
  return made;
}

function rawText(row) {
  if (row.raw.length > 100000) return row.raw;
  try {
    return JSON.stringify(JSON.parse(row.raw), null, 1);
  } catch {
    return row.raw;
  }
}

function rawElement(row, open) {
  const text = rawText(row);
  const pre = element("pre", "", text.slice(0, CHARACTERS_AT_ONCE));
  const made = element("details", "raw", element("summary", "", tr("Raw row")), pre);
  if (text.length > CHARACTERS_AT_ONCE) {
    const button = element("button", "part", tr("Show all {count:,} characters", { count: grouped(text.length) }));
    button.type = "button";
    button.addEventListener("click", () => { pre.textContent = text; button.remove(); });
    made.append(button);
  }
  made.open = open;
  return made;
}

function shareBar(row) {
  const percent = (part) => `${(100 * part) / row.tokens}%`;
  const bar = shape("svg", { "aria-hidden": "true" });
  bar.append(shape("rect", { width: percent(row.learned), height: "100%" }));
  if (row.cut) bar.append(shape("rect", { class: "cut", x: percent(row.tokens - row.cut), width: percent(row.cut), height: "100%" }));
  return bar;
}

function head(row) {
  const number = element("a", "number", `#${grouped(row.row)}`);
  number.href = `#row=${row.row}`;
  const made = element("div", "head", number);
  const chip = (text, kind = "") => made.append(element("bdi", `chip ${kind}`, text));
  if (row.label) chip(row.label);
  row.problems.forEach((code) => chip(code === "cut" ? tr("cut off") : code === "dropped" ? tr("dropped") : code, "problem"));
  if (row.loss !== null) chip(`${tr("loss")} ${row.loss.toFixed(2)}`, "loss");
  if (row.tokens > 0) {
    const figures = [counted(row.tokens, "token", "tokens"), tr("{count:,} learned", { count: grouped(row.learned) })];
    if (row.cut) figures.push(tr("{count:,} cut off", { count: grouped(row.cut) }));
    made.append(element("span", "figures", figures.join(" · ")), shareBar(row));
  }
  return made;
}

function card(row, tokens = TOKENS_AT_ONCE) {
  const made = element("article", "row", head(row));
  made.id = `row=${row.row}`;
  made.tabIndex = -1;
  made.setAttribute("aria-label", tr("row {row}", { row: grouped(row.row) }));
  if (row.dropped) made.append(element("p", "notice", tr("LLaMA-Factory leaves this row out: {reason}", { reason: row.dropped })));
  if (row.note) made.append(element("p", "notice", row.note));
  const images = [...row.images];
  const left = allowance(tokens);
  const sides = element("div", row.sides.length > 1 ? "sides two" : "sides");
  // Both sides of a pair show the same images.
  sides.append(...row.sides.map((side) => sideElement(side, [...images], left)));
  const placed = Math.max(0, ...row.sides.map((side) => side.turns.filter((turn) => turn.part === "image").length));
  const rest = images.slice(placed).map(picture).filter(Boolean);
  if (rest.length > 0) made.append(element("div", "images", ...rest));
  const body = element("div", "body");
  const raw = rawElement(row, row.sides.length === 0 || !NARROW.matches);
  if (row.sides.length > 0) body.append(sides);
  else body.classList.add("raw-only");
  body.append(raw);
  raw.addEventListener("toggle", () => body.classList.toggle("raw-closed", !raw.open));
  made.append(body);
  if (left.cut) {
    const button = element("button", "part", tr("Show all {count:,} tokens", { count: grouped(row.tokens) }));
    button.type = "button";
    button.addEventListener("click", () => made.replaceWith(card(row, Infinity)));
    sides.append(button);
  }
  return made;
}

// A link to a row shows it whatever the filters were.
function follow() {
  const number = Number(new URLSearchParams(location.hash.slice(1)).get("row"));
  const row = view.rows.find((candidate) => candidate.row === number);
  if (!row) return;
  clearFilters();
  while (rowsShown <= matching.indexOf(row)) showMore();
  focusRow(list.children[matching.indexOf(row)]);
}

function focusRow(row) {
  hideTip();
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "start" });
}

function stepRow(step) {
  const rows = [...list.querySelectorAll(".row")];
  const current = rows.indexOf(document.activeElement.closest(".row"));
  const place = current < 0 ? 0 : current + step;
  if (place >= rows.length && rowsShown < matching.length) {
    showMore();
    stepRow(step);
  } else if (rows[place]) {
    focusRow(rows[place]);
  }
}

// Keys, pointer, start ----------------------------------------------------------------------------

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  const field = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    if (field) field.blur();
    clearFilters();
    return;
  }
  if (field) return;
  const row = document.activeElement.closest(".row");
  const raw = row?.querySelector(".raw");
  const actions = {
    j: () => stepRow(1),
    k: () => stepRow(-1),
    "/": () => tools.elements.text.focus(),
    "?": () => byId("keys").showModal(),
  };
  if (row) {
    Object.assign(actions, {
      ArrowDown: () => stepRow(1),
      ArrowUp: () => stepRow(-1),
      ArrowRight: () => stepToken(row, 1),
      ArrowLeft: () => stepToken(row, -1),
      r: () => { raw.open = !raw.open; },
    });
  }
  if (!Object.hasOwn(actions, event.key)) return;
  event.preventDefault();
  actions[event.key]();
}

function pointed(event) {
  const target = event.target.closest?.(".t");
  if (target && tokenFacts.has(target)) showTip(target);
  else if (currentToken) hideTip();
}

function colourBy(colour) {
  document.body.classList.toggle("by-loss", colour === "loss");
  byId("scale").hidden = colour !== "loss";
}

buttons.forEach((button) => button.addEventListener("click", () => choose(button)));
tools.elements.text.addEventListener("input", show);
tools.elements.order.addEventListener("change", show);
tools.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", showMore);
byId("help").addEventListener("click", () => byId("keys").showModal());
document.addEventListener("keydown", pressed);
list.addEventListener("pointerover", pointed);
list.addEventListener("click", pointed);
list.addEventListener("pointerleave", hideTip);
addEventListener("scroll", placeTip, { passive: true });
addEventListener("hashchange", follow);
tools.hidden = false;
if (PHONE.matches) byId("overview").open = false;
if (hasLosses) {
  tools.elements.colour.value = "loss";
  tools.elements.order.value = "loss";
  byId("highest").textContent = tr("{loss} or more", { loss: topLoss.toFixed(1) });
  tools.querySelectorAll("[name=colour]").forEach((radio) => radio.addEventListener("change", () => colourBy(radio.value)));
  colourBy("loss");
}
show();
follow();
