"use strict";
const table = document.querySelector("table.models");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const search = document.getElementById("search");
  const selects = [...document.querySelectorAll("select")];
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word)) &&
        selects.every((select) => !select.value || row.dataset[select.dataset.key] === select.value);
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("count").textContent = `${shown} of ${rows.length} models`;
  };
  search.addEventListener("input", filter);
  selects.forEach((select) => select.addEventListener("change", filter));
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.classList.contains("number") ? Number(cell.dataset.value) : cell.dataset.value ?? cell.textContent;
  };
  const compare = (one, other) => {
    const missing = (thing) => thing === "" || thing === undefined;
    if (missing(one) || missing(other)) return missing(one) - missing(other);
    return typeof one === "number" ? one - other : String(one).localeCompare(other, undefined, { numeric: true });
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const absent = (row) => row.cells[column].dataset.value === "";
      rows.sort((a, b) => absent(a) - absent(b) || (down ? -1 : 1) * compare(value(a, column), value(b, column)));
      body.append(...rows);
    });
  });
}
const curve = document.getElementById("curve");
const arms = curve ? JSON.parse(curve.textContent) : {};
const values = Object.values(arms).flat().filter((loss) => loss > 0);
if (values.length) {
  const svg = document.querySelector("svg.curve");
  const legend = document.querySelector(".legend");
  const colors = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"];
  const box = { left: 85, right: 700, top: 14, bottom: 265 };
  const least = (some) => some.reduce((one, other) => Math.min(one, other));
  const most = (some) => some.reduce((one, other) => Math.max(one, other));
  // An arm that explodes leaves at the top, so that the others are seen.
  const first = Object.values(arms).map((losses) => losses[0]).filter((loss) => loss > 0);
  const ceiling = Math.min(most(values), 10 * (first.length ? least(first) : most(values)));
  const low = Math.log10(Math.min(least(values), ceiling)), high = Math.log10(ceiling);
  const steps = most(Object.values(arms).map((losses) => losses.length));
  const x = (index) => box.left + (box.right - box.left) * (steps > 1 ? index / (steps - 1) : 0.5);
  const y = (loss) => box.bottom - (box.bottom - box.top) * (high > low ? Math.min(1, (Math.log10(loss) - low) / (high - low)) : 0.5);
  const draw = (kind, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, content] of Object.entries(attributes)) element.setAttribute(name, content);
    if (text !== undefined) element.textContent = text;
    svg.append(element);
    return element;
  };
  for (let tick = 0; tick <= 4; tick++) {
    const loss = 10 ** (low + (high - low) * tick / 4);
    draw("line", { x1: box.left, x2: box.right, y1: y(loss), y2: y(loss), stroke: "currentColor", "stroke-opacity": 0.15 });
    draw("text", { x: box.left - 6, y: y(loss) + 4, "text-anchor": "end" }, loss.toPrecision(2));
    const index = Math.round((steps - 1) * tick / 4);
    draw("text", { x: x(index), y: box.bottom + 22, "text-anchor": "middle" }, index + 1);
  }
  draw("text", { x: (box.left + box.right) / 2, y: box.bottom + 46, "text-anchor": "middle" }, "optimizer step");
  Object.values(arms).forEach((losses, arm) => {
    const points = losses.map((loss, index) => (loss > 0 ? `${x(index)},${y(loss)}` : "")).filter(Boolean).join(" ");
    draw("polyline", { points, fill: "none", stroke: colors[arm % colors.length], "stroke-width": 2 });
  });
  const cursor = draw("line", { y1: box.top, y2: box.bottom, stroke: "currentColor", "stroke-opacity": 0.5, visibility: "hidden" });
  const show = (index) => {
    legend.replaceChildren(...Object.entries(arms).map(([name, losses], arm) => {
      const entry = document.createElement("span"), mark = document.createElement("i");
      mark.style.background = colors[arm % colors.length];
      const at = index === null ? "" : `: ${losses[index] > 0 ? losses[index].toPrecision(3) : "-"}`;
      entry.append(mark, name + at);
      return entry;
    }), index === null ? "" : `step ${index + 1}`);
  };
  show(null);
  svg.addEventListener("pointermove", (event) => {
    const place = (event.clientX - svg.getBoundingClientRect().left) / svg.getBoundingClientRect().width * 720;
    const index = Math.round((steps - 1) * Math.min(1, Math.max(0, (place - box.left) / (box.right - box.left))));
    cursor.setAttribute("x1", x(index));
    cursor.setAttribute("x2", x(index));
    cursor.setAttribute("visibility", "visible");
    show(index);
  });
  svg.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); show(null); });
}
