"use strict";

// Sorting: a heading sorts its column upwards, then downwards. Cells without a number stay at the end.
for (const table of document.querySelectorAll("table")) {
  const heads = table.tHead.rows[table.tHead.rows.length - 1].cells;
  const bodies = [...table.tBodies].filter((body) => !body.classList.contains("fixed"));
  [...heads].forEach((head, place) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      for (const body of bodies) {
        const rows = [...body.rows].filter((row) => !row.classList.contains("part"));
        const words = !rows.some((row) => "value" in row.cells[place].dataset);
        rows.sort((one, two) => {
          const [a, b] = [one.cells[place], two.cells[place]];
          if (words) return sign * a.textContent.localeCompare(b.textContent, "en");
          const [x, y] = [a, b].map((cell) => ("value" in cell.dataset ? number(cell.dataset.value) : NaN));
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
          return x === y ? 0 : sign * (x < y ? -1 : 1);
        });
        body.append(...rows);
      }
    });
  });
}

function number(text) {
  return text === "inf" ? Infinity : Number(text);
}

// Generated texts: one prompt at a time.
const choice = document.querySelector("#prompt");
if (choice) {
  const show = () => {
    for (const prompt of document.querySelectorAll(".prompt")) prompt.hidden = prompt.id !== choice.value;
  };
  choice.closest("[hidden]").hidden = false;
  choice.addEventListener("change", show);
  show();
}

// Folds: a link to something inside opens them.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
}
window.addEventListener("hashchange", unfold);
unfold();

// Figures: a click enlarges; without scripts the link opens the file beside the page.
const dialog = document.querySelector("dialog");
const large = dialog.querySelector("img");
for (const link of document.querySelectorAll(".enlarge")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const picture = link.querySelector("img");
    large.src = picture.src;
    large.alt = picture.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

// Contents: the small list closes after a choice; the wide one marks the section in view.
const small = document.querySelector(".contents.small");
small.addEventListener("click", (event) => {
  if (event.target.closest("a")) small.open = false;
});
const links = new Map(
  [...document.querySelectorAll(".contents.wide a[href^='#']")].map((link) => [link.hash.slice(1), link]),
);
const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  },
  { rootMargin: "-15% 0px -75% 0px" },
);
for (const section of document.querySelectorAll("main > section")) seen.observe(section);
