"use strict";
// Filters, sorting, and the browser of single judgments. Texts of models are only ever text nodes here.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const make = (tag, kind, text) => {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  document.documentElement.classList.add("js");

  // Tables that sort by a click on a column's head. A cell's number is in data-v; cells without one go last.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = make("button", "", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const key = (row) => {
          const cell = row.cells[column];
          if (cell.dataset.v === undefined) return cell.textContent.trim().toLowerCase();
          return cell.dataset.v === "" ? NaN : Number(cell.dataset.v);
        };
        const rows = [...body.rows].map((row, place) => ({ row, place, key: key(row) }));
        rows.sort((a, b) => {
          const lost = Number.isNaN(a.key) - Number.isNaN(b.key);
          if (lost || Number.isNaN(a.key)) return lost || a.place - b.place;
          const order = a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
          return (falling ? -order : order) || a.place - b.place;
        });
        body.append(...rows.map((entry) => entry.row));
      });
    });
  }

  // Items by text and verdict.
  const items = $("#item-table");
  if (items) {
    const rows = [...items.tBodies[0].rows].map((row) => ({ row, text: row.textContent.toLowerCase() }));
    const words = $("#item-words");
    const verdict = $("#item-verdict");
    const filter = () => {
      const wanted = words.value.trim().toLowerCase();
      let shown = 0;
      for (const { row, text } of rows) {
        row.hidden = !text.includes(wanted) || (verdict.value !== "" && row.dataset.verdict !== verdict.value);
        shown += !row.hidden;
      }
      $("#item-count").value = `${shown} of ${rows.length} items`;
    };
    words.addEventListener("input", filter);
    verdict.addEventListener("change", filter);
    filter();
  }

  // Single judgments.
  const list = $("#judgments");
  if (!list) return;
  const data = JSON.parse($("#data").textContent);
  const digits = (x, n) => x.toFixed(n).replace("-", "\u2212");
  const STEP = 20;

  const say = (node, text) => {
    node.dir = "auto";
    if (Array.isArray(text)) {
      // [beginning, how many characters are not in the page, end]
      const gap = `\n[\u2026 ${text[1].toLocaleString("en")} characters are not in this page \u2026]\n`;
      node.append(text[0], make("span", "cut", gap), text[2]);
    } else if (text === "") {
      node.append(make("em", "soft", "empty"));
    } else {
      node.textContent = text;
    }
  };

  const textBlock = (kind, who, text) => {
    const block = make("div", `turn ${kind}`);
    block.append(make("span", "", who));
    const box = make("div");
    say(box, text);
    block.append(box);
    return block;
  };

  const bar = (p) => {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("aria-hidden", "true");
    const rect = document.createElementNS(space, "rect");
    rect.setAttribute("width", `${100 * p}%`);
    rect.setAttribute("height", "100%");
    rect.setAttribute("class", p > 0.5 ? "yes" : "no");
    const half = document.createElementNS(space, "line");
    for (const [name, value] of [["x1", "50%"], ["x2", "50%"], ["y1", "0"], ["y2", "100%"], ["class", "half"]]) {
      half.setAttribute(name, value);
    }
    svg.append(rect, half);
    return svg;
  };

  const labelText = (x) => (x === 1 ? "yes" : x === 0 ? "no" : digits(x, 2));

  const fill = (box, j) => {
    const query = data.queries[j.session_id];
    const left = make("div");
    const right = make("div");
    if (query.turns.length) {
      const turns = j.history === null ? query.turns : [...j.history, query.turns[query.turns.length - 1]];
      for (const [role, text] of turns) left.append(textBlock("query", role === "user" ? "Query" : role, text));
    }
    if (j.text !== null) {
      left.append(textBlock("response", `Response of ${j.model}`, j.text));
    } else {
      const missing = query.turns.length ? "This response is missing in the benchmark." : "Texts are not in this report: its benchmark was not given.";
      left.append(make("p", "none", missing));
    }
    if (j.truncated) left.append(make("p", "note", `The judge did not see ${j.truncated.toLocaleString("en")} characters in the middle of the prompt.`));
    const asked = make("ol", "asked");
    j.p.forEach((p, i) => {
      const line = make("li");
      const text = make("div", "text");
      say(text, query.items.length ? query.items[i] : `item ${i}`);
      line.append(text);
      const answer = make("div", "answer");
      if (p === null) {
        answer.append(make("span", "soft", `no grade: ${j.status[i].replaceAll("_", " ")}`));
      } else {
        answer.append(make("b", p > 0.5 ? "yes" : "no", `p(yes) = ${digits(p, 2)}`), bar(p));
      }
      if (query.weights.length) answer.append(make("span", "weight", `weight ${digits(query.weights[i], 2)}`));
      if (j.item_labels !== null) {
        const label = j.item_labels[i];
        const wrong = label !== null && p !== null && label !== 0.5 && label > 0.5 !== p > 0.5;
        answer.append(make("span", wrong ? "chip bad" : "chip", `label: ${label === null ? "none" : labelText(label)}`));
      }
      line.append(answer);
      asked.append(line);
    });
    right.append(make("h3", "", `${j.p.length} ${j.p.length === 1 ? "item" : "items"}`), asked);
    box.append(left, right);
  };

  const card = (j) => {
    const node = make("details", "judgment");
    const head = make("summary");
    const who = make("span", "who", j.model);
    who.dir = "auto";
    const session = make("span", "session", j.session_id);
    const said = make("span", "said");
    said.append("score ", make("b", "", j.score === null ? "none" : digits(j.score, 2)));
    if (j.error !== null) said.append(` \u00b1 ${digits(j.error, 2)}`);
    if (j.abstained) said.append(" (too uncertain to count)");
    if (j.label !== null) said.append(" \u00b7 label ", make("b", "", String(Math.round(j.label * 1000) / 1000)));
    else if (data.labeler !== null) said.append(" \u00b7 no label");
    head.append(who, session, said);
    node.append(head);
    node.addEventListener("toggle", () => {
      if (node.open && node.childElementCount === 1) {
        const box = make("div");
        fill(box, j);
        node.append(box);
      }
    });
    return node;
  };

  const plain = (text) => (Array.isArray(text) ? text[0] + text[2] : text || "");
  for (const j of data.judgments) {
    const query = data.queries[j.session_id];
    const turns = j.history === null ? query.turns : [...j.history, ...query.turns];
    const parts = [j.model, j.session_id, plain(j.text), ...query.items.map(plain), ...turns.map((turn) => plain(turn[1]))];
    j.words = parts.join("\n").toLowerCase();
  }
  const model = $("#browse-model");
  const session = $("#browse-query");
  const order = $("#browse-order");
  const words = $("#browse-words");
  const option = (select, value) => {
    const node = make("option", "", value);
    node.value = value;
    select.append(node);
  };
  const names = (key) => [...new Set(data.judgments.map((j) => j[key]))].sort();
  names("model").forEach((name) => option(model, name));
  names("session_id").forEach((name) => option(session, name));
  const last = (x, otherwise) => (x === null ? otherwise : x);
  const ORDERS = {
    wrong: (a, b) => last(b.wrong, -1) - last(a.wrong, -1),
    error: (a, b) => last(b.error, -1) - last(a.error, -1),
    low: (a, b) => last(a.score, Infinity) - last(b.score, Infinity),
    high: (a, b) => last(b.score, -Infinity) - last(a.score, -Infinity),
    query: (a, b) => (a.session_id < b.session_id ? -1 : a.session_id > b.session_id ? 1 : 0),
  };
  let found = [];
  let shown = 0;
  const more = $("#browse-more");
  const grow = () => {
    const next = found.slice(shown, shown + STEP);
    list.append(...next.map(card));
    shown += next.length;
    more.hidden = shown >= found.length;
    more.textContent = `Show ${Math.min(STEP, found.length - shown)} more`;
  };
  const filter = () => {
    const wanted = words.value.trim().toLowerCase();
    found = data.judgments.filter((j) =>
      (model.value === "" || j.model === model.value) &&
      (session.value === "" || j.session_id === session.value) && j.words.includes(wanted));
    found.sort(ORDERS[order.value]);
    list.replaceChildren();
    shown = 0;
    grow();
    $("#browse-count").value = `${found.length} of ${data.judgments.length} responses`;
    if (found.length) list.firstElementChild.open = true;
  };
  for (const control of [model, session, order]) control.addEventListener("change", filter);
  words.addEventListener("input", filter);
  more.addEventListener("click", grow);
  filter();

  // An item's query leads to its responses.
  for (const link of document.querySelectorAll("a[data-session]")) {
    link.addEventListener("click", () => {
      model.value = "";
      words.value = "";
      session.value = link.dataset.session;
      filter();
    });
  }
})();
