"use strict";

const $ = (id) => document.getElementById(id);
const MAX_SEED = 4294967295;
const FRAMES = 48;
const POINTS = 256;
const still = matchMedia("(prefers-reduced-motion: reduce)");

let models = [];
let maxImages = POINTS; // of one request
let shown = null; // the sample in the dialog
let ends = null; // seeds of the walk
let walkClass = null; // of the whole walk; null for unconditional models
let walk = { frames: 0, image: null, width: 0, height: 0, playing: false, frame: 0, step: 1, last: 0 };
let turn = 0; // of drawing: an answer that is overtaken is dropped

const model = () => models.find((m) => m.name === $("model").value);
const count = () => Math.min(maxImages, model()?.serving.kind === "vector" ? POINTS : Number($("count").value) ** 2);
const maxTruncation = () => (model()?.serving.prior === "uniform" ? 1 : 2);
const truncation = () => (Number($("truncation").value) > maxTruncation() ? null : Number($("truncation").value));

function common() {
  const wish = { model: `${model().name}@${model().serving.version}` };
  if (truncation() !== null) wish.truncation = truncation();
  return wish;
}

async function ask(path, wish) {
  const answer = await fetch(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(wish),
  });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.detail || `${answer.status} ${answer.statusText}`);
  }
  return answer;
}

