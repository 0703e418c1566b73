"use strict";
(() => {
  const element = (name) => document.getElementById(`viewer-${name}`);
  const dialog = document.getElementById("viewer");
  const store = element("cases");
  if (!store) return;
  const servedBy = store.dataset.servedBy;
  const isServed = location.protocol.startsWith("http");
  const DIRECTIONS = [["right", "left"], ["anterior", "posterior"], ["superior", "inferior"]];
  const MOST_COUNTED = 4_000_003; // voxels that are looked at for the middle of a mask; a prime, so that rows are not aligned
  const STEPS = { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0],
    PageUp: [0, 0, 1], PageDown: [0, 0, -1] };
  let content, viewer, starting, shown, images = [], masks = [], turn = 0;

  const note = (text) => { element("note").textContent = text; element("note").hidden = !text; };
  const unpack = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  const start = async () => {
    const packed = new Blob([unpack(element("script").textContent)]).stream();
    const script = document.createElement("script");
    script.textContent = await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
    document.head.append(script);
    const made = new window.niivue.Niivue({ logLevel: "silent", dragAndDropEnabled: false, loadingText: "",
      isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: 1, isColorbar: false,
      crosshairColor: [0.4, 0.8, 1, 0.7], crosshairWidthUnit: "percent", crosshairWidth: 0.5, backColor: [0.06, 0.06, 0.06, 1], isNearestInterpolation: true });
    await made.attachToCanvas(element("canvas"), true);
    made.onLocationChange = describePlace;
    return made;
  };

  const describePlace = ({ mm, values }) => {
    const place = DIRECTIONS.map(([up, down], axis) => `${mm[axis] < 0 ? down : up} ${Math.abs(mm[axis]).toFixed(1)}`);
    const image = shown.images[images.indexOf(viewer.volumes[0])];
    const texts = [`${place.join(", ")} mm`, `${image}: ${Number(values[0].value.toPrecision(4))}`];
    for (const { id, value } of values.slice(1)) {
      const title = shown.masks[masks.findIndex((mask) => mask.id === id)];
      texts.push(`${title}: ${content.structures[Math.round(value) - 1]?.[0] ?? "none"}`);
    }
    element("place").textContent = texts.join(" · ");
  };

  const fetchVolume = async (place) => {
    const answer = await fetch(`volumes/${shown.number}/${place}`);
    if (!answer.ok) throw new Error(await answer.text());
    return answer.arrayBuffer();
  };

  const colourTable = () => {
    const parts = [0, 2, 4].map((at) => [0, ...content.structures.map(([, text]) => parseInt(text.slice(1 + at, 3 + at), 16))]);
    return { R: parts[0], G: parts[1], B: parts[2], A: parts[0].map((_, number) => (number ? 255 : 0)),
      labels: ["", ...content.structures.map(([name]) => name)] };
  };

  const readVolume = async (place) => {
    const buffer = isServed ? await fetchVolume(place) : unpack(shown.volumes[place]).buffer;
    const isMask = place >= shown.images.length;
    const volume = await window.niivue.NVImage.loadFromUrl({ url: buffer, name: isServed ? "v.nii" : "v.nii.gz",
      colormap: "gray", opacity: isMask ? element("opacity").value / 100 : 1, colorbarVisible: false });
    if (isMask) volume.setColormapLabel(colourTable());
    return volume;
  };

  const arrange = () => {
    const chosen = [images[element("channel").value]];
    const boxes = element("masks").querySelectorAll("input");
    masks.forEach((mask, number) => { if (boxes[number].checked) chosen.push(mask); });
    while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
    chosen.forEach((volume) => viewer.addVolume(volume));
    viewer.createOnLocationChange();
  };

  const offer = () => {
    element("channel").replaceChildren(...shown.images.map((title, number) => new Option(title, number)));
    element("channel-label").hidden = shown.images.length < 2;
    element("masks").replaceChildren(...shown.masks.map((title, number) => {
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: number === shown.masks.length - 1 });
      box.addEventListener("change", arrange);
      label.append(box, ` ${title} `);
      return label;
    }));
  };

  const centre = () => {
    const mask = masks.findLast((volume) => volume.img.some((value) => value > 0));
    if (!mask) return;
    const [width, height] = mask.hdr.dims.slice(1);
    const indexOf = (place) => {
      const row = Math.floor(place / width);
      return [place % width, row % height, Math.floor(row / height)];
    };
    const middle = [0, 0, 0];
    const step = Math.ceil(mask.img.length / MOST_COUNTED);
    const inside = [];
    for (let place = 0; place < mask.img.length; place += step) if (mask.img[place]) inside.push(place);
    if (!inside.length) return;
    for (const place of inside) indexOf(place).forEach((index, axis) => { middle[axis] += index / inside.length; });
    const distance = (place) => indexOf(place).reduce((sum, index, axis) => sum + (index - middle[axis]) ** 2, 0);
    let [nearest, shortest] = [inside[0], Infinity];
    for (const place of inside) if (distance(place) < shortest) [nearest, shortest] = [place, distance(place)];
    const [x, y, z] = indexOf(nearest);
    const mm = mask.hdr.affine.slice(0, 3).map(([a, b, c, d]) => a * x + b * y + c * z + d);
    viewer.scene.crosshairPos = viewer.mm2frac(mm, 0, true);
    viewer.createOnLocationChange();
    viewer.drawScene();
  };

  const sayHowFine = () => note(isServed ? "" : shown.reduced
    ? `A small copy of the scan; ${servedBy} shows it at full resolution.`
    : "Intensities have 256 steps here.");

  const open = async (name) => {
    const mine = ++turn;
    element("volumes").hidden = true;
    content ??= JSON.parse(store.textContent);
    shown = content.cases[name];
    if (!shown) return note("The scan of this case cannot be shown.");
    if (!isServed && !shown.volumes) return note(`This scan is not in the page, which would become too large; ${servedBy} shows it.`);
    note("The scan is being opened …");
    try {
      element("volumes").hidden = false;
      viewer = await (starting ??= start());
      const volumes = await Promise.all([...shown.images, ...shown.masks].map((_, place) => readVolume(place)));
      if (mine !== turn) return;
      images = volumes.slice(0, shown.images.length);
      masks = volumes.slice(shown.images.length);
      offer();
      arrange();
      centre();
      element("picture").hidden = true;
      sayHowFine();
      dialog.dataset.shows = name;
    } catch (error) {
      if (mine !== turn) return;
      element("volumes").hidden = true;
      note(`The scan cannot be shown: ${error.message}`);
    }
  };

  dialog.addEventListener("case-open", (event) => { delete dialog.dataset.shows; open(event.detail); });
  dialog.addEventListener("close", () => { turn += 1; });
  element("channel").addEventListener("change", arrange);
  element("opacity").addEventListener("input", () => {
    masks.forEach((mask) => { mask.opacity = element("opacity").value / 100; });
    viewer.updateGLVolume();
  });
  element("view").addEventListener("change", () => {
    viewer.setSliceType({ axial: 0, coronal: 1, sagittal: 2, planes: 3, render: 4 }[element("view").value]);
  });
  element("canvas").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") event.stopImmediatePropagation();
    if (!STEPS[event.key]) return;
    event.preventDefault();
    viewer.moveCrosshairInVox(...STEPS[event.key]);
    viewer.createOnLocationChange();
  }, true);
})();
