"use strict";
(() => {
  const table = document.getElementById("levels");
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  function sort(key, descending) {
    const place = heads.findIndex((head) => head.dataset.key === key);
    if (place < 0) return;
    const value = (row) => {
      const cell = row.cells[place];
      return place === 0 ? cell.textContent : "value" in cell.dataset ? Number(cell.dataset.value) : null;
    };
    const rows = [...body.rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "string" ? a.localeCompare(b) : a - b;
      return descending ? -order : order;
    });
    body.append(...rows);
    heads.forEach((head, at) => head.setAttribute("aria-sort", at !== place ? "none" : descending ? "descending" : "ascending"));
  }
  heads.forEach((head) => head.firstChild.addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    history.replaceState(null, "", `#sort=${head.dataset.key}${descending ? ":desc" : ""}`);
    sort(head.dataset.key, descending);
  }));
  function follow() {
    const asked = /^#sort=([a-z]+)(:desc)?$/.exec(location.hash);
    if (asked) sort(asked[1], Boolean(asked[2]));
  }
  addEventListener("hashchange", follow);
  follow();
})();