function complain(error) {
  $("problem").hidden = !error;
  $("problem").textContent = error ? error.message : "";
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Samples.

async function draw() {
  const mine = ++turn;
  const wish = { ...common(), seed: Number($("seed").value), num_images: count() };
  if ($("class").value !== "") wish.class_idx = Number($("class").value);
  describe(wish);
  $("samples").classList.add("busy");
  const began = performance.now();
  try {
    const answer = await ask("sample", { ...wish, format: "json" });
    const drawn = await answer.json();
    if (mine !== turn) return;
    complain(null);
    const spent = Math.max(1, Math.round(performance.now() - began));
    const n = drawn.images.length;
    $("facts").textContent =
      `${n} ${n === 1 ? "sample" : "samples"} in ${spent} ms · cache ${answer.headers.get("x-cache")} · ${drawn.model}@${drawn.version} · ${drawn.digest.slice(0, 8)}`;
    if (model().serving.kind === "vector") scatter(drawn.images);
    else show(drawn.images);
  } catch (error) {
    if (mine === turn) complain(error);
  } finally {
    if (mine === turn) $("samples").classList.remove("busy");
  }
}

function show(images) {
  const [height, width] = model().serving.shape;
  const names = model().serving.classes;
  const box = $("samples");
  box.style.gridTemplateColumns = `repeat(${Math.ceil(Math.sqrt(images.length))}, minmax(0, 1fr))`;
  box.style.setProperty("--aspect", `${width} / ${height}`);
  box.replaceChildren(...images.map((image) => {
    const name = names && image.class_idx !== null ? names[image.class_idx] : "";
    const source = `data:image/png;base64,${image.png}`;
    const button = element("button", { type: "button" },
      element("img", { src: source, alt: `Sample of seed ${image.seed}${name ? `, ${name}` : ""}`, width, height }),
      element("span", { className: "seed", textContent: name ? `${image.seed} · ${name}` : image.seed }));
    button.addEventListener("click", () => open({ ...image, source, name }));
    return button;
  }));
  $("walk").hidden = maxImages < 2; // a walk has two frames at least
  if (maxImages < 2) return;
  const present = images.map((image) => image.seed);
  if (!ends) setEnds(present[0], present[present.length > 1 ? present.length - 1 : 0]);
  else setEnds(...ends);
}

function scatter(samples) {
  const points = samples.map((sample) => [sample.values[0], sample.values[1] ?? 0]);
  const reach = 1.1 * Math.max(1e-6, ...points.flat().map(Math.abs));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-100 -100 200 200");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${points.length} samples, by their first two values`);
  for (const [x, y] of points) {
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    dot.setAttribute("cx", (100 * x) / reach);
    dot.setAttribute("cy", (-100 * y) / reach);
    dot.setAttribute("r", "1.6");
    svg.append(dot);
  }
  $("samples").style.gridTemplateColumns = "1fr";
  $("samples").replaceChildren(svg);
  $("walk").hidden = true;
}

function describe(wish) {
  $("shell").textContent =
    `curl -X POST ${location.origin}/sample \\\n  -H 'content-type: application/json' \\\n  -d '${JSON.stringify(wish)}' -o grid.png`;
  const kept = new URLSearchParams({ model: model().name, seed: wish.seed, side: $("count").value, t: $("truncation").value });
  if (wish.class_idx !== undefined) kept.set("class", wish.class_idx);
  history.replaceState(null, "", `#${kept}`);
}

// One sample.

function address(seed, class_idx, format) {
  const query = new URLSearchParams();
  if (class_idx !== null && class_idx !== undefined) query.set("class_idx", class_idx);
  if (truncation() !== null) query.set("truncation", truncation());
  const { name, serving } = model();
  return `models/${name}/versions/${serving.version}/images/${seed}.${format}${query.size ? `?${query}` : ""}`;
}

function open(image) {
  shown = image;
  $("one-image").src = image.source;
  $("one-image").alt = `Sample of seed ${image.seed}`;
  $("one-title").textContent = `Seed ${image.seed}`;
  const facts = [image.name, truncation() === null ? "" : `truncation ${truncation()}`, `${model().name}@${model().serving.version}`];
  $("one-facts").textContent = facts.filter(Boolean).join(" · ");
  $("one-link").href = $("one-download").href = address(image.seed, image.class_idx, "png");
  $("one-download").download = `${model().name}-${image.seed}.png`;
  $("one").showModal();
}

// The walk.

async function setEnds(from, to) {
  const mine = ends = [from, to];
  $("walk-from-seed").textContent = from;
  $("walk-to-seed").textContent = to;
  try {
    const found = await classOf(from);
    if (mine !== ends) return;
    walkClass = found;
  } catch (error) {
    if (mine === ends) complain(error);
    return;
  }
  $("walk-from").src = address(from, walkClass, "png");
  $("walk-to").src = address(to, walkClass, "png");
  $("walk-from").alt = `Sample of seed ${from}`;
  $("walk-to").alt = `Sample of seed ${to}`;
  load();
}

// A walk keeps one class from end to end: the one chosen, or what its first seed draws by itself.
async function classOf(seed) {
  if (!model().serving.classes) return null;
  if ($("class").value !== "") return Number($("class").value);
  const answer = await ask("sample", { ...common(), seed, format: "json" });
  return (await answer.json()).images[0].class_idx;
}

function walkWish(format) {
  const frames = Math.min(FRAMES, maxImages - 1); // and one more: the last key frame
  const wish = { ...common(), keyframes: ends.map((seed) => ({ seed })), frames, format };
  if (walkClass !== null) wish.class_idx = walkClass;
  return wish;
}

async function load() {
  const mine = ends;
  const began = performance.now();
  try {
    const answer = await ask("interpolate", walkWish("strip"));
    const strip = await answer.blob();
    const spent = Math.max(1, Math.round(performance.now() - began));
    const image = await createImageBitmap(strip);
    if (mine !== ends) return;
    const [height, width] = model().serving.shape;
    walk = { ...walk, image, width, height, frames: Math.round(image.width / width), frame: 0, step: 1 };
    $("walk-frame").max = walk.frames - 1;
    $("walk-canvas").width = width;
    $("walk-canvas").height = height;
    $("walk-facts").textContent = `${walk.frames} frames in ${spent} ms`;
    paint();
    play(walk.playing || !still.matches);
  } catch (error) {
    complain(error);
  }
}

function paint() {
  if (!walk.image) return;
  const { image, width, height, frame } = walk;
  $("walk-canvas").getContext("2d").drawImage(image, frame * width, 0, width, height, 0, 0, width, height);
  $("walk-frame").value = frame;
}

function play(yes) {
  const before = walk.playing;
  walk.playing = yes;
  $("walk-play").textContent = yes ? "Pause" : "Play";
  $("walk-play").setAttribute("aria-pressed", String(yes));
  if (yes && !before) requestAnimationFrame(tick);
}

function tick(now) {
  if (!walk.playing) return;
  if (now - walk.last > 1000 / 24) {
    walk.last = now;
    if (walk.frame + walk.step < 0 || walk.frame + walk.step >= walk.frames) walk.step = -walk.step;
    walk.frame = Math.min(walk.frames - 1, Math.max(0, walk.frame + walk.step));
    paint();
  }
  requestAnimationFrame(tick);
}

async function save(format) {
  try {
    const answer = await ask("interpolate", walkWish(format));
    const url = URL.createObjectURL(await answer.blob());
    element("a", { href: url, download: `${model().name}-${ends.join("-")}.${format === "apng" ? "png" : format}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  } catch (error) {
    complain(error);
  }
}

// Controls.

function chooseModel() {
  const { serving } = model();
  const names = serving.classes ?? [];
  $("class-field").hidden = !names.length;
  $("class").replaceChildren(element("option", { value: "", textContent: "any" }),
    ...names.map((name, i) => element("option", { value: i, textContent: name })));
  $("truncation").max = maxTruncation() + 0.1;
  $("truncation").value = $("truncation").max;
  ends = null;
  const shape = serving.kind === "image" ? `${serving.shape[1]} × ${serving.shape[0]} pixels` : `${serving.shape[0]} values`;
  const warning = serving.unjudged ? " · not judged" : "";
  $("about").textContent = `${model().name}@${serving.version} · ${shape}${warning}`;
  label();
}

function label() {
  $("count-value").textContent = count();
  $("truncation-value").textContent = truncation() === null ? "off" : truncation().toFixed(1);
}

function restore() {
  const kept = new URLSearchParams(location.hash.slice(1));
  if (models.some((m) => m.name === kept.get("model"))) $("model").value = kept.get("model");
  chooseModel();
  if (/^[0-9]+$/.test(kept.get("seed") ?? "")) $("seed").value = kept.get("seed");
  if (kept.has("side")) $("count").value = kept.get("side");
  if (kept.has("t")) $("truncation").value = kept.get("t");
  if (kept.has("class")) $("class").value = kept.get("class");
  label();
}

async function start() {
  try {
    const served = await (await fetch("models")).json();
    models = served.models.filter((m) => m.serving);
    maxImages = served.limits.max_images;
    $("count").max = Math.min(Number($("count").max), Math.floor(Math.sqrt(maxImages)));
    if (!models.length) throw new Error("No model is loaded yet. Reload in a moment.");
    const preferred = models.find((m) => m.name === "fashion-mnist") ?? models[0];
    $("model").replaceChildren(...models.map((m) => element("option", { value: m.name, textContent: m.name })));
    $("model").value = preferred.name;
    restore();
    await draw();
  } catch (error) {
    $("about").textContent = "";
    complain(error);
  }
}

$("controls").addEventListener("submit", (event) => { event.preventDefault(); draw(); });
$("model").addEventListener("change", () => { chooseModel(); draw(); });
$("class").addEventListener("change", draw);
$("dice").addEventListener("click", () => {
  $("seed").value = Math.floor(Math.random() * (MAX_SEED + 1));
  ends = null;
  draw();
});
for (const id of ["count", "truncation"]) {
  $(id).addEventListener("input", label);
  $(id).addEventListener("change", draw);
}
$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("shell").textContent);
  $("copy").textContent = "Copied";
});
$("one-from").addEventListener("click", () => { setEnds(shown.seed, ends[1]); $("one").close(); });
$("one-to").addEventListener("click", () => { setEnds(ends[0], shown.seed); $("one").close(); });
$("walk-swap").addEventListener("click", () => setEnds(ends[1], ends[0]));
$("walk-play").addEventListener("click", () => play(!walk.playing));
$("walk-frame").addEventListener("input", () => { play(false); walk.frame = Number($("walk-frame").value); paint(); });
for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", () => save(button.dataset.save));
}
start();
