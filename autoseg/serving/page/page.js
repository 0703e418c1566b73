"use strict";

// All texts are set as text, never as HTML: names of files and labels may hold anything.
const part = (id) => document.getElementById(id);
let token = "", chosen = [], addresses = [];

function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
}

function say(text, isError = false) {
  part("state").textContent = text;
  part("state").classList.toggle("error", isError);
}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. It may have ended; start it again.");
  }
  const content = await answer.json().catch(() => ({ error: `The server answered with status ${answer.status}.` }));
  if (!answer.ok) throw Object.assign(new Error(content.error), { status: answer.status });
  return content;
}

async function showModel() {
  let model;
  try {
    model = await ask("model");
  } catch (error) {
    part("access").hidden = error.status !== 401;
    say(error.status === 401 && !token ? "" : error.message, error.status !== 401 || token !== "");
    return;
  }
  say("");
  part("access").hidden = true;
  part("upload").hidden = false;
  part("model").textContent = model.model;
  part("about").textContent = `Finds ${model.labels.join(", ")}. ${model.program}, model ${model.digest}.`;
  const many = model.channels.length > 1;
  part("hint").textContent = many
    ? `The model takes ${model.channels.join(", ")}: one file for each, whose names sort in this order, or one for all.`
    : `The model takes ${model.channels[0]}: an image file, or the DICOM files of a series in a zip file.`;
}

function choose(files) {
  chosen = [...files].sort((one, other) => (one.name < other.name ? -1 : 1));
  part("chosen").replaceChildren(...chosen.map((file) => make("li", `${file.name} (${(file.size / 1e6).toFixed(1)} MB)`)));
  part("send").disabled = chosen.length === 0;
}

function makeLink(name, content) {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const link = make("a", name);
  link.href = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  link.download = name.replaceAll("/", "_");
  addresses.push(link.href);
  const item = make("li");
  item.append(link);
  return item;
}

function showScan(scan, withName) {
  const section = make("div");
  if (withName) section.append(make("h3", scan.name));
  const table = make("table");
  const head = make("tr");
  head.append(make("th", "structure"), make("th", "volume, ml", "number"));
  table.append(head);
  for (const [name, volume] of Object.entries(scan.volumes_ml)) {
    const row = make("tr");
    row.append(make("td", name), make("td", String(volume), "number"));
    table.append(row);
  }
  section.append(table);
  if (scan.agreement !== null) section.append(make("p", `Folds and mirror images agree by ${scan.agreement}.`));
  const remarks = make("ul", "", "remarks");
  remarks.append(...scan.remarks.map((remark) => make("li", remark)));
  section.append(remarks);
  return section;
}

async function segment(event) {
  event.preventDefault();
  const form = new FormData();
  chosen.forEach((file) => form.append("scan", file));
  if (part("series").value) form.append("series", part("series").value);
  addresses.splice(0).forEach((address) => URL.revokeObjectURL(address));
  part("result").hidden = true;
  part("send").disabled = true;
  say("Sending and segmenting; this may take minutes.");
  const began = Date.now();
  const clock = setInterval(() => say(`Sending and segmenting for ${Math.round((Date.now() - began) / 1000)} s.`), 1000);
  try {
    const result = await ask("segment?answer=json", { method: "POST", body: form });
    clearInterval(clock);
    say(`Segmented in ${result.seconds.toFixed(1)} s.`);
    part("downloads").replaceChildren(...Object.entries(result.files).map(([name, content]) => makeLink(name, content)));
    part("scans").replaceChildren(...result.scans.map((scan) => showScan(scan, result.scans.length > 1)));
    part("result").hidden = false;
  } catch (error) {
    clearInterval(clock);
    say(error.message, true);
  }
  part("send").disabled = chosen.length === 0;
}

part("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = part("token").value;
  showModel();
});
part("upload").addEventListener("submit", segment);
part("files").addEventListener("change", () => choose(part("files").files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(kind, (event) => {
    event.preventDefault();
    part("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && !part("upload").hidden) choose(event.dataTransfer.files);
  });
}
showModel();
