"use strict";
// One cursor for all curves over kimg, the player of sample grids, and commands to copy. Without it the page reads as well.
const numbers = JSON.parse(document.getElementById("numbers").textContent);
const all = (selector) => [...document.querySelectorAll(selector)];
const NAMES = {
  d_loss: "D", g_loss: "G", d_real: "D(x)", d_fake: "D(G(z))", d_norm: "D", g_norm: "G",
  d_accuracy: "unseen", d_accuracy_seen: "training", images_per_second: "images/s", share: "FD/Tr",
};

function nearest(values, wanted) {
  let best = 0;
  values.forEach((value, i) => { if (Math.abs(value - wanted) < Math.abs(values[best] - wanted)) best = i; });
  return best;
}

function said(column, kimg) {
  const kept = column === "share" ? numbers.scores : numbers;
  const values = column === "share" ? kept.share : numbers.columns[column];
  const value = values[nearest(kept.kimg, kimg)];
  return value === undefined || value === null ? "" : `${NAMES[column]} ${value}`;
}

function look(kimg) {
  for (const field of all(".field[data-low]")) {
    const cursor = field.querySelector(".cursor") || field.appendChild(document.createElement("i"));
    const share = (kimg - field.dataset.low) / (field.dataset.high - field.dataset.low);
    cursor.className = "cursor";
    cursor.style.left = `${100 * Math.min(1, Math.max(0, share))}%`;
  }
  for (const chart of all(".chart[data-columns]")) {
    const parts = chart.dataset.columns.split(" ").map((column) => said(column, kimg)).filter(Boolean);
    chart.querySelector("output").textContent = `${Math.round(kimg)} kimg: ${parts.join("  ")}`;
  }
}

for (const field of all(".field[data-low]")) {
  const follow = (event) => {
    const box = field.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    look(Number(field.dataset.low) + share * (field.dataset.high - field.dataset.low));
  };
  field.addEventListener("pointermove", follow);
  field.addEventListener("pointerdown", follow);
}

const cards = all(".card");
const slider = document.getElementById("slider");
if (slider && cards.length) {
  const player = document.getElementById("player");
  const button = document.getElementById("play");
  let timer = null;
  const show = (i) => {
    const kimg = Number(cards[i].dataset.kimg);
    slider.value = i;
    player.src = cards[i].querySelector("img").src;
    document.getElementById("frame").textContent =
      `${Math.round(kimg)} kimg · ${cards[i].querySelector("p").textContent}`;
    look(kimg);
  };
  const stop = () => { clearInterval(timer); timer = null; button.textContent = "▶"; };
  slider.max = cards.length - 1;
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  button.addEventListener("click", () => {
    if (timer) { stop(); return; }
    let at = Number(slider.value) + 1 < cards.length ? Number(slider.value) : -1;
    button.textContent = "❚❚";
    timer = setInterval(() => { at += 1; show(at); if (at + 1 >= cards.length) stop(); }, 350);
  });
  slider.parentElement.hidden = false;
  show(nearest(cards.map((card) => Number(card.dataset.kimg)), Number(slider.dataset.kimg)));
}

const why = document.getElementById("why");
if (why) {
  const quoted = (text) => `'${text.replace(/'/g, "'\\''")}'`;
  why.addEventListener("input", () => {
    for (const reason of all(".reason")) reason.textContent = quoted(why.value);
  });
}
for (const button of all(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    getSelection().selectAllChildren(code);
    await navigator.clipboard.writeText(code.textContent).catch(() => document.execCommand("copy"));
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
